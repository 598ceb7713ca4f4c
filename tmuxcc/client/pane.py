"""One pane: reading, typing, looking, waiting.

A `Pane` is a name with verbs; what is known of the pane is in panes.py and output.py, so that two
`Pane` objects of the same pane are the same pane.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum
from secrets import token_hex
from typing import Protocol

import trio
from attrs import frozen

from ..errors import CommandError, PaneDead, PaneNotFound, TmuxError
from ..protocol import TmuxVersion, has_capability
from ..protocol.commands import Argument
from .expect import MAX_TEXT, Pattern, TextWindow, WaitResult, compile_patterns
from .output import Chunk, ExitStatus, Gap, LineStream, OutputStream, Overflow
from .panes import PaneTable

PASTE_SETTLE = 0.05
"""Seconds without output after which a program that reads pastes has taken one in. Such programs
redraw as they read, and an Enter that comes too early becomes part of the paste."""

REACTION = 0.5
"""Seconds within which a program that was sent something is expected to show it."""


class SendOutcome(Enum):
    """What became of a text that was sent.

    ACCEPTED: the pane wrote something after it. STRANDED: it stands unsent where the cursor is.
    UNKNOWN: nothing was written, as by a program that does not echo. DEAD: the program has ended,
    nothing was sent.
    """

    ACCEPTED = "accepted"
    STRANDED = "stranded"
    UNKNOWN = "unknown"
    DEAD = "dead"


@frozen
class PaneStatistics:
    """What this client knows of a pane's output: bytes seen, and from which offset they are kept.

    `gaps` counts where tmux left something out. `exit_status` is None while the program runs.
    """

    pane_id: str
    output_bytes: int
    kept_from: int
    gaps: int
    exit_status: ExitStatus | None


class Commander(Protocol):
    """What a pane needs of its client."""

    version: TmuxVersion

    async def command(self, *argv: Argument) -> list[str]:
        """Run one command."""
        ...

    async def batch(self, commands: Iterable[Sequence[Argument]]) -> list[list[str] | TmuxError]:
        """Run several."""
        ...


class Pane:
    """The pane `pane_id` of a client; `Client.pane` makes it."""

    def __init__(self, client: Commander, panes: PaneTable, pane_id: str) -> None:
        self._client = client
        self._panes = panes
        self.pane_id = pane_id

    def __repr__(self) -> str:
        return f"<Pane {self.pane_id}>"

    def statistics(self) -> PaneStatistics:
        """What is known of the pane's output, as of now."""
        log = self._panes.log(self.pane_id)
        return PaneStatistics(self.pane_id, log.end, log.start, log.gaps, log.exit_status)

    # Reading

    def output(
        self, *, since: int | None = None, seed: bool = False, overflow: Overflow = "drop"
    ) -> OutputStream:
        """What the pane writes, as bytes with offsets: a stream of `Chunk` and `Gap`.

        From now on, or from the offset `since`; 0 is the first byte that this client saw. With
        `seed` a `Snapshot` comes first and behind each gap. A reader that is too slow loses the
        oldest bytes and gets a counted `Gap`; with ``overflow="spool"`` they wait in a temporary
        file instead. Iterating raises `PaneNotFound` and `ConnectionClosed`.
        """
        return self._stream(since, seed, overflow)

    def lines(
        self, *, since: int | None = None, escapes: bool = False, overflow: Overflow = "drop"
    ) -> LineStream:
        """What the pane writes, line by line, without line ends.

        Without `escapes` terminal sequences are removed, and of a line that was overwritten with
        carriage returns the last version is given. An unfinished line is given when it ends, when
        the program ends, or when it is longer than 64 KiB. `since` and `overflow` as in `output`;
        where something was lost, a line of class `LostOutput` says so.
        """
        return LineStream(self._stream(since, False, overflow), escapes=escapes)

    async def capture(self, *, history: bool = False, escapes: bool = False) -> str:
        """What the pane shows: its screen, or with `history` all it keeps, lines joined by LF.

        With `escapes` colours are kept as SGR sequences. Raises `PaneNotFound`.
        """
        options = ["-p", "-t", self.pane_id]
        if escapes:
            options.append("-e")
        if history:
            options += ["-S", "-"]
        return "\n".join(await self._command("capture-pane", *options))

    # Typing

    async def send_text(self, text: str, *, submit: bool = False) -> SendOutcome:
        """Type `text` as one paste, and with `submit` then press Enter; what became of it.

        The text is bracketed if the program has asked for that, so that its lines stay one input.
        If the pane is in copy mode or another mode, that is left first. Takes up to a second
        where the program shows no reaction. Raises `PaneNotFound`, `ConnectionClosed`, and
        `ValueError` for a text that would end its own brackets.
        """
        data = text.encode("utf-8", "surrogateescape")
        if b"\x1b[201~" in data:
            raise ValueError("the text holds the sequence that ends a paste, ESC [201~")
        if not await self._leave_mode():
            return SendOutcome.DEAD
        log = self._panes.log(self.pane_id)
        self._panes.typed(self.pane_id, text)
        offset = log.end
        if data:
            buffer = f"tmuxcc-{token_hex(8)}"
            raw = ["-S"] if has_capability(self._client.version, "raw-paste") else []
            await self._batch(
                ("set-buffer", "-b", buffer, "--", data),
                ("paste-buffer", "-d", "-p", "-r", *raw, "-b", buffer, "-t", self.pane_id),
            )
        if submit:
            if data and log.reads_pastes():
                await self._wait_quiet(offset)
            offset = log.end
            await self._command("send-keys", "-t", self.pane_id, "Enter")
        reacted = await self._wait_output(offset)
        if log.failure is not None:
            raise log.failure
        if log.ended:
            return SendOutcome.ACCEPTED if reacted else SendOutcome.DEAD
        if submit and log.reads_pastes():
            await self._wait_quiet(offset)
            if await self._stands_at_cursor(text):
                return SendOutcome.STRANDED
        return SendOutcome.ACCEPTED if reacted else SendOutcome.UNKNOWN

    async def send_keys(self, *keys: str) -> None:
        """Press keys by tmux's names (``Enter``, ``C-c``, ``M-x``, ``Up``); other words are typed.

        Control keys go as the byte they are, since a program that has switched on extended keys
        would get ``C-c`` as a sequence. If the pane is in a mode, that is left first. Raises
        `PaneDead` if the program has ended, `PaneNotFound`, `ConnectionClosed`.
        """
        if not await self._leave_mode():
            raise PaneDead(self.pane_id)
        commands = [("send-keys", "-t", self.pane_id, *words) for words in _key_arguments(keys)]
        typed = "".join(key for key in keys if _is_text(key))
        self._panes.typed(self.pane_id, typed)
        await self._batch(*commands)

    # Waiting

    async def wait_for(
        self,
        patterns: Pattern | Iterable[Pattern],
        *,
        stop: Pattern | Iterable[Pattern] = (),
        since: int | None = None,
        screen: bool = False,
        echo: bool = False,
    ) -> WaitResult:
        """Wait until the pane writes something that one of `patterns` finds.

        Patterns are regular expressions, searched in the text without terminal sequences, in
        which ``^`` and ``$`` stand for each line; ``$`` also matches at the end of what has come
        so far. If one of `stop` is found first, the outcome says so.

        The text begins where something was last typed into the pane or, later, where the last
        wait ended; if there was neither, now; or at the offset `since`. With `screen` what the
        pane shows already is searched first. The first appearance of a line that was just typed is
        its echo and is not found, unless `echo` is set.

        Raises `PaneNotFound` and `ConnectionClosed`. For a deadline use a cancel scope; a
        cancelled wait can be taken up again.
        """
        wanted, unwanted = compile_patterns(patterns), compile_patterns(stop)
        panes = self._panes
        expectation = panes.take_expectation(self.pane_id)
        if expectation is None or since is not None:
            expectation = TextWindow(), self._stream(since, False, "drop")
        window, stream = expectation
        if echo:
            window.forget_echoes()
        if screen:
            seen = TextWindow()
            seen.receive((await self.capture()).encode("utf-8", "surrogateescape"))
            result = _found(seen, wanted, unwanted)
            if result is not None:
                panes.keep_expectation(self.pane_id, window, stream)
                return result
        try:
            while True:
                result = _found(window, wanted, unwanted)
                if result is not None:
                    return result
                item = await stream.receive()
                if item is None:
                    return WaitResult("exited", None, None, window.consume(len(window.text)))
                if isinstance(item, Gap):
                    return WaitResult("gap", None, None, window.consume(len(window.text)))
                size = 0
                while item is not None:
                    if isinstance(item, Chunk):
                        window.receive(item.data)
                        size += len(item.data)
                    if size > MAX_TEXT or stream.peek_gap() is not None:
                        break
                    item = stream.receive_nowait()
        finally:
            panes.keep_expectation(self.pane_id, window, stream)

    async def wait_exit(self) -> ExitStatus:
        """Wait until the pane's program has ended; how.

        Exact and at once for what this library started. Of another pane tmux tells the status
        only while ``remain-on-exit`` keeps it, up to a second later; without that both fields are
        None. Raises `PaneNotFound` and `ConnectionClosed`.
        """
        log = self._panes.log(self.pane_id)
        if not log.ended:
            await self._panes.check(self.pane_id)
        while not log.ended:
            await log.wait_change()
        if log.exit_status is None:
            assert log.failure is not None
            raise log.failure
        return log.exit_status

    # Helpers

    def _stream(self, since: int | None, seed: bool, overflow: Overflow) -> OutputStream:
        panes, pane_id = self._panes, self.pane_id
        take_snapshot: Callable[[], Awaitable[int]] | None = None
        if seed:

            async def take_snapshot() -> int:
                return await panes.take_snapshot(pane_id)

        return OutputStream(
            panes.log(pane_id),
            since=since,
            overflow=overflow,
            take_snapshot=take_snapshot,
            check=lambda: panes.check(pane_id),
        )

    async def _command(self, *argv: Argument) -> list[str]:
        try:
            return await self._client.command(*argv)
        except CommandError as error:
            raise self._named(error) from error

    async def _batch(self, *commands: Sequence[Argument]) -> None:
        for result in await self._client.batch(commands):
            if isinstance(result, CommandError):
                raise self._named(result) from result
            if isinstance(result, TmuxError):
                raise result

    def _named(self, error: CommandError) -> TmuxError:
        text = " ".join(error.lines)
        return PaneNotFound(self.pane_id) if "can't find pane" in text else error

    async def _leave_mode(self) -> bool:
        """Make sure that what is typed reaches the program; false if there is none any more."""
        log = self._panes.log(self.pane_id)
        if log.failure is not None:
            raise log.failure
        if log.ended:
            return False
        state = await self._command(
            "display-message", "-p", "-t", self.pane_id, "#{pane_id} #{pane_dead} #{pane_in_mode}"
        )
        pane_id, _, flags = (state or [""])[0].partition(" ")
        if pane_id != self.pane_id:
            raise PaneNotFound(self.pane_id)
        dead, _, in_mode = flags.partition(" ")
        if dead == "1":
            return False
        if in_mode not in ("", "0"):
            await self._command("copy-mode", "-q", "-t", self.pane_id)
        return True

    async def _wait_output(self, offset: int) -> bool:
        log = self._panes.log(self.pane_id)
        with trio.move_on_after(REACTION):
            while log.end <= offset and not log.ended:
                await log.wait_change()
        return log.end > offset

    async def _wait_quiet(self, offset: int) -> None:
        """Wait until the program has shown something and then been quiet, for a while at most."""
        await self._wait_output(offset)
        log = self._panes.log(self.pane_id)
        with trio.move_on_after(REACTION):
            while not log.ended:
                with trio.move_on_after(PASTE_SETTLE) as quiet:
                    await log.wait_change()
                if quiet.cancelled_caught:
                    return

    async def _stands_at_cursor(self, text: str) -> bool:
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines:
            return False
        row, screen = await self._client.batch(
            [
                ("display-message", "-p", "-t", self.pane_id, "#{cursor_y}"),
                ("capture-pane", "-p", "-t", self.pane_id),
            ]
        )
        if isinstance(row, TmuxError) or isinstance(screen, TmuxError):
            return False
        tail = lines[-1].strip()[-30:]
        y = int(row[0])
        return y < len(screen) and tail in screen[y]


def _found(
    window: TextWindow, wanted: Sequence[re.Pattern[str]], unwanted: Sequence[re.Pattern[str]]
) -> WaitResult | None:
    found = window.search([*wanted, *unwanted])
    if found is None:
        return None
    index, match = found
    text = window.consume(match.end())
    if index < len(wanted):
        return WaitResult("matched", index, match, text)
    return WaitResult("stopped", index - len(wanted), match, text)


_CONTROL_KEY = re.compile(r"(?:C-|\^)([a-zA-Z@\[\\\]^_])")
_KEY_NAME = re.compile(
    r"(?:[CMS]-)+\S+|\^.|F(?:[1-9]|1[0-2])|Up|Down|Left|Right|Home|End|NPage|PageDown|PgDn|PPage"
    r"|PageUp|PgUp|IC|Insert|DC|Delete|Enter|Escape|Space|Tab|BTab|BSpace|KP(?:[0-9]|Enter|[*+./-])",
    re.IGNORECASE,
)


def _is_text(key: str) -> bool:
    return _KEY_NAME.fullmatch(key) is None


def _key_arguments(keys: Sequence[str]) -> list[list[str]]:
    """The arguments of the send-keys commands that press `keys`, in order."""
    commands: list[list[str]] = []
    for key in keys:
        control = _CONTROL_KEY.fullmatch(key)
        if control is not None:
            commands.append(["-H", f"{ord(control[1].upper()) & 0x1F:02x}"])
        elif not _is_text(key):
            commands.append(["--", key])
        elif key.isprintable():
            commands.append(["-l", "--", key])
        else:
            # With extended keys -l drops line feeds; bytes are always what they are.
            data = key.encode("utf-8", "surrogateescape")
            commands.extend(
                ["-H", *(f"{byte:02x}" for byte in data[start : start + 512])]
                for start in range(0, len(data), 512)
            )
    return commands
