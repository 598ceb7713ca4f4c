"""What an agent is doing: one owner of the answer, fed with everything that is known about it.

Pure: no I/O, no clock (`now` is given, in seconds of any one clock), no task. What programs look
like is data, in `rules`.

Sources, the strongest first: the agent's own report; marks in its output (OSC 133, OSC 9;4 and
titles), of which the newest goes before the others; rules about its screen; and that it writes, or
does not. Against this order a mark that says idle gives way to a screen that says busy or blocked,
and a shell's mark that a command runs to one that says blocked.

Idle takes two signals. From the start of the program, and again from each input, an agent is busy
until it has written something, has then been quiet for a while, and, if agents of its kind have a
way to say that they are idle, has said so since. A prompt from before the input does not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from attrs import frozen

from .marks import MarkReader
from .rules import AgentKind
from .state import Activity

MAX_TITLE = 1024
"""Characters of a title that are kept and compared with the rules."""

MAX_REPORT = 200
"""Characters of a report that are kept."""

LOOK_EVERY = 1.0
"""Seconds between two looks at the screen of a program that goes on writing."""


@frozen
class Reason:
    """What one source says about an agent, and whether it decided.

    `source` is ``"report"``, ``"mark"`` (OSC 133), ``"progress"`` (OSC 9;4), ``"title"``,
    ``"screen"``, ``"output"`` or ``"input"``; `rule` the id of the kind's rule, empty if there is
    none; `says` what follows from it (None: nothing); `at` since when, in the tracker's time;
    `text` what was seen. `counted` is true of the one that decided, of others `why` says what was
    against it.
    """

    source: str
    rule: str
    says: Activity | None
    at: float
    text: str
    counted: bool
    why: str

    def __str__(self) -> str:
        source = f"{self.source} ({self.rule})" if self.rule else self.source
        says = self.says.value if self.says else "nothing"
        against = "" if self.counted else f"; not counted: {self.why}"
        return f"{source} says {says}: {self.text}{against}"


@frozen
class Explanation:
    """Why an agent's `activity` is what it is, at the time `at`; `since` is when it became so.

    `reasons` holds what each source says, the strongest first. As text it is a few lines.
    """

    activity: Activity
    since: float
    at: float
    reasons: tuple[Reason, ...]

    @property
    def deciding(self) -> Reason:
        """The reason that decided."""
        return next(reason for reason in self.reasons if reason.counted)

    def __str__(self) -> str:
        rest = [f"  {reason}" for reason in self.reasons if not reason.counted]
        head = f"{self.activity.value} for {max(0.0, self.at - self.since):.1f} s"
        return "\n".join([f"{head}: {self.deciding}", *rest])


@frozen
class _Evidence:
    """What one source said last. `number` orders all evidence and inputs, also in one moment.

    `text` is None for output and input, which are weighed far more often than explained.
    """

    source: str
    rule: str
    says: Activity | None
    at: float
    text: str | None
    number: int
    until: float | None = None


class ActivityTracker:
    """Tells what the agent of a pane is doing.

    It is told everything by calls, each with the time it is `now` (seconds; it never goes back):
    `sent`, `receive`, `report`, `look`. Each returns whether `activity` has changed. Nothing has
    to be called for time to pass but what `next_time` says.

    Attributes
    ----------
    kind
        what kind of program it is
    activity, since
        what it is doing, and when it began to
    last_output
        when it last wrote something, None before it has
    title, progress, exit_code
        the terminal's title; a progress in percent (OSC 9;4), None while there is none; how the
        last command of a shell with OSC 133 marks has ended, None before the first

    """

    def __init__(self, kind: AgentKind, *, now: float) -> None:
        self.kind = kind
        self._number = 0
        self._start(now)

    def _start(self, now: float) -> None:
        self.activity = Activity.BUSY
        self.since = now
        # Both as they were before the moment `since`.
        self._earlier = (Activity.BUSY, now)
        self.last_output: float | None = None
        self.title = ""
        self.progress: int | None = None
        self.exit_code: int | None = None
        self._now = now
        self._reader = MarkReader()
        self._report: _Evidence | None = None
        self._report_text = ""
        self._spent = False  # a report of being blocked has been overtaken by output
        self._mark: _Evidence | None = None
        self._progress: _Evidence | None = None
        self._title: _Evidence | None = None
        self._screen: _Evidence | None = None
        self._written_at: float | None = None  # the last output that can have changed the screen
        self._unseen_since: float | None = None  # the first such output after the last look
        self._last_look: float | None = None
        self._seen: int | None = None  # the screen of the last look, as a hash
        self._before: int | None = None  # that of the last look before the input
        self._arm(now)
        self._was_sent = False
        self._reacted = False  # something was seen since the start or the last input
        self._changed = False  # a screen was seen that differs from the one before the input
        self._fed = False  # a line feed was written since the input

    def _arm(self, now: float) -> None:
        self._now = now
        self._was_sent = True
        self._armed_at = now
        self._number += 1
        self._edge = self._number  # evidence below this number is from before the input
        self._idle = False  # it has been idle ever since two signs said so

    def restarted(self, now: float) -> bool:
        """A new program runs in the pane: everything about the old one is forgotten."""
        before = self.activity
        self._start(now)
        return self.activity is not before

    def sent(self, now: float) -> bool:
        """Input was submitted: the agent is busy until there are two new signs that it is idle.

        What it wrote before has to be handed over before, or it is taken for an answer. Whether a
        text was taken, or stands in an input box, is not told here.
        """
        self._arm(now)
        self._before = self._seen
        self._reacted = self._changed = self._fed = False
        return self._decide(now)

    def receive(self, data: bytes, now: float) -> bool:
        """The pane wrote `data`, cut anywhere.

        Without OSC sequences it costs little more than to look for one.
        """
        if not data:
            return False
        self._now = now
        self._reacted = True
        self.last_output = now
        self._doubt(now)
        told = False
        pieces = self._reader.receive(data)
        # In their order, or it would matter how the output was cut.
        for piece, is_mark in pieces:
            if is_mark:
                told = True
                self._note_mark(piece, now)
            else:
                self._note_written(piece, now)
                self._doubt(now)
        if self.activity is Activity.BUSY and pieces and not told:
            return False  # writing makes nobody less busy
        return self._decide(now)

    def report(self, text: str, now: float) -> bool:
        """The agent's own word: "busy", "idle" or "blocked", free text may follow after a colon.

        Empty: it has no word any more. The same text again is no news, since whoever watches an
        option is given its value again now and then; a time behind the colon makes it differ.
        """
        if text == self._report_text:
            return False
        self._report_text = text
        self._spent = False
        word = text.partition(":")[0].strip().lower()
        if not word:
            self._report = None
        else:
            says = next((each for each in Activity if each.value == word), None)
            self._report = self._evidence("report", "", says, now, text[:MAX_REPORT])
            if says is Activity.BUSY:
                self._reacted = True
        self._doubt(now)
        return self._decide(now)

    def look(self, lines: Sequence[str], now: float) -> bool:
        """These are the `lines` of the pane's screen now. See `wants_look`.

        Before any input it also tells of what was written before the tracker was there.
        """
        shown = tuple(filter(None, map(str.rstrip, lines)))
        found = self.kind.match_screen(shown)
        if found is None:
            self._screen = self._evidence("screen", "", None, now, "no rule matches")
        else:
            rule, text = found
            self._screen = self._evidence("screen", rule.id, rule.activity, now, text.strip())
        self._seen = hash(shown)
        if self._seen != self._before:
            self._changed = True
        if shown and not self._was_sent:
            self._reacted = True
        self._unseen_since = None
        self._last_look = now
        self._doubt(now)
        return self._decide(now)

    def tick(self, now: float) -> bool:
        """Time has passed."""
        return self._decide(now)

    def wants_look(self, now: float) -> bool:
        """Whether the screen should be looked at now, by `look`.

        That is so after something was written, for kinds with rules about the screen: once it is
        quiet for a moment, and from time to time while it is not, unless stronger sources say that
        the agent is busy anyway.
        """
        due = self._look_due(now)
        return due is not None and now >= due

    def next_time(self, now: float) -> float | None:
        """When to call `tick` and ask `wants_look` again, whatever is written until then.

        None if only a call can change anything. To be asked again after every call.
        """
        if self._weigh_first(now) is not self.activity:
            return now
        due = self._look_due(now)
        for time in sorted(self._thresholds()):
            if due is not None and due <= time:
                break
            if time > now and self._weigh_first(time) is not self.activity:
                return time
        return None if due is None else max(due, now)

    def explain(self) -> Explanation:
        """Which source decided as of the last call, and what the others say."""
        reasons = []
        decider = ""
        for evidence, why in self._weigh(self._now):
            if decider:
                why = why or f"the {decider} decides"
            elif not why:
                decider = evidence.source
            counted = not why
            reasons.append(
                Reason(
                    source=evidence.source,
                    rule=evidence.rule,
                    says=evidence.says,
                    at=evidence.at,
                    text=self._in_words(evidence) if evidence.text is None else evidence.text,
                    counted=counted,
                    why=why,
                )
            )
        return Explanation(self.activity, self.since, self._now, tuple(reasons))

    def _in_words(self, evidence: _Evidence) -> str:
        """What output or input say, as of the last call."""
        now, last = self._now, self.last_output
        if evidence.source == "output":
            age = max(0.0, now - (self._armed_at if last is None else last))
            return f"quiet for {age:.1f} s" if self._is_quiet(now) else f"written {age:.1f} s ago"
        begun = "input was sent" if self._was_sent else "the program was started"
        text = f"{begun} {max(0.0, now - self._armed_at):.1f} s ago"
        if not self._reacted:
            return f"{text}, and nothing was seen after it"
        if self._is_unchanged():
            return f"{text}, and the screen is the same as before"
        return f"{text}, and nothing has said since that it is idle"

    # ----------------------------------------------------------------------------------- what comes

    def _evidence(
        self,
        source: str,
        rule: str,
        says: Activity | None,
        now: float,
        text: str,
        until: float | None = None,
    ) -> _Evidence:
        self._now = now
        self._number += 1
        return _Evidence(source, rule, says, now, text, self._number, until)

    def _note_written(self, data: bytes, now: float) -> None:
        report = self._report
        if report is not None and report.says is Activity.BLOCKED:
            # What draws the question may come later than the report about it.
            self._spent = self._spent or now >= self._settled_at(report)
        self._written_at = now
        if self._unseen_since is None:
            self._unseen_since = now
        if self.kind.scrolls and not self._fed:
            self._fed = b"\n" in data

    def _note_mark(self, mark: bytes, now: float) -> None:
        """Take what stands between OSC and its end."""
        command, _, value = mark.partition(b";")
        if command in (b"0", b"2"):
            self._note_title(value, now)
        elif command == b"9" and value[:2] == b"4;":
            self._note_progress(value[2:], now)
        elif command == b"133":
            letter, _, rest = value.partition(b";")
            if letter not in _SHELL_MARKS:
                return
            says, text = _SHELL_MARKS[letter]
            if letter == b"D":
                code = rest.partition(b";")[0]
                self.exit_code = int(code) if _NUMBER.fullmatch(code) else None
            self._mark = self._evidence("mark", "", says, now, text)
        else:
            return
        self._doubt(now)

    def _note_title(self, value: bytes, now: float) -> None:
        text = value.decode("utf-8", "replace")[:MAX_TITLE]
        self.title = "".join(character for character in text if character.isprintable())
        rule = self.kind.match_title(self.title)
        if rule is None:
            self._title = self._evidence("title", "", None, now, repr(self.title))
        else:
            until = None if rule.lasts is None else now + rule.lasts
            self._title = self._evidence(
                "title", rule.id, rule.activity, now, repr(self.title), until
            )

    def _note_progress(self, value: bytes, now: float) -> None:
        state, _, rest = value.partition(b";")
        percent = int(rest) if _NUMBER.fullmatch(rest) else None
        if percent is not None and (state not in (b"1", b"2", b"4") or not 0 <= percent <= 100):
            percent = None
        self.progress = percent
        says = Activity.BUSY if state in (b"1", b"3") else None
        text = _PROGRESS.get(state, "unknown") if percent is None else f"{percent} %"
        self._progress = self._evidence("progress", "", says, now, text)

    # -------------------------------------------------------------------------------- what it means

    def _decide(self, now: float) -> bool:
        before = self.activity
        self._now = now
        activity = self._weigh_first(now)
        self._idle = activity is Activity.IDLE
        if activity is before:
            return False
        if now > self.since:
            self._earlier = (before, self.since)
        # Going there and back in one moment is no change, however the output was cut.
        unchanged = now == self.since and activity is self._earlier[0]
        self.since = self._earlier[1] if unchanged else now
        self.activity = activity
        return True

    def _doubt(self, now: float) -> None:
        """Something has happened: does what said that the agent is idle still stand."""
        if self._idle:
            for evidence, why in self._weigh(now):
                if not why:
                    self._idle = evidence.source not in ("output", "input") and (
                        evidence.says is Activity.IDLE
                    )
                    return

    def _weigh_first(self, now: float) -> Activity:
        for evidence, why in self._weigh_told(now):
            if not why and evidence.says is not None:
                return evidence.says
        # As `_weigh` has it, without the evidence.
        if not self._is_quiet(now):
            return Activity.BUSY
        return self._input_says(now) if self._against_quiet(now) else Activity.IDLE

    def _weigh(self, now: float) -> Iterator[tuple[_Evidence, str]]:
        """All evidence, the strongest first, each with what is against it (empty: it counts).

        The first that counts decides.
        """
        yield from self._weigh_told(now)
        yield self._weigh_output(now)
        yield self._weigh_input(now), ""

    def _weigh_told(self, now: float) -> Iterator[tuple[_Evidence, str]]:
        """The evidence that lies in what the program told or shows."""
        if self._report is not None:
            yield self._report, self._against(self._report, now)
        screen = self._screen
        screen_against = "" if screen is None else self._against(screen, now)
        screen_says = None if screen is None or screen_against else screen.says
        for mark in self._marks():
            against = self._against(mark, now)
            if not against and _gives_way(mark, screen_says):
                against = "the screen says otherwise"
            yield mark, against
        if screen is not None:
            yield screen, screen_against

    def _marks(self) -> list[_Evidence]:
        found = [each for each in (self._mark, self._progress, self._title) if each is not None]
        found.sort(key=lambda evidence: -evidence.number)
        return found

    def _against(self, evidence: _Evidence, now: float) -> str:
        """What is against evidence of a report, a mark or the screen."""
        says = evidence.says
        if says is None:
            return "it says nothing about it"
        if evidence is self._screen:
            if self._unseen_since is not None:
                return "something was written after it"
            if not self._changed and not self._fed:
                return "the screen is the one from before the input"
        elif says is Activity.BUSY:
            moved = evidence.until is None or now < evidence.until
            return "" if moved else "it has not been set again for too long"
        if evidence.number < self._edge:
            return "it is older than the input"
        if says is Activity.BLOCKED:
            if evidence is self._report and self._spent:
                return "something was written after it"
            return "" if now >= self._settled_at(evidence) else "it is still writing"
        if says is Activity.IDLE and not self._idle:
            if not self._reacted:
                return f"nothing was seen after the {self._armed_by} yet"
            if now < self._quiet_at():
                return f"it has not been quiet for {self.kind.quiet:g} s yet"
        return ""

    def _weigh_output(self, now: float) -> tuple[_Evidence, str]:
        last = self.last_output
        since = self._armed_at if last is None else last
        if not self._is_quiet(now):
            return _Evidence("output", "", Activity.BUSY, since, None, self._number), ""
        evidence = _Evidence("output", "", Activity.IDLE, since, None, self._number)
        return evidence, self._against_quiet(now)

    def _is_quiet(self, now: float) -> bool:
        last = self.last_output
        return last is None or now >= last + self.kind.quiet

    def _against_quiet(self, now: float) -> str:
        """What is against it that a program which writes nothing is idle."""
        if not self._reacted:
            return f"nothing was seen after the {self._armed_by} yet"
        reports = self._report is not None and self._report.says is not None
        if self.kind.tells_idle or self._mark is not None or reports:
            return "it has another way to say that it is idle"
        if now < self._quiet_at():
            return f"it has not been quiet for {self.kind.quiet:g} s yet"
        return ""

    def _weigh_input(self, now: float) -> _Evidence:
        return _Evidence("input", "", self._input_says(now), self._armed_at, None, self._edge)

    def _input_says(self, now: float) -> Activity:
        is_stuck = now >= self._armed_at + self.kind.stuck_after
        if is_stuck and (not self._reacted or self._is_unchanged()):
            return Activity.UNKNOWN
        return Activity.BUSY

    def _is_unchanged(self) -> bool:
        """Whether the screen was seen, and is the one from before the input."""
        was_seen = self._screen is not None and self._unseen_since is None
        return was_seen and not self._changed and not self._fed

    # ---------------------------------------------------------------------------------------- times

    @property
    def _armed_by(self) -> str:
        return "input" if self._was_sent else "start"

    def _quiet_at(self) -> float:
        """From when on it is quiet long enough to be idle."""
        last = self.last_output
        since = self._armed_at if last is None else max(last, self._armed_at)
        return since + self.kind.quiet

    def _settled_at(self, evidence: _Evidence) -> float:
        """From when on it is quiet long enough to be blocked by what `evidence` says."""
        # A title that blinks is set again and again, and a look follows what is on the screen.
        since = evidence.at if evidence is self._report else self._armed_at
        written = self._written_at
        return (since if written is None else max(since, written)) + self.kind.settle

    def _look_due(self, now: float) -> float | None:
        """From when on a look at the screen is wanted, None if it is not."""
        if self._unseen_since is None or self._written_at is None or not self.kind.screen_rules:
            return None
        strong = [*self._marks()]
        if self._report is not None:
            strong.insert(0, self._report)
        for evidence in strong:
            if not self._against(evidence, now):
                if evidence.says is Activity.BUSY and not _gives_way(evidence, Activity.BLOCKED):
                    return evidence.until
                break
        since = self._unseen_since
        if self._last_look is not None:
            since = max(since, self._last_look)
        return min(self._written_at + self.kind.settle, since + LOOK_EVERY)

    def _thresholds(self) -> Iterator[float]:
        """The times at which what counts may change by itself."""
        yield self._armed_at + self.kind.stuck_after
        yield self._quiet_at()
        if self.last_output is not None:
            yield self.last_output + self.kind.quiet
        for evidence in (self._report, self._screen, *self._marks()):
            if evidence is not None:
                if evidence.says is Activity.BLOCKED:
                    yield self._settled_at(evidence)
                if evidence.until is not None:
                    yield evidence.until


def _gives_way(mark: _Evidence, screen_says: Activity | None) -> bool:
    """Whether a screen that says this goes before a mark.

    A program in front of a question often keeps the title of an idle one, and a shell does not
    know whether the command that it runs asks something.
    """
    if mark.says is Activity.IDLE:
        return screen_says in (Activity.BUSY, Activity.BLOCKED)
    return mark.source == "mark" and screen_says is Activity.BLOCKED


_SHELL_MARKS: dict[bytes, tuple[Activity, str]] = {
    b"A": (Activity.IDLE, "OSC 133;A, a prompt begins"),
    b"B": (Activity.IDLE, "OSC 133;B, a command can be typed"),
    b"C": (Activity.BUSY, "OSC 133;C, a command runs"),
    b"D": (Activity.IDLE, "OSC 133;D, a command has ended"),
}
_PROGRESS = {
    b"0": "no progress",
    b"1": "progress",
    b"2": "an error",
    b"3": "progress",
    b"4": "a pause",
}
_NUMBER = re.compile(rb"-?[0-9]{1,9}")
