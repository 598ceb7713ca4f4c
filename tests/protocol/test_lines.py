"""One command as it is sent: encoded, steered around faults, fenced; and its answer."""

from __future__ import annotations

import pytest

from tmuxcc.errors import CommandError, InvalidCommand, ReplyTooLarge
from tmuxcc.protocol import Request, name_for_kept, parse_version, prepare, result
from tmuxcc.protocol.events import Reply

OLD = parse_version("3.3a")
NEW = parse_version("3.8")


def replied(*lines: bytes, ok: bool = True, omitted: int = 0) -> Reply:
    return Reply(1700000000, 7, 1, lines, ok, omitted)


def answered(*replies: Reply, argv: tuple[str, ...] = ("x",), strays: tuple[bytes, ...] = ()):
    return Request(argv, replies=list(replies), strays=list(strays))


# Sending


def test_a_plain_command_is_sent_as_it_is() -> None:
    line = prepare(["list-panes", "-a"], NEW)

    assert line.data == b"list-panes -a\n"
    assert not line.fenced


def test_text_of_others_is_fenced() -> None:
    assert prepare(["capture-pane", "-p"], NEW).fenced
    assert prepare(["display-message", "-p", "#{pane_title}"], NEW).fenced
    assert not prepare(["display-message", "-p", "#{pane_id}"], NEW).fenced


def test_a_name_that_its_user_has_redefined_is_fenced() -> None:
    assert prepare(["list-panes"], NEW, {"list-panes"}).fenced


@pytest.mark.parametrize(
    "argv",
    [["wait-for", "x"], ["run-shell", "sleep 9"], ["confirm-before", "kill-server"]],
)
def test_what_would_hold_up_the_connection_is_refused(argv: list[str]) -> None:
    with pytest.raises(InvalidCommand, match="would hold up every other command"):
        prepare(argv, NEW)


@pytest.mark.parametrize("argv", [[3], ["list-panes", 3]])
def test_a_word_that_is_no_text_is_refused(argv: list[str]) -> None:
    with pytest.raises(InvalidCommand, match="3 is neither str nor bytes"):
        prepare(argv, NEW)


def test_a_pane_is_paused_before_it_is_switched_off_where_that_crashes() -> None:
    argv = ["refresh-client", "-A", "%1:off", "-A", "%2:on"]

    assert prepare(argv, OLD).data == b"refresh-client -A '%1:pause' -A '%1:off' -A '%2:on'\n"
    assert prepare(argv, NEW).data == b"refresh-client -A '%1:off' -A '%2:on'\n"


def test_a_word_that_tmux_keeps_is_sent_by_its_name() -> None:
    word = "line\n" * 100 + "end"
    kept = {word: name_for_kept("WORD", "\nend")}

    line = prepare(["new-window", "--", "sh", "-c", word, "end"], NEW, kept=kept)

    assert line.argv == ("new-window", "--", "sh", "-c", word, "end")
    assert line.data == b"new-window -- sh -c \"${WORD}\"''\\012'end' end\n"


def test_what_only_looks_like_a_pane_to_switch_off_stays() -> None:
    argv = ["refresh-client", "-B", "%1:off"]

    assert prepare(argv, OLD).data == b"refresh-client -B '%1:off'\n"


def test_a_paste_asks_whether_the_pane_is_dead_where_that_crashes() -> None:
    argv = ["paste-buffer", "-p", "-t", "%1", "-b", "it's"]

    line = prepare(argv, OLD)

    assert line.argv == tuple(argv)
    assert (line.fenced, line.replies) == (False, 2)
    assert prepare(argv, OLD, {"if-shell"}).fenced
    assert line.data.startswith(b"if-shell -F -t '%1' '#{pane_dead}' 'has-session -t '")
    assert prepare(argv, NEW).data == b"paste-buffer -p -t '%1' -b 'it'\"'\"'s'\n"


def test_a_paste_that_can_not_be_understood_is_left_to_tmux() -> None:
    line = prepare(["paste-buffer", "-x"], OLD)

    assert (line.data, line.replies) == (b"paste-buffer -x\n", 1)


def test_no_output_on_a_running_client_is_refused_where_it_hangs() -> None:
    argv = ["refresh-client", "-f", "no-output"]

    with pytest.raises(InvalidCommand, match="hangs when no-output is changed"):
        prepare(argv, OLD)
    assert prepare(argv, NEW).data == b"refresh-client -f no-output\n"


def test_respawning_a_pane_pauses_it_where_that_crashes() -> None:
    argv = ["respawn-pane", "-k", "-t", "%3", "cat"]

    line = prepare(argv, OLD)

    assert line.data == (
        b"refresh-client -A '%3:pause' ; respawn-pane -k -t '%3' cat"
        b" ; refresh-client -A '%3:continue'\n"
    )
    assert line.fenced
    assert prepare(argv, NEW).data == b"respawn-pane -k -t '%3' cat\n"


def test_respawning_a_pane_that_is_not_named_by_id_is_refused_where_it_crashes() -> None:
    with pytest.raises(InvalidCommand, match="name the pane by its id"):
        prepare(["respawn-pane", "-k", "-t", ":1"], OLD)


def test_respawning_a_dead_pane_is_harmless() -> None:
    assert prepare(["respawn-pane", "-t", ":1"], OLD).data == b"respawn-pane -t ':1'\n"


def test_a_negative_width_is_refused_where_it_hangs() -> None:
    argv = ["display-message", "-p", "#{=-5:pane_title}"]

    with pytest.raises(InvalidCommand, match="negative width"):
        prepare(argv, OLD)
    assert prepare(argv, NEW).fenced


@pytest.mark.parametrize("word", ["x=-1", b"#{=-5:x}"])
def test_what_is_no_format_with_a_negative_width_is_sent(word: str | bytes) -> None:
    assert prepare(["set-buffer", "--", word], OLD).data.startswith(b"set-buffer")


def test_lines_that_change_windows_or_destroy_are_known_where_their_order_crashes() -> None:
    change, destroy = ["select-window", "-t", "@1"], ["kill-session", "-t", "$1"]

    assert prepare(change, OLD).changes_window
    assert not prepare(change, OLD).destroys
    assert prepare(destroy, OLD).destroys
    assert prepare(["kill-window"], OLD).changes_window
    assert not prepare(change, NEW).changes_window
    assert not prepare(destroy, NEW).destroys


# The answer


def test_the_answer_is_the_lines_of_all_replies() -> None:
    assert result(answered(replied(b"a", b"b"), replied(b"caf\xc3\xa9 \xff"))) == [
        "a",
        "b",
        "café \udcff",
    ]


def test_the_first_error_is_the_answer() -> None:
    error = result(answered(replied(b"a"), replied(b"no", ok=False), argv=("bad", "x")))

    assert isinstance(error, CommandError)
    assert (error.argv, error.lines) == (("bad", "x"), ["no"])


def test_a_reply_that_was_cut_is_an_error_with_what_is_left() -> None:
    error = result(answered(replied(b"a", omitted=12)))

    assert isinstance(error, ReplyTooLarge)
    assert (error.lines, error.omitted) == (["a"], 12)


def test_the_late_error_of_a_file_command_is_found_by_the_name_of_its_file() -> None:
    argv = ("load-buffer", "/nowhere")
    strays = (b"hook text", b"/nowhere: No such file or directory")

    error = result(answered(replied(), argv=argv, strays=strays))

    assert isinstance(error, CommandError)
    assert error.lines == ["/nowhere: No such file or directory"]


def test_text_that_is_not_about_the_file_is_nobodys_error() -> None:
    argv = ("load-buffer", "/nowhere")

    assert result(answered(replied(), argv=argv, strays=(b"hook text",))) == []
    assert result(answered(replied(), argv=("if-shell",), strays=(b"/nowhere",))) == []
