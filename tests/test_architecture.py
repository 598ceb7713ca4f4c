"""The import rule of the house, and the shape of every module's public face."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tmuxcc"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each part may import besides itself. `errors` and `protocol` stand below all, `cli` above.
_BELOW_CLIENT = {"errors", "protocol"}
_BELOW_SWARM = _BELOW_CLIENT | {"client"}
_BELOW_TOOLS = _BELOW_SWARM | {"swarm"}
ALLOWED = {
    "errors": set(),
    "protocol": {"errors"},
    "client": _BELOW_CLIENT,
    "swarm": _BELOW_SWARM,
    "hooks": _BELOW_TOOLS,
    "tasks": _BELOW_TOOLS,
    "workspace": _BELOW_TOOLS,
    "cli": _BELOW_TOOLS | {"hooks", "tasks", "workspace", ""},
    "__main__": {"cli", ""},
    "": _BELOW_TOOLS | {"hooks", "tasks", "workspace"},
}

# What may be imported from outside: the protocol and the errors have no I/O, no clock, no trio.
_PURE = {
    "__future__", "attrs", "codecs", "collections", "enum", "functools", "getopt", "itertools",
    "json", "re", "types", "typing",
}  # fmt: skip


def _ids(paths: list[Path]) -> list:
    return [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in paths]


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _part(module: tuple[str, ...]) -> str:
    """The part of the package that a module (its path below tmuxcc) belongs to."""
    return module[0] if module else ""


def _imports(path: Path) -> tuple[set[tuple[str, ...]], set[str]]:
    """The modules of tmuxcc that a file imports (paths below tmuxcc), and the others' names."""
    package = path.relative_to(PACKAGE).with_suffix("").parts[:-1]
    inside: set[tuple[str, ...]] = set()
    outside: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [tuple(str(node.module).split("."))]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            if node.module:
                names = [("tmuxcc", *base, *node.module.split("."))]
            else:
                names = [("tmuxcc", *base, alias.name) for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "tmuxcc":
                inside.add(name[1:])
            else:
                outside.add(name[0])
    return inside, outside


@pytest.mark.parametrize("path", _ids(MODULES))
def test_a_module_imports_only_what_stands_below_it(path: Path) -> None:
    part = _part(path.relative_to(PACKAGE).with_suffix("").parts)
    part = "" if part == "__init__" else part
    inside, _ = _imports(path)
    parts = {_part(module) for module in inside}
    assert parts - {part} <= ALLOWED[part]


@pytest.mark.parametrize("path", _ids(sorted((PACKAGE / "protocol").glob("*.py"))))
def test_the_protocol_has_no_way_to_do_io(path: Path) -> None:
    _, outside = _imports(path)
    assert outside <= _PURE


def test_errors_import_nothing_of_weight() -> None:
    inside, outside = _imports(PACKAGE / "errors.py")
    assert inside == set()
    assert outside <= _PURE


def test_no_module_imports_in_a_circle() -> None:
    graph = {}
    for path in MODULES:
        module = path.relative_to(PACKAGE).with_suffix("").parts
        module = module[:-1] if module[-1] == "__init__" else module
        graph[module] = {name for name in _imports(path)[0] if name != module}
    done: set[tuple[str, ...]] = set()

    def visit(module: tuple[str, ...], way: list[tuple[str, ...]]) -> None:
        assert module not in way, [".".join(name) for name in [*way, module]]
        if module not in done:
            for name in sorted(graph.get(module, ())):
                visit(name, [*way, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])


@pytest.mark.parametrize("path", _ids(MODULES))
def test_nothing_is_imported_with_a_star_or_for_types_only(path: Path) -> None:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names)
        if isinstance(node, ast.If):
            assert "TYPE_CHECKING" not in ast.dump(node.test)


def _names(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.dump(node.targets[0]).startswith(
            "Name(id='__all__'"
        ):
            return list(ast.literal_eval(node.value))
    return None


def _isort_key(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("path", _ids(MODULES))
def test_the_public_names_of_a_package_are_listed_in_order(path: Path) -> None:
    tree = _tree(path)
    names = _names(tree)
    imports = any(isinstance(node, ast.ImportFrom) and node.level for node in tree.body)
    if path.name == "__init__.py" and imports:
        assert names is not None
    if names is not None:
        assert names == sorted(set(names), key=_isort_key)


@pytest.mark.parametrize("path", _ids(MODULES))
def test_every_public_name_has_a_docstring(path: Path) -> None:
    tree = _tree(path)
    assert ast.get_docstring(tree), path

    def check(body: list[ast.stmt], where: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                overload = any("overload" in ast.dump(each) for each in node.decorator_list)
                if node.name.startswith("_") or overload:
                    continue
                assert ast.get_docstring(node), f"{where}.{node.name}"
                if isinstance(node, ast.ClassDef):
                    check(node.body, f"{where}.{node.name}")

    check(tree.body, path.stem)
