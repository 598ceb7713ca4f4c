"""What an agent is doing, told from its output, its screen and its own word."""

# ruff: noqa: RUF001 -- the screens are drawn with the characters that the programs draw

from __future__ import annotations

import copy
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tmuxcc.swarm import activity
from tmuxcc.swarm.activity import ActivityTracker, Explanation
from tmuxcc.swarm.marks import MAX_MARK
from tmuxcc.swarm.rules import GENERIC, AgentKind, load_kind, load_kinds
from tmuxcc.swarm.state import Activity

BUSY, IDLE, BLOCKED, UNKNOWN = Activity.BUSY, Activity.IDLE, Activity.BLOCKED, Activity.UNKNOWN
CLAUDE, CODEX, AIDER, SHELL = (load_kinds()[name] for name in ("claude", "codex", "aider", "shell"))

RULE = "─" * 40
BOX = f"{RULE}\n❯\n{RULE}\n  ? for shortcuts"
SPINNER = f"✽ Fixing… (12s · ↑ 1k tokens)\n{BOX}"
DIALOG = " Do you want to proceed?\n ❯ 1. Yes\n   2. No\n Esc to cancel · Tab to amend"
PROMPT = "user@host:~$"


def osc(text: str) -> bytes:
    return b"\x1b]" + text.encode() + b"\x07"


def title(text: str) -> bytes:
    return osc(f"0;{text}")


WORKS, STOPS = title("⠂ Fix it"), title("✳ Fix it")
MARK_A, MARK_B, MARK_C, MARK_D = (osc(f"133;{letter}") for letter in ("A", "B", "C", "D;0"))


class Agent:
    """A tracker and its clock; looks and ticks happen when the tracker asks for them."""

    def __init__(self, kind: AgentKind, screen: str = "") -> None:
        self.now = 100.0
        self.screen = screen
        self.tracker = ActivityTracker(kind, now=self.now)
        self.looks = 0
        self.history: list[tuple[float, Activity]] = []

    def wait(self, seconds: float) -> Activity:
        """Let time pass."""
        end = self.now + seconds
        # A sum of tenths may be a little less than what they are meant to be together.
        while (time := self.tracker.next_time(self.now)) is not None and time <= end + 1e-9:
            self.now = time
            self._note(self.tracker.tick(self.now))
            if self.tracker.wants_look(self.now):
                self.looks += 1
                self._note(self.tracker.look(self.screen.split("\n"), self.now))
        self.now = max(self.now, end)
        self._note(self.tracker.tick(self.now))
        return self.tracker.activity

    def writes(self, data: bytes | str, screen: str | None = None) -> Activity:
        """The program writes, and after that its screen is this."""
        self.screen = self.screen if screen is None else screen
        data = data if isinstance(data, bytes) else data.encode()
        self._note(self.tracker.receive(data, self.now))
        return self.tracker.activity

    def is_sent(self) -> Activity:
        self._note(self.tracker.sent(self.now))
        return self.tracker.activity

    def reports(self, text: str) -> Activity:
        self._note(self.tracker.report(text, self.now))
        return self.tracker.activity

    def _note(self, changed: bool) -> None:
        if changed:
            self.history.append((self.now - 100, self.tracker.activity))

    @property
    def needs_no_timer(self) -> bool:
        return self.tracker.next_time(self.now) is None

    @property
    def decided(self) -> tuple[str, str]:
        deciding = self.tracker.explain().deciding
        return deciding.source, deciding.rule


def idle(kind: AgentKind, screen: str = "") -> Agent:
    """An agent that has started and is idle."""
    agent = Agent(kind)
    agent.writes("hello\r\n", screen)
    assert agent.wait(1.5) is IDLE
    agent.history.clear()
    return agent


# ---------------------------------------------------------------------------- start, input, silence


def test_a_rule_that_asks_for_no_text_is_explained_without() -> None:
    kind = load_kind(
        'name = "c"\nprompt = "^> "\n[[rules]]\nid = "none"\nactivity = "busy"\nprompt = false\n'
    )
    tracker = ActivityTracker(kind, now=0.0)
    tracker.receive(b"hi\n", 1.0)
    tracker.look(["hi"], 2.0)
    assert (tracker.explain().deciding.rule, tracker.explain().deciding.text) == ("none", "")


def test_a_program_that_starts_is_busy_until_it_is_quiet() -> None:
    agent = Agent(GENERIC)
    assert agent.tracker.activity is BUSY
    assert agent.wait(5) is BUSY
    agent.writes("hello")
    assert agent.wait(0.9) is BUSY
    assert agent.wait(0.1) is IDLE
    assert agent.tracker.since == agent.now
    assert agent.tracker.last_output == 105
    assert agent.needs_no_timer


def test_a_program_that_writes_nothing_is_no_longer_said_to_be_busy() -> None:
    agent = Agent(GENERIC)
    assert agent.wait(60) is UNKNOWN
    assert agent.history == [(30, UNKNOWN)]
    assert agent.needs_no_timer
    assert "the program was started 60.0 s ago, and nothing was seen" in str(
        agent.tracker.explain()
    )
    assert agent.writes("x") is BUSY
    assert agent.wait(1) is IDLE


def test_output_makes_busy_and_silence_idle_where_nothing_else_is_known() -> None:
    agent = idle(GENERIC)
    for _ in range(5):
        assert agent.writes("x") is BUSY
        assert agent.wait(0.9) is BUSY
    assert agent.wait(0.1) is IDLE


def test_input_makes_busy_until_something_was_written_and_it_is_quiet() -> None:
    agent = idle(GENERIC)
    assert agent.is_sent() is BUSY
    assert agent.wait(20) is BUSY
    agent.writes("answer")
    assert agent.wait(0.5) is BUSY
    agent.writes("more")
    assert agent.wait(0.9) is BUSY
    assert agent.wait(0.1) is IDLE


def test_swallowed_input_ends_in_unknown_not_in_idle() -> None:
    agent = idle(CLAUDE, BOX)
    agent.is_sent()
    assert agent.wait(29) is BUSY
    assert agent.wait(100) is UNKNOWN
    assert agent.history == [(1.5, BUSY), (31.5, UNKNOWN)]
    assert agent.needs_no_timer
    assert agent.decided == ("input", "")
    assert "nothing was seen after it" in agent.tracker.explain().deciding.text
    agent.is_sent()
    agent.writes("x", f"x\n{BOX}")
    assert agent.wait(1) is IDLE


def test_a_prompt_that_was_there_before_the_input_does_not_count() -> None:
    agent = idle(CLAUDE, BOX)
    agent.is_sent()
    agent.wait(0.1)
    agent.writes("\x1b[?25l")  # it writes something, and shows the same as before
    assert agent.wait(5) is BUSY
    screen = next(each for each in agent.tracker.explain().reasons if each.source == "screen")
    assert (screen.says, screen.counted) == (IDLE, False)
    assert screen.why == "the screen is the one from before the input"
    assert agent.wait(30) is UNKNOWN
    assert "the screen is the same as before" in agent.tracker.explain().deciding.text


def test_the_old_prompt_counts_again_after_another_screen() -> None:
    agent = idle(CLAUDE, BOX)
    agent.is_sent()
    agent.writes("/clear", f"{RULE}\n❯ /clear\n{RULE}")
    assert agent.wait(0.5) is BUSY
    agent.writes("\x1b[2J", BOX)
    assert agent.wait(1) is IDLE


def test_where_lines_scroll_the_same_screen_can_come_again() -> None:
    agent = idle(SHELL, f"{PROMPT} true\n{PROMPT}")
    agent.is_sent()
    agent.writes(f"true\r\n{PROMPT} ")
    assert agent.wait(0.3) is IDLE
    agent.is_sent()
    agent.writes("\x07")
    assert agent.wait(5) is BUSY


def test_what_was_written_just_before_the_input_is_no_answer() -> None:
    agent = idle(GENERIC)
    agent.writes("x")
    agent.is_sent()
    assert agent.wait(29) is BUSY
    assert agent.wait(1) is UNKNOWN


def test_a_shell_is_busy_until_its_prompt_is_back() -> None:
    agent = idle(SHELL, PROMPT)
    agent.is_sent()
    agent.writes("sleep 100\r\n", f"{PROMPT} sleep 100")
    assert agent.wait(100) is BUSY
    assert agent.needs_no_timer
    agent.writes(PROMPT, f"{PROMPT} sleep 100\n{PROMPT}")
    assert agent.wait(0.3) is IDLE
    assert agent.decided == ("screen", "prompt")


def test_what_somebody_else_types_makes_busy_too() -> None:
    agent = idle(SHELL, PROMPT)
    assert agent.writes("sleep 9\r\n", f"{PROMPT} sleep 9") is BUSY
    assert agent.wait(9) is BUSY
    agent.writes(PROMPT, f"{PROMPT} sleep 9\n{PROMPT}")
    assert agent.wait(1) is IDLE


def test_time_alone_changes_nothing_when_idle() -> None:
    for agent in (idle(GENERIC), idle(CLAUDE, BOX), idle(SHELL, PROMPT)):
        assert agent.needs_no_timer
        assert agent.wait(1e6) is IDLE
        assert agent.history == []


def test_a_clock_that_begins_at_zero() -> None:
    tracker = ActivityTracker(GENERIC, now=0.0)
    tracker.receive(b"x", 0.0)
    assert tracker.next_time(0.0) == 1.0
    assert tracker.tick(1.0)
    assert tracker.activity is IDLE


# ----------------------------------------------------------------------------------------- flicker


def test_a_spinner_that_pauses_does_not_look_idle() -> None:
    agent = idle(CLAUDE, BOX)
    agent.is_sent()
    for _ in range(100):
        agent.writes("\x1b[5A✽", SPINNER)
        assert agent.wait(0.5) is BUSY
    assert agent.history == [(1.5, BUSY)]


def test_a_pause_longer_than_quiet_is_told_by_the_screen() -> None:
    agent = idle(CLAUDE, BOX)
    agent.is_sent()
    agent.writes("x", SPINNER)
    assert agent.wait(600) is BUSY
    assert agent.decided == ("screen", "spinner")
    assert agent.needs_no_timer


def test_a_silent_call_with_a_spinner_in_the_title_stays_busy() -> None:
    agent = idle(CLAUDE, BOX)
    agent.writes(STOPS)
    agent.wait(2)
    agent.is_sent()
    agent.writes("fix it\r\n", f"❯ fix it\n{BOX}")
    looks = agent.looks
    for frame in range(40):
        agent.writes(title(f"{'⠂⠐'[frame % 2]} Fix it"))
        assert agent.wait(0.96) is BUSY
    assert agent.looks == looks  # a title can't change the screen
    agent.writes(STOPS + b"done", f"● Done.\n{BOX}")
    assert agent.wait(0.9) is BUSY
    assert agent.wait(0.1) is IDLE
    assert agent.history[-2:] == [(3.5, BUSY), (agent.now - 100, IDLE)]


def test_a_spinner_in_the_title_that_stands_still_counts_no_longer() -> None:
    agent = idle(CLAUDE, BOX)
    agent.is_sent()
    agent.writes(WORKS + b"x", f"● Done.\n{BOX}")
    assert agent.wait(9.9) is BUSY
    assert agent.wait(0.1) is IDLE
    assert agent.decided == ("screen", "input_box")
    agent.is_sent()
    agent.writes(WORKS + b"x", f"● Done.\n{SPINNER}")
    assert agent.wait(60) is BUSY
    assert agent.decided == ("screen", "spinner")


def test_typing_at_a_marked_prompt_does_not_flicker() -> None:
    agent = idle(SHELL, PROMPT)
    agent.writes(MARK_A + PROMPT.encode() + MARK_B)
    agent.wait(1)
    agent.history.clear()
    for letter in "make":
        agent.writes(letter, f"{PROMPT} make")
        agent.wait(0.5)
    assert agent.history == []
    assert agent.writes(b"\r\n" + MARK_C) is BUSY
    assert agent.wait(100) is BUSY


def test_a_new_title_does_not_disturb_an_idle_screen() -> None:
    agent = idle(SHELL, PROMPT)
    agent.writes(title("12:01"))
    agent.wait(60)
    assert agent.history == []


# ------------------------------------------------------------------------------------------- marks


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (MARK_A, IDLE),
        (MARK_B, IDLE),
        (MARK_A + b"$ " + MARK_B, IDLE),
        (MARK_C, BUSY),
        (MARK_C + MARK_D, IDLE),
        (MARK_D + MARK_C, BUSY),
        (osc("133;A;cl=m;aid=7"), IDLE),
        (osc("133;P;k=i"), IDLE),  # says nothing, and a generic program is idle when it is quiet
        (osc("9;4;1;50"), BUSY),
        (osc("9;4;3"), BUSY),
        (osc("9;4;3") + osc("9;4;0"), IDLE),
        (osc("9;4;1;50") + osc("9;4;2;50"), IDLE),
        (osc("9;4;1;50") + MARK_A, IDLE),
        (MARK_C + osc("9;4;3") + osc("9;4;0"), BUSY),
        (osc("9;hello"), IDLE),
        (b"\x1b]133;C\x1b\\", BUSY),
        (b"\x1bPtmux;\x1b\x1b]133;C\x1b\x1b\\\x1b\\", BUSY),
        (b"\x1b]133;C\x1b[m\x07", IDLE),  # broken off
        (b"\x1b]133;C\x18", IDLE),
        (b"\x1b]133;C\n\x07", IDLE),
        (b"\x1b]0;\x1b]133;C\x07", BUSY),
        (b"\x1b\x1b]133;C\x07", BUSY),
        (b"\x1b]133;C", IDLE),
        (b"]133;C\x07", IDLE),
        (b"\x1b]52;c;" + b"A" * 100_000 + b"\x07" + MARK_C, BUSY),
        (b"\x1b]133;C" + b";" * 100_000 + b"\x07", IDLE),
    ],
)
def test_marks(data: bytes, expected: Activity) -> None:
    for chunks in ([data], [data[at : at + 1] for at in range(len(data))]):
        agent = idle(GENERIC)
        for chunk in chunks:
            agent.writes(chunk)
        assert agent.wait(100) is expected


def test_marks_need_quiet_and_must_be_newer_than_the_input() -> None:
    agent = idle(GENERIC)
    agent.writes(MARK_A)
    agent.wait(5)
    agent.is_sent()
    agent.wait(0.1)
    agent.writes("ls\r\n")
    assert agent.wait(10) is BUSY
    agent.writes(MARK_C)
    agent.wait(1)
    agent.writes(MARK_D + MARK_A)
    assert agent.wait(0.9) is BUSY
    assert agent.wait(0.1) is IDLE
    assert agent.tracker.exit_code == 0


@pytest.mark.parametrize(
    ("text", "code"),
    [("133;D;2", 2), ("133;D;-1;err=x", -1), ("133;D", None), ("133;D;", None), ("133;D;x", None)],
)
def test_exit_codes(text: str, code: int | None) -> None:
    tracker = ActivityTracker(GENERIC, now=0)
    tracker.receive(osc("133;D;7"), 1)
    assert tracker.exit_code == 7
    tracker.receive(osc(text), 1)
    assert tracker.exit_code == code


@pytest.mark.parametrize(
    ("text", "progress"),
    [
        ("9;4;1;30", 30), ("9;4;2;30", 30), ("9;4;4;30", 30), ("9;4;3;30", None), ("9;4;0", None),
        ("9;4;1;101", None), ("9;4;1;-1", None), ("9;4;1;x", None), ("9;4;1", None), ("9;4;", None),
    ],
)  # fmt: skip
def test_progress(text: str, progress: int | None) -> None:
    tracker = ActivityTracker(GENERIC, now=0)
    tracker.receive(osc("9;4;1;5"), 1)
    assert tracker.progress == 5
    tracker.receive(osc(text), 1)
    assert tracker.progress == progress


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (osc("0;one"), "one"),
        (osc("2;two; three"), "two; three"),
        (osc("0;"), ""),
        (osc("1;icon"), "before"),
        (b"\x1b]0;t\tx\xff\xe2\x80\xae\x07", "tx\ufffd"),
        (b"\x1b]2;st\x1b\\", "st"),
        (b"\x1b]0;" + b"x" * 3000 + b"\x07", "x" * activity.MAX_TITLE),
        (b"\x1b]0;" + b"x" * 5000 + b"\x07", "before"),
    ],
)
def test_titles(data: bytes, text: str) -> None:
    tracker = ActivityTracker(CLAUDE, now=0)
    tracker.receive(osc("0;before"), 1)
    tracker.receive(data, 1)
    assert tracker.title == text


def test_a_title_says_what_the_rules_of_the_kind_say() -> None:
    agent = idle(CLAUDE, BOX)
    assert agent.writes(WORKS) is BUSY
    assert agent.wait(5) is BUSY
    assert agent.decided == ("title", "title_spinner")
    agent.writes(STOPS)
    assert agent.wait(1) is IDLE
    assert agent.decided == ("title", "title_star")
    assert agent.tracker.title == "✳ Fix it"


def test_a_question_goes_before_the_title_of_an_idle_program() -> None:
    agent = idle(CLAUDE, BOX)
    agent.writes(STOPS + b"x", DIALOG)
    assert agent.wait(0.3) is BLOCKED
    assert agent.wait(100) is BLOCKED
    agent = idle(CODEX, "› Ask Codex\n\n  ? for shortcuts")
    agent.writes(title("[ ! ] Action Required | src") + b"x", "  Something new")
    assert agent.wait(0.3) is BLOCKED
    assert agent.decided == ("title", "title_action_required")
    for blink in range(10):
        agent.writes(title(f"[ {'.!'[blink % 2]} ] Action Required | src"))
        agent.wait(1)
    assert [state for _, state in agent.history] == [BUSY, BLOCKED]


def test_a_title_that_always_says_idle_hides_no_work() -> None:
    agent = idle(CLAUDE, BOX)
    agent.writes(title("✳ Claude Code"))
    agent.wait(5)
    agent.writes("x", SPINNER)  # somebody else has given it something to do
    agent.wait(0.3)
    assert agent.tracker.activity is BUSY
    for _ in range(10):
        agent.writes("x")
        assert agent.wait(0.3) is BUSY
    agent.writes("x", BOX)
    assert agent.wait(2) is IDLE


def test_a_question_of_a_command_is_seen_behind_the_marks_of_its_shell() -> None:
    agent = idle(SHELL, PROMPT)
    agent.is_sent()
    agent.writes(
        b"sudo x\r\n" + MARK_C + b"[sudo] password for user: ", "[sudo] password for user:"
    )
    assert agent.wait(0.2) is BLOCKED
    agent.is_sent()
    agent.writes("\r\n", "[sudo] password for user:\n")
    assert agent.wait(0.1) is BUSY
    agent.writes("building\r\n", "[sudo] password for user:\nbuilding")
    assert agent.wait(50) is BUSY


# ----------------------------------------------------------------------------------------- blocked


def test_blocked_needs_a_rule_and_a_moment_of_quiet_and_ends_with_output() -> None:
    agent = idle(CLAUDE, BOX)
    agent.is_sent()
    agent.writes("x", DIALOG)
    assert agent.wait(0.1) is BUSY
    assert agent.wait(0.1) is BLOCKED
    assert agent.needs_no_timer
    assert agent.decided == ("screen", "dialog_footer")
    assert agent.wait(1000) is BLOCKED
    assert agent.writes("x") is BUSY
    assert agent.wait(0.2) is BLOCKED  # it was only drawn again
    agent.writes("x", SPINNER)
    assert agent.wait(5) is BUSY


def test_an_answer_ends_blocked_at_once() -> None:
    agent = idle(CLAUDE, BOX)
    agent.writes("x", DIALOG)
    assert agent.wait(1) is BLOCKED
    assert agent.is_sent() is BUSY
    agent.writes("\x07")
    assert agent.wait(5) is BUSY  # the question is the one from before the answer
    agent.writes("x", f"● Done.\n{BOX}")
    assert agent.wait(1) is IDLE


def test_a_question_seen_while_it_still_writes_counts_when_it_has_stopped() -> None:
    agent = idle(CLAUDE, BOX)
    agent.writes("x", DIALOG)
    agent.tracker.look(DIALOG.split("\n"), agent.now)
    assert agent.tracker.activity is BUSY
    assert agent.tracker.next_time(agent.now) == pytest.approx(agent.now + CLAUDE.settle)
    assert agent.wait(0.2) is BLOCKED


@pytest.mark.parametrize("kind", [GENERIC, CLAUDE])
def test_a_report_of_being_blocked_counts_until_something_is_written(kind: AgentKind) -> None:
    agent = idle(kind, BOX)
    agent.is_sent()
    agent.writes("x", SPINNER)
    agent.wait(3)
    agent.reports("blocked:may I?")
    agent.wait(0.1)
    agent.writes("question")  # what it draws may come after the report
    assert agent.wait(0.1) is BUSY
    assert agent.wait(0.1) is BLOCKED
    assert agent.decided == ("report", "")
    assert agent.wait(100) is BLOCKED
    agent.writes("answered")
    assert agent.wait(100) is BUSY
    report = agent.tracker.explain().reasons[0]
    assert (report.counted, report.why) == (False, "something was written after it")
    agent.reports("blocked:and this?")
    assert agent.wait(0.3) is BLOCKED


# ----------------------------------------------------------------------------------------- reports


def test_the_agents_own_word_goes_before_everything() -> None:
    agent = idle(CLAUDE, BOX)
    assert agent.reports("busy") is BUSY
    agent.writes(STOPS + b"x", f"x\n{BOX}")
    assert agent.wait(100) is BUSY
    assert agent.decided == ("report", "")
    agent.writes(WORKS + b"x", SPINNER)
    agent.reports("idle")
    assert agent.wait(0.9) is BUSY  # it still writes
    assert agent.wait(0.1) is IDLE
    agent.writes(WORKS + b"x")
    assert agent.wait(1) is IDLE
    assert agent.needs_no_timer


def test_a_report_from_before_the_input_is_no_report_of_idle() -> None:
    agent = idle(GENERIC)
    agent.reports("idle")
    agent.is_sent()
    agent.writes("x")
    assert agent.wait(100) is BUSY
    agent.reports("idle")  # the same value again, from whoever watches the option
    assert agent.wait(100) is BUSY
    agent.reports("idle:1712345678")
    assert agent.wait(1) is IDLE
    agent.is_sent()
    agent.reports("busy")  # a sign of life without output
    agent.wait(5)
    assert agent.reports("idle") is IDLE


def test_idle_reported_after_input_of_which_nothing_was_seen_does_not_count() -> None:
    agent = idle(GENERIC)
    agent.is_sent()
    agent.reports("idle")
    assert agent.wait(29) is BUSY
    assert agent.wait(1) is UNKNOWN


def test_whoever_reports_is_asked_for_a_report() -> None:
    agent = idle(GENERIC)
    agent.reports("busy")
    agent.writes("x")
    assert agent.wait(100) is BUSY
    agent.reports("")
    assert agent.wait(1) is IDLE
    assert [each.source for each in agent.tracker.explain().reasons] == ["output", "input"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("busy", BUSY), (" Busy ", BUSY), ("busy:", BUSY), ("busy: compiling: 3 of 5", BUSY),
        ("busy:1712345678", BUSY), ("blocked", BLOCKED), ("unknown:x", UNKNOWN),
        ("bussy", None), (":busy", None), ("x" * 10_000, None),
    ],
)  # fmt: skip
def test_words_of_a_report(text: str, says: Activity | None) -> None:
    agent = idle(GENERIC)
    agent.writes("x")
    agent.reports(text)
    agent.wait(0.5)
    if says is not None:
        assert agent.tracker.activity is says
        reason = agent.tracker.explain().deciding
        assert (reason.source, reason.text) == ("report", text)
    else:
        assert agent.wait(1) is IDLE
        assert all(len(each.text) < 300 for each in agent.tracker.explain().reasons)


# ------------------------------------------------------------------------------------------- looks


def test_a_look_is_wanted_once_after_each_output_that_has_settled() -> None:
    agent = idle(CLAUDE, BOX)
    tracker, now = agent.tracker, agent.now
    assert not tracker.wants_look(now)
    tracker.receive(b"x", now)
    assert not tracker.wants_look(now + 0.1)
    assert tracker.next_time(now) == pytest.approx(now + 0.2)
    assert tracker.wants_look(now + 0.21)
    tracker.look([], now + 0.21)
    assert not tracker.wants_look(now + 100)


def test_a_program_that_goes_on_writing_is_looked_at_once_a_second() -> None:
    agent = idle(CLAUDE, BOX)
    looks = agent.looks
    for _ in range(100):
        agent.writes("x", SPINNER)
        agent.wait(0.1)
    assert agent.looks - looks in (9, 10)
    agent.reports("busy")
    looks = agent.looks
    for _ in range(100):
        agent.writes("x")
        agent.wait(0.3)
    assert agent.looks == looks  # it could change nothing
    agent.reports("")
    agent.wait(1)
    assert agent.looks == looks + 1


def test_kinds_without_rules_about_the_screen_want_no_looks() -> None:
    agent = idle(GENERIC)
    agent.writes("x")
    agent.wait(100)
    assert agent.looks == 0


def test_a_tracker_that_comes_later_can_begin_with_the_screen() -> None:
    for kind, screen in ((GENERIC, "x"), (CLAUDE, BOX)):
        tracker = ActivityTracker(kind, now=5)
        tracker.look(screen.split("\n"), 5)
        assert tracker.activity is BUSY
        assert tracker.next_time(5) == 6
        tracker.tick(6)
        assert tracker.activity is IDLE
    tracker = ActivityTracker(GENERIC, now=5)
    tracker.look(["", " "], 5)
    tracker.tick(6)
    assert tracker.activity is BUSY


def test_a_look_before_anything_was_written_is_no_sign_after_input() -> None:
    agent = idle(CLAUDE, BOX)
    agent.is_sent()
    agent.tracker.look([*BOX.split("\n"), "new"], agent.now + 0.1)
    assert agent.wait(20) is BUSY


def test_a_screen_can_say_that_there_is_no_telling() -> None:
    agent = idle(CLAUDE, BOX)
    agent.writes("x", "● Done.\n  Showing detailed transcript")
    assert agent.wait(1) is UNKNOWN
    assert agent.decided == ("screen", "transcript")
    agent.writes("x", BOX)
    assert agent.wait(1) is IDLE


def test_a_new_program_is_a_new_beginning() -> None:
    agent = idle(CLAUDE, BOX)
    agent.writes(STOPS + MARK_D + osc("9;4;1;5") + b"\x1b]0;half")
    agent.reports("idle")
    agent.wait(2)
    assert agent.tracker.restarted(agent.now)
    assert agent.tracker.activity is BUSY
    assert not agent.tracker.restarted(agent.now)
    tracker = agent.tracker
    assert (tracker.title, tracker.progress, tracker.exit_code) == ("", None, None)
    assert (tracker.last_output, tracker.since) == (None, agent.now)
    assert [each.source for each in tracker.explain().reasons] == ["output", "input"]
    agent.writes("\x07", BOX)  # ends no title
    assert tracker.title == ""
    assert agent.wait(0.9) is BUSY
    assert agent.wait(0.1) is IDLE


# ------------------------------------------------------------------------------------ explanations


def test_an_explanation_says_what_decided_and_why_the_rest_did_not() -> None:
    agent = idle(CLAUDE, BOX)
    agent.reports("done")
    agent.writes(STOPS + b"x", DIALOG)
    agent.wait(2.2)
    explanation = agent.tracker.explain()
    assert isinstance(explanation, Explanation)
    assert (explanation.activity, explanation.since) == (BLOCKED, agent.tracker.since)
    assert [(each.source, each.counted) for each in explanation.reasons] == [
        ("report", False), ("title", False), ("screen", True), ("output", False), ("input", False),
    ]  # fmt: skip
    assert str(explanation).split("\n") == [
        "blocked for 2.0 s: screen (dialog_footer) says blocked: Esc to cancel · Tab to amend",
        "  report says nothing: done; not counted: it says nothing about it",
        "  title (title_star) says idle: '✳ Fix it'; not counted: the screen says otherwise",
        (
            "  output says idle: quiet for 2.2 s; not counted:"
            " it has another way to say that it is idle"
        ),
        (
            "  input says busy: the program was started 3.7 s ago, and nothing has said since"
            " that it is idle; not counted: the screen decides"
        ),
    ]


# ------------------------------------------------------------------------------------ what may come

KINDS = [GENERIC, CLAUDE, CODEX, AIDER, SHELL]
SCREENS = [
    BOX, SPINNER, DIALOG, PROMPT, f"{PROMPT} make", "", "───\n>", ">", "x? (Y)es/(N)o [Yes]:",
    "• Working (3s • esc to interrupt)\n\n› Ask\n", "› Ask\n", "(END)", "something",
]  # fmt: skip
IDLE_SCREENS = {BOX, PROMPT, "───\n>", ">", "› Ask\n"}
PIECES = [
    WORKS, STOPS, MARK_A, MARK_B, MARK_C, MARK_D, b"x", b"\n", b"\x1b", b"\x1b]", b"\x07",
    b"\x1b\\", b"\x1b[m", b"\x1b]0;", b";", b"\\", b"133;A", osc("9;4;3"), osc("9;4;0"), osc("8;;http://x"),
    title("⠋ src"), title("src"), title("[ ! ] Action Required"), b"\x1b]52;" + b"A" * 5000,
    b"\x18", "⠂".encode(), b"\xff",
]  # fmt: skip
output = st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), min_size=1, max_size=6)
delays = st.sampled_from([0.0, 0.0, 0.05, 0.2, 0.21, 0.3, 0.5, 1.0, 1.1, 5.0, 10.0, 31.0])
events = st.one_of(
    st.tuples(st.just("receive"), output.map(b"".join)),
    st.tuples(st.just("look"), st.sampled_from(SCREENS)),
    st.tuples(
        st.just("report"),
        st.sampled_from(["", "busy", "idle", "blocked", "idle:1", "idle:2", "blocked:1", "?"]),
    ),
    st.tuples(st.just("sent"), st.just("")),
    st.tuples(st.just("tick"), st.just("")),
    st.tuples(st.just("restarted"), st.just("")),
)
stories = st.lists(st.tuples(delays, events), max_size=25)


def tell(tracker: ActivityTracker, event: tuple[str, bytes | str], now: float) -> bool:
    name, value = event
    if name == "look":
        return tracker.look(value.split("\n"), now)
    if name in ("receive", "report"):
        return getattr(tracker, name)(value, now)
    return getattr(tracker, name)(now)


def state(tracker: ActivityTracker, now: float) -> tuple:
    """All that can be seen of a tracker."""
    return (
        tracker.explain(), tracker.activity, tracker.since, tracker.last_output, tracker.title,
        tracker.progress, tracker.exit_code, tracker.wants_look(now), tracker.next_time(now),
    )  # fmt: skip


@given(st.sampled_from(KINDS), stories)
@example(GENERIC, [(0.0, ("report", "blocked")), (0.2, ("receive", b"\x1b]0;"))])
def test_the_explanation_fits_and_calls_say_what_has_changed(kind: AgentKind, story: list) -> None:
    tracker = ActivityTracker(kind, now=0)
    now = 0.0
    for delay, event in story:
        now += delay
        before = tracker.activity, tracker.since
        changed = tell(tracker, event, now)
        assert changed == (tracker.activity is not before[0])
        assert 0 <= tracker.since <= now
        explanation = tracker.explain()
        assert explanation.activity is tracker.activity
        assert explanation.deciding.says is tracker.activity
        assert [each.counted for each in explanation.reasons].count(True) == 1
        assert all(bool(each.why) is not each.counted for each in explanation.reasons)
        assert str(explanation).startswith(tracker.activity.value)
        if event[0] != "restarted" and not changed:
            assert tracker.since == before[1]


@given(st.sampled_from(KINDS), stories, st.lists(st.integers(0, 40), max_size=12))
@example(CLAUDE, [(0.0, ("receive", WORKS + STOPS))], [15])
@example(CLAUDE, [(1.0, ("look", BOX)), (0.0, ("receive", STOPS + b"x"))], [])
@example(CLAUDE, [(1.0, ("look", BOX)), (0.0, ("receive", b"x" + STOPS))], [])
@example(
    CLAUDE,
    [
        (0.0, ("receive", b"x")), (0.2, ("look", BOX)), (1.1, ("tick", "")),
        (1.1, ("receive", WORKS + STOPS + b"x" + STOPS)), (0.2, ("tick", "")),
    ],
    [3, 9, 30],
)  # fmt: skip
def test_any_pieces_of_the_same_bytes_say_the_same(
    kind: AgentKind, story: list, at: list[int]
) -> None:
    one, many, bytewise = (ActivityTracker(kind, now=0) for _ in range(3))
    now = 0.0
    for delay, event in story:
        now += delay
        tell(one, event, now)
        if event[0] == "receive":
            data = event[1]
            places = sorted({min(place, len(data)) for place in at})
            for start, end in pairwise([0, *places, len(data)]):
                many.receive(data[start:end], now)
            for place in range(len(data)):
                bytewise.receive(data[place : place + 1], now)
        else:
            tell(many, event, now)
            tell(bytewise, event, now)
        assert state(one, now) == state(many, now) == state(bytewise, now)


@given(st.sampled_from(KINDS), stories)
def test_never_idle_without_two_new_signs(kind: AgentKind, story: list) -> None:
    tracker = ActivityTracker(kind, now=0)
    now = 0.0
    reacted = said_idle = False
    quiet_from = 0.0
    for delay, event in story:
        now += delay
        name, value = event
        before = tracker.activity
        tell(tracker, event, now)
        if name in ("sent", "restarted"):
            reacted = said_idle = False
            quiet_from = now
            assert tracker.activity is BUSY
        elif name == "receive" and value:
            reacted = True
            quiet_from = now
            # Where a piece ends a title or mark that another one began, this sees too many.
            said_idle = True
        elif name == "report":
            reacted = reacted or value == "busy"
            said_idle = said_idle or value.startswith("idle")
        elif name == "look":
            reacted = reacted or bool(value.strip())
            said_idle = said_idle or value in IDLE_SCREENS
        if tracker.activity is IDLE:
            assert reacted
            assert said_idle or not kind.tells_idle
            if before is not IDLE:
                assert now >= quiet_from + kind.quiet


@given(st.sampled_from(KINDS), stories, st.sampled_from(SCREENS))
@settings(max_examples=300)
def test_timers_come_to_an_end_and_nothing_happens_between_them(
    kind: AgentKind, story: list, screen: str
) -> None:
    tracker = ActivityTracker(kind, now=0)
    now = 0.0
    for delay, event in story:
        now += delay
        tell(tracker, event, now)
    for _ in range(10):
        time = tracker.next_time(now)
        between = copy.deepcopy(tracker)
        soon = (now + min(now + 1e6 if time is None else time, now + 1e6)) / 2
        if time is None or soon < time:
            assert not between.tick(soon)
            assert not between.wants_look(soon)
        if time is None:
            break
        assert time >= now
        now = time
        changed = tracker.tick(now)
        wanted = tracker.wants_look(now)
        if wanted:
            tracker.look(screen.split("\n"), now)
        assert changed or wanted or tracker.next_time(now) != now
    else:
        pytest.fail("there is always one more timer")
    assert tracker.activity is not IDLE or tracker.next_time(now) is None
    assert not tracker.tick(now + 1e9)


# ------------------------------------------------------------------------------------------ bounds


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 10_000_000,
        b"\x1b]" + b"x" * 10_000_000,
        b"\x1b]0;" + b"\x1b" * 10_000_000,
        b"\x1b]" * 1_000_000,
        b"\x1b" * 10_000_000,
        b"\x1b]0;x\n" * 500_000,
        b"\x1b]8;;http://x\x07" * 200_000,
    ],
    ids=["plain", "endless", "escapes in a title", "nested", "escapes", "broken off", "links"],
)
@pytest.mark.parametrize("size", [1 << 30, 65_536, 4_999])
def test_hostile_output_is_read_in_one_go_and_not_kept(data: bytes, size: int) -> None:
    tracker = ActivityTracker(CLAUDE, now=0)
    for start in range(0, len(data), size):
        tracker.receive(data[start : start + size], 1)
        assert len(tracker._reader._begun) <= MAX_MARK + 10
    tracker.receive(b"\x07\x18" + WORKS, 1)
    assert tracker.title == "⠂ Fix it"


def test_what_is_kept_of_an_agent_is_bounded() -> None:
    tracker = ActivityTracker(CLAUDE, now=0)
    screen = "\n".join(f"{number} {'❯' * 500}" for number in range(500))

    def feed(rounds: int) -> None:
        for number in range(rounds):
            tracker.receive(b"\x1b]0;" + b"t" * 4000 + b"\x07" + MARK_C + MARK_D + b"x" * 9999, 1)
            tracker.receive(b"\x1b]" + b"y" * 4000, 1)
            tracker.report(f"busy:{number}{'z' * 100_000}", 1)
            tracker.look(screen.split("\n"), 1)
            tracker.sent(1)

    feed(3)
    tracemalloc.start()
    try:
        feed(1)
        before = tracemalloc.get_traced_memory()[0]
        feed(20)
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
        tracker.restarted(2)
    finally:
        tracemalloc.stop()


def test_a_kind_of_ones_own_sets_the_times() -> None:
    kind = load_kind('name = "x"\nquiet = 5\nstuck_after = 7\n')
    agent = Agent(kind)
    agent.writes("x")
    assert agent.wait(4.9) is BUSY
    assert agent.wait(0.1) is IDLE
    agent.is_sent()
    assert agent.wait(6.9) is BUSY
    assert agent.wait(0.1) is UNKNOWN
