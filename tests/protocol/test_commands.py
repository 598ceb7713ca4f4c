"""Argument lists on the wire, and what they are answered with: `tmuxcc.protocol.commands`."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmuxcc import errors
from tmuxcc.protocol import Replies, command_name, commands, encode_command, expected_replies
from tmuxcc.protocol.events import Reply, Unknown

from .control import SUPPORTED, Control, open_control
from .vectors import of_kind, unescape

# ------------------------------------------------------------------------------------ on the wire


def _read_back(line: bytes) -> list[bytes]:
    """What tmux makes of a line, by the rules of yylex in cmd-parse.y that are used here."""
    assert line.endswith(b"\n")
    words = []
    for word in re.findall(rb"""(?:'[^']*'|"[^"]*"|[^ '"\n])+""", line):
        pieces = re.findall(rb"""'([^']*)'|"('+)"|\\([0-3][0-7]{2})|([A-Za-z0-9_./-]+)""", word)
        words.append(
            b"".join(
                bytes([int(octal, 8)]) if octal else single + double + bare
                for single, double, octal, bare in pieces
            )
        )
    return words


@pytest.mark.parametrize("vector", of_kind("encode", "encode-anti"))
def test_arguments_of_a_peer_are_one_clean_line(vector: dict) -> None:
    argv = [unescape(word) for word in vector["input"]]
    if "error" in vector["expected"]:
        with pytest.raises(errors.InvalidCommand):
            encode_command(*argv)
        return
    line = encode_command("x", *argv)
    assert line.count(b"\n") == 1
    assert b"\0" not in line
    assert _read_back(line) == [b"x", *argv]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.binary(min_size=0, max_size=40).map(lambda data: data.replace(b"\0", b"'"))))
def test_a_line_is_printable_ascii_and_holds_its_arguments(argv: list[bytes]) -> None:
    line = encode_command("x", *argv)
    assert re.fullmatch(rb"[ -~]+\n", line)
    assert _read_back(line) == [b"x", *argv]


def test_arguments_may_be_text_or_bytes() -> None:
    assert encode_command("display-message", "-p", "hé") == b"display-message -p 'h'\\303\\251\n"
    assert encode_command(b"display-message", "\udcff") == b"display-message \\377\n"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "empty"),
        ([""], "name is empty"),
        ([b""], "name is empty"),
        (["A=1"], "assignment"),
        (["_x9=1", "list-panes"], "assignment"),
        (["ls", "\0"], "NUL"),
        (["ls", "a\0'b"], "NUL"),
        (["ls\0"], "NUL"),
        (["ls", "\ud800"], "surrogate"),
        ([3], "3 is neither str nor bytes"),
        (["ls", None], "None is neither"),
        ([["ls", "-F"]], "neither"),
    ],
)
def test_what_can_not_be_sent_is_refused(argv: list, says: str) -> None:
    with pytest.raises(errors.InvalidCommand, match=says) as caught:
        encode_command(*argv)
    assert isinstance(caught.value, ValueError)


def test_assignment_is_only_special_as_the_command() -> None:
    assert encode_command("new-window", "-e", "A=1") == b"new-window -e 'A=1'\n"


# ---------------------------------------------------------------------------------- against tmux


@pytest.fixture(scope="module", params=SUPPORTED)
def control(request: pytest.FixtureRequest) -> Iterator[Control]:
    with open_control(request.param) as control:
        yield control


def _hostile_words(seed: int, count: int) -> list[bytes]:
    generator = random.Random(seed)
    tokens = [b"'", b'"', b"\\", b"$", b"~", b"#", b"{", b"}", b";", b" ", b"\n", b"\t", b"\r",
              b"%", b"\x7f", b"\xff", "é".encode(), "─".encode(), b"$HOME", b"#{pane_id}", b"%if",
              b"\\012", b"=", b"@1", b"-", b"a"]  # fmt: skip
    words = [bytes([byte]) for byte in range(1, 256)]
    while len(words) < count:
        size = generator.randrange(1, 12)
        if generator.random() < 0.5:
            words.append(b"".join(generator.choices(tokens, k=size)))
        else:
            words.append(bytes(generator.randrange(1, 256) for _ in range(size)))
    return words


def test_tmux_reads_back_the_very_bytes(control: Control, tmp_path: Path) -> None:
    words = _hostile_words(seed=1, count=700)
    # set-buffer takes any bytes and save-buffer -a writes them; a mark after each shows its end.
    words += [unescape(word) for param in of_kind("encode") for word in param.values[0]["input"]]
    words = [word for word in words if word and b"\0" not in word]
    path = tmp_path / "words"
    lines = []
    for word in words:
        lines.append(encode_command("set-buffer", "-b", "word", "--", word)[:-1])
        lines.append(encode_command("save-buffer", "-a", "-b", "word", str(path))[:-1])
        lines.append(encode_command("set-buffer", "-b", "mark", "--", "\n--\n")[:-1])
        lines.append(encode_command("save-buffer", "-a", "-b", "mark", str(path))[:-1])

    replies = control.replies(*lines)

    assert [reply for reply in replies if not reply.ok] == []
    assert path.read_bytes() == b"".join(word + b"\n--\n" for word in words)


def test_tmux_takes_an_empty_argument_and_many(control: Control) -> None:
    lines = [
        encode_command("set-option", "-g", "@empty", "")[:-1],
        encode_command("show-options", "-gv", "@empty")[:-1],
        encode_command("send-keys", "-H", *["61"] * 2000)[:-1],
    ]
    replies = control.replies(*lines)
    assert [(reply.ok, reply.lines) for reply in replies] == [
        (True, ()),
        (True, (b"",)),
        (True, ()),
    ]


def _usages(control: Control) -> dict[str, tuple[str, str]]:
    """Each command of this tmux: its alias and its usage."""
    (reply,) = control.replies(b"list-commands")
    found = {}
    for line in reply.lines:
        name, alias, usage = re.fullmatch(
            r"([a-z-]+)(?: \(([a-z]+)\))? ?(.*)", line.decode()
        ).groups()  # type: ignore[union-attr]
        found[name] = (alias, usage)
    return found


def test_the_aliases_of_tmux_are_known(control: Control) -> None:
    aliases = {alias: name for name, (alias, _) in _usages(control).items() if alias}
    known = {alias: command_name([alias]) for alias in aliases}
    assert known == aliases
    assert {command_name([alias.encode()]) for alias in aliases} == set(aliases.values())


def test_the_default_command_aliases_that_hold_are_known(control: Control) -> None:
    (reply,) = control.replies(b"show-options -sv command-alias")
    aliases = dict(line.decode().split("=", 1) for line in reply.lines)
    for alias, expansion in aliases.items():
        argv = expansion.split()
        assert expected_replies([alias]) in (expected_replies(argv), Replies.FENCED)
        assert expected_replies([alias, "-W"]) in (expected_replies([*argv, "-W"]), Replies.FENCED)
        assert command_name([alias]) in (alias, argv[0])


def _flags(usage: str) -> tuple[set[str], set[str]]:
    """The flags of a usage line: those that stand alone, and those that take a value."""
    valued = set(re.findall(r"\[-([A-Za-z]) ", usage))
    # Some usage lines name a flag with a value among those without as well.
    return set("".join(re.findall(r"\[-([A-Za-z0-9]+)\]", usage))) - valued, valued


def test_flags_that_matter_are_read_as_tmux_reads_them(control: Control) -> None:
    usages = _usages(control)
    looked_at = {name: valued for name, (flags, valued) in commands._HOLDING.items() if flags}
    looked_at |= {name: valued for name, valued in commands._WAITING.items() if name in usages}
    looked_at["display-message"] = "cdFt"
    for name, known in looked_at.items():
        alone, valued = _flags(usages[name][1])
        assert valued <= set(known), name
        assert not alone & set(known), name


_TYPED = {
    "bind-key": "C-x {set-option -g @x 1}",
    "delete-buffer": "-b gone",
    "join-pane": "-s %0 -t %1",
    "kill-pane": "-t %1",
    "kill-session": "-t other",
    "kill-window": "-t @9",
    "link-window": "-s @0 -t :9",
    "move-pane": "-s %0 -t %1",
    "move-window": "-s :9 -t :8",
    "new-pane": "cat",
    "new-session": "-d -s other cat",
    "new-window": "-d cat",
    "pipe-pane": "-t %0",
    "rename-session": "renamed",
    "rename-window": "renamed",
    "resize-pane": "-t %0 -x 20",
    "respawn-pane": "-t %0 cat",
    "respawn-window": "-t @0 cat",
    "send-keys": "-t %0 a",
    "set-buffer": "text",
    "set-environment": "A 1",
    "set-hook": "-R after-list-keys",
    "set-option": "@x 1",
    "set-window-option": "@x 1",
    "split-window": "-t %0 cat",
    "unbind-key": "C-x",
    "unlink-window": "-t :8",
}
_ENDS_THE_CONNECTION = {"detach-client", "kill-server"}


def test_commands_with_one_reply_have_one_on_success_and_on_failure(control: Control) -> None:
    assert control.replies(b"set-hook -g after-list-keys 'display-message -p hooked'")[0].ok
    for name in sorted(commands._ONE - _ENDS_THE_CONNECTION):
        for line in (f"{name} {_TYPED.get(name, '')}", f"{name} -t no:such.pane", f"{name} -?"):
            found = control.run(line.encode())
            own = [event for event in found if isinstance(event, Reply) and event.flags == 1]
            strays = [event for event in found if isinstance(event, Unknown)]
            assert (len(own), strays) == (1, []), line


def test_the_words_of_a_program_are_not_repeated_in_the_reply(control: Control) -> None:
    assert control.replies(b"set-option -g remain-on-exit on")[0].ok
    program = ["sh", "-c", "exit 3 # a\n%end 1 1 1\n%exit", "#{pane_id}#(date)"]
    for name in commands._PROGRAMS:
        flags = ["-k"] if name.startswith("respawn") else ["-d", "-P"]
        for target in ("no:such.pane", "%0", "@0", "=", "$0:0"):
            argv = [name, *flags, "-t", target, "--", *program]
            found = control.run(encode_command(*argv)[:-1])
            own = [event for event in found if isinstance(event, Reply) and event.flags == 1]
            strays = [event for event in found if isinstance(event, Unknown)]
            assert (len(own), strays) == (1, []), argv
            assert not any(b"%e" in line for line in own[0].lines), argv


@pytest.mark.parametrize(
    "argv",
    [
        ["wait-for", "held"],
        ["run-shell", "exec tmux_test_wait"],
        ["if-shell", "exec tmux_test_wait", "set-option -g @x 1"],
        ["confirm-before", "-p", "sure", "set-option -g @x 1"],
        ["command-prompt", "-p", "sure", "set-option -g @x 1"],
        ["display-menu", "-t", "%0", "a", "a", "set-option -g @x 1"],
    ],
    ids=lambda argv: argv[0],
)
@pytest.mark.parametrize("version", SUPPORTED)
def test_commands_that_hold_the_connection_are_known(
    version: str, argv: list[str], tmp_path: Path
) -> None:
    if argv[0] == "display-menu" and version not in ("3.3a", "3.5a", "3.7c"):
        pytest.skip("holds up to tmux 3.7c; later versions are treated alike")
    with open_control(version) as control:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        line = encode_command(*[word.replace("exec tmux_test_wait", f": <{fifo}") for word in argv])
        control.write(line + b"set-option -g @ran yes\n")
        while not any(isinstance(event, Reply) for event in control.read()):
            pass
        assert control.tmux("show-options", "-gqv", "@ran") == ""
        assert expected_replies(argv) is Replies.HOLDS
        if "<" in line.decode():
            fifo.write_bytes(b"")
        control.tmux("wait-for", "-S", "held")


# --------------------------------------------------------------------------------------- replies

ONE, FENCED, HOLDS = Replies.ONE, Replies.FENCED, Replies.HOLDS


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("list-panes", ONE),
        ("lsp -a -F #{pane_id}|#{window_flags}", ONE),
        ("lsp -F #{pane_title}", FENCED),
        ("lsp -F #{pane_id", FENCED),
        ("lsp -F #S", FENCED),
        ("lsp -F ##{pane_title}", ONE),
        ("lsp -F ###{pane_title}", FENCED),
        ("lsp -F #(date)", FENCED),
        ("display-message -p text", ONE),
        ("display-message -p #{pane_current_path}", FENCED),
        ("display -ap", FENCED),
        ("display -c a -p -v x", FENCED),
        ("display -d -a x", ONE),  # -d takes a value: -a is no flag here
        ("rename-window #{pane_title}", FENCED),
        ("has-session -t a\n%end", FENCED),
        ("send-keys -l -- a\nb#{x}", ONE),
        ("send-keys -l a\nb", FENCED),
        ("set-buffer -b #x -- text", FENCED),
        ("set-buffer -b x -- a\nb", ONE),
        ("rename-window -- a\nb", FENCED),
        ("new-window -d -n x -- sh a\n#{x}", ONE),
        ("respawn-pane -k -t %0 -- a\nb", ONE),
        ("new-window -n a\nb -t x -- sh", FENCED),
        ("new-window -n -- -c a\nb", FENCED),  # -n takes a value: it may be --
        ("new-window -d a\nb", FENCED),
        ("capture-pane -p", FENCED),
        ("show-buffer", FENCED),
        ("source-file x", FENCED),
        ("display-messag x", FENCED),  # a prefix
        ("my-own-alias", FENCED),
        ("wait-for x", HOLDS),
        ("wait -S x", FENCED),
        ("wait-for -E pane-exited", HOLDS),
        ("wait-for -F -S x", HOLDS),
        ("wait-f x", HOLDS),
        ("run-shell sleep", HOLDS),
        ("run-shell -b sleep", FENCED),
        ("run -Cb x", FENCED),
        ("run -d 5 -b x", FENCED),
        ("run -d5 -b x", FENCED),
        ("run -d -b x", HOLDS),
        ("run -c -b x", HOLDS),
        ("run - -b", HOLDS),
        ("run -- -b", HOLDS),
        ("run x -b", HOLDS),
        ("run-s x", HOLDS),
        ("if true x", HOLDS),
        ("if -F 1 x", FENCED),
        ("if -b true x", FENCED),
        ("if -t -F 1 x", HOLDS),
        ("command-prompt", HOLDS),
        ("command-prompt -1b", FENCED),
        ("command-prompt -P -b", FENCED),
        ("confirm -c y -b x", FENCED),
        ("confirm -p -b x", HOLDS),
        ("display-menu x", HOLDS),
        ("popup", HOLDS),
        ("displayp", HOLDS),
        ("new-pane cat", ONE),
        ("newp -W cat", HOLDS),
        ("split-window -hW cat", HOLDS),
        ("split-window -b -W cat", HOLDS),
        ("splitw -c -W cat", ONE),
        ("splitp -W cat", HOLDS),
        ("split-w -W cat", HOLDS),
        ("new-window -W", ONE),
    ],
)
def test_what_a_command_is_answered_with(line: str, replies: Replies) -> None:
    argv = line.split(" ")
    assert expected_replies(argv) is replies
    assert expected_replies([word.encode() for word in argv]) is replies


def test_an_alias_that_its_user_has_redefined_is_fenced() -> None:
    assert expected_replies(["ls"], shadowed={"ls"}) is FENCED
    assert expected_replies([b"ls"], shadowed={"ls"}) is FENCED
    assert expected_replies(["ls"], shadowed={"list-sessions"}) is FENCED
    assert expected_replies(["list-sessions"], shadowed={"ls"}) is ONE


def test_an_empty_argument_list_has_no_name_and_no_known_replies() -> None:
    assert command_name([]) == ""
    assert expected_replies([]) is FENCED
