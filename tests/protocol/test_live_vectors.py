"""What real tmux answers to lines that others have typed into it, on every version at hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tmuxcc.protocol import events
from tmuxcc.protocol.events import Reply, Unknown

from .control import PROGRAMS, Control, open_control
from .vectors import of_kind, unescape

_PROSE = "tells a situation in words, not lines to type: left to the tests of the client"
_HOLDS = "holds the connection: test_commands.py types these"
_NOT_TYPED = {
    **dict.fromkeys(["live-051", "live-052", "live-053", "live-054"], _HOLDS),
    **dict.fromkeys(["live-056", "live-057", "live-058", "live-059", "live-062"], _PROSE),
    **dict.fromkeys(["live-063", "live-064", "live-065", "live-066", "live-069"], _PROSE),
    **dict.fromkeys(["live-072", "live-073", "live-074", "live-075", "live-076"], _PROSE),
    **dict.fromkeys(["live-077", "live-078", "live-079", "live-080"], _PROSE),
}
_LIVE = of_kind("live", skipped=_NOT_TYPED)


@pytest.fixture(scope="module", params=sorted(PROGRAMS))
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def control(version: str) -> Iterator[Control]:
    with open_control(version) as control:
        yield control


def _lines(vector: dict, folder: Path) -> list[bytes]:
    """The lines of a vector, those that it only describes written out."""
    sourced = folder / "FILE"
    if vector["id"] == "live-022":
        sourced.write_text("display-message -p one\ndisplay-message -p two\n", encoding="ascii")
        return [b"source-file '%s'" % bytes(sourced)]
    if vector["id"] == "live-023":
        sourced.write_text("display-message -p one\nbogus\n", encoding="ascii")
        return [b"source-file '%s'" % bytes(sourced)]
    if vector["id"] == "live-040":
        return [b"send-keys -t %0 -H" + b" 61" * 9000]
    return [unescape(line) for line in vector["input"]]


def _expected(vector: dict, version: str, folder: Path) -> list[object]:
    if version in vector["same_on"]:
        shapes = vector["expected"]["blocks_in_order"]
    else:
        shapes = vector["differs_on"][version]
    expected: list[object] = []
    for shape in shapes:
        if "ok" in shape:
            body = tuple(unescape(line) for line in shape["body"])
            expected.append((shape["ok"], shape["flags"], body))
        elif shape["t"] == "text":
            line = unescape(shape["line"])
            expected.append(Unknown(line.replace(b"FILE", bytes(folder / "FILE"))))
        else:
            assert shape == {"t": "pause", "pane": "%0"}
            expected.append(events.Pause("%0"))
    return expected


@pytest.mark.parametrize("vector", [param for param in _LIVE if param.marks])
def test_vector_that_is_not_typed_here(vector: dict) -> None:
    raise AssertionError(f"no way to check the vector {vector['id']}")


@pytest.mark.parametrize("vector", [param for param in _LIVE if not param.marks])
def test_tmux_answers_as_recorded(
    vector: dict, version: str, control: Control, tmp_path: Path
) -> None:
    if version not in [*vector["same_on"], *vector.get("differs_on", {})]:
        pytest.skip(f"not recorded for tmux {version}")
    expected = _expected(vector, version, tmp_path)

    found = control.run(*_lines(vector, tmp_path))

    # Other notifications come when they come (renamed windows, echoed keys).
    told = [
        (event.ok, event.flags, event.lines) if isinstance(event, Reply) else event
        for event in found
        if isinstance(event, Reply | Unknown | events.Pause)
    ]
    assert told == expected
