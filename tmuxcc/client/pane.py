"""One pane: reading, typing, looking, waiting.

A `Pane` is a name with verbs; what is known of the pane is in panes.py and output.py, so that two
`Pane` objects of the same pane are the same pane.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from secrets import token_hex
from typing import Protocol

import trio
from attrs import frozen

from ..errors import CommandError, PaneDead, PaneNotFound, TmuxError
from ..protocol import TmuxVersion, has_capability
from ..protocol.commands import Argument
from .expect import MAX_TEXT, Pattern, TextWindow, WaitResult, compile_patterns
from .output import Chunk, ExitStatus, Gap, Restarted
from .panes import PaneTable
from .start import created_options
from .streams import LineStream, OutputStream, Overflow

PASTE_SETTLE = 0.05
"""Seconds without output after which a program that reads pastes has taken one in. Such programs
redraw as they read, and an Enter that comes too early becomes part of the paste."""

REACTION = 0.5
"""Seconds within which a program that was sent something is expected to show it."""

ENTER_ATTEMPTS = 3
"""How often Enter is pressed while the text stands there unsent: a busy program may miss one."""


# Bracketed pastes are asked of tmux where it tells them, else read from the output.
_READY_FORMAT = "#{pane_id}:#{pane_dead}:#{pane_in_mode}:#{bracket_paste_flag}"


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
    is_local: bool

    async def command(self, *argv: Argument) -> list[str]:
        """Run one command."""
        ...

    async def batch(self, commands: Iterable[Sequence[Argument]]) -> list[list[str] | TmuxError]:
        """Run several."""
        ...

    def delete_buffer(self, buffer: str) -> None:
        """Have a buffer deleted, on another connection if need be."""
        ...


@frozen
class PreparedText:
    """A text that many panes are about to get: the buffer it stands in, and how the panes are."""

    buffer: str
    states: Mapping[str, str]


@asynccontextmanager
async def prepare_text(client: Commander, text: str) -> AsyncIterator[PreparedText]:
    """Spare work where one `text` goes to many panes; for `Pane.send_text` within the block.

    What it knows of the panes is that of its beginning, so use it at once. Raises `ValueError` for
    a text that would end its own brackets, and `ConnectionClosed`.
    """
    buffer = f"tmuxcc-{token_hex(8)}"
    data = _pasted(text) or b" "
    try:
        filled, listed = await client.batch(
            [
                ("set-buffer", "-b", buffer, "--", data),
                ("list-panes", "-a", "-F", _READY_FORMAT),
            ]
        )
        for answer in (filled, listed):
            if isinstance(answer, TmuxError):
                raise answer
        assert isinstance(listed, list)
        yield PreparedText(buffer, {line.partition(":")[0]: line for line in listed})
    finally:
        client.delete_buffer(buffer)


def _pasted(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if b"\x1b[201~" in data:
        raise ValueError("the text holds the sequence that ends a paste, ESC [201~")
    return data


class Pane:
    """The pane `pane_id` of a client; `Client.pane` makes it."""

    def __init__(self, client: Commander, panes: PaneTable, pane_id: str) -> None:
        self._client = client
        self._panes = panes
        self.pane_id = pane_id

    def __repr__(self) -> str:
        return f"<Pane {self.pane_id}>"

    @property
    def pid(self) -> int | None:
        """The pane's own process, which of a program started here is the wrapper.

        None where it is not known, or not one of this machine.
        """
        return self._panes.pid(self.pane_id)

    @property
    def program_offset(self) -> int:
        """The offset in its output where that of its present program begins; see `respawn`."""
        return self._panes.peek(self.pane_id).program_offset

    def statistics(self) -> PaneStatistics:
        """What is known of the pane's output, as of now."""
        log = self._panes.peek(self.pane_id)
        return PaneStatistics(self.pane_id, log.end, log.start, log.gaps, log.exit_status)

    # Reading

    def output(
        self, *, since: int | None = None, seed: bool = False, overflow: Overflow = "drop"
    ) -> OutputStream:
        """What the pane writes, as bytes with offsets: a stream of `Chunk` and `Gap`.

        From now on, or from the offset `since`; 0 is the first byte that this client saw. With
        `seed` a `Snapshot` comes first, and behind each gap but those of a pane over its limit
        or killed; where whoever asked for it is cancelled, it comes soon, behind a further gap.
        A reader that is too slow loses the oldest bytes and gets a counted `Gap`; with
        ``overflow="spool"`` they wait in a temporary file instead. Iterating raises `PaneNotFound`
        and `ConnectionClosed`.
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

    def mute(self) -> None:
        """Throw away what the pane writes from here on; its end is seen as ever."""
        self._panes.log(self.pane_id).mute()

    def unmute(self) -> None:
        """Keep what the pane writes again; a `Gap` tells the size of what was thrown away."""
        self._panes.log(self.pane_id).unmute()

    # Programs

    async def adopt(self, *, let_go: bool = True) -> None:
        """Know a pane that this client has not made as if it had.

        Its output begins with the lines that it shows and keeps in its history, exact with what
        follows, and the end of a program that this library started is told at once and exactly.
        The wrapper of such a program is then let go, unless `let_go` is false: for those who only
        look on, while somebody else may not have read all of it yet. Raises `PaneNotFound` and
        `ConnectionClosed`.
        """
        await self._panes.adopt(self.pane_id, let_go=let_go)

    def keep_open(self, keep: bool = True) -> None:
        """Have streams wait for the next program in the pane (`respawn`) when one has ended.

        What the pane has written is then kept, within its bound, until `forget`: also behind the
        end for good that `keep` = False tells, and however many other panes end.
        """
        self._panes.keep_open(self.pane_id, keep)

    async def hook_death(self) -> None:
        """Have tmux tell of the pane's death at once, where it can do that (3.4 and later).

        It leaves a hook on the pane, so it is for panes of one's own. Elsewhere, and for programs
        that end by themselves, the end is known without it.
        """
        if has_capability(self._client.version, "messages"):
            await self._panes.hook_death(self.pane_id)

    def forget(self) -> None:
        """Drop all that is known of the pane, which is gone or is of no more interest."""
        self._panes.forget(self.pane_id)

    async def respawn(
        self,
        argv: Sequence[str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        kill: bool = False,
    ) -> None:
        """Start another program in the pane, whose own has ended (needs ``remain-on-exit``).

        Its output continues that of the last one in offsets and streams, with a `Restarted` in
        between for those that were opened before its start. `argv`, `cwd` and `env` as for
        `Client.new_window`. With `kill` a program that is still running is killed first; what
        it wrote last, and tmux has not sent yet, then counts as written by its successor. Raises
        `CommandError` if tmux can't start it or the program is still running, `PaneNotFound`,
        `ConnectionClosed`.
        """
        options = created_options(cwd, env, is_local=self._client.is_local)
        try:
            await self._panes.respawn(self.pane_id, argv, options, kill=kill)
        except CommandError as error:
            raise self._named(error) from error

    # Typing

    async def send_text(
        self,
        text: str,
        *,
        submit: bool = False,
        note: tuple[str, str] | None = None,
        prepared: PreparedText | None = None,
    ) -> SendOutcome:
        """Type `text` as one paste, and with `submit` then press Enter; what became of it.

        The text is bracketed if the program has asked for that, so that its lines stay one input.
        If the pane is in copy mode or another mode, that is left first. Takes up to two seconds
        where the program shows no reaction, and four where it leaves the text unsent. `note` is a
        user option of the pane, name and value, that is set just before the text is typed: whoever
        comes after us can know that it was. A text for many panes can be `prepared` once for all of
        them (`prepare_text`). Raises `PaneNotFound`, `ConnectionClosed`, and `ValueError` for a
        text that would end its own brackets.
        """
        data = _pasted(text)
        pastes = await self._make_ready(None if prepared is None else prepared.states)
        if pastes is None:
            return SendOutcome.DEAD
        log = self._panes.log(self.pane_id)
        program = log.programs
        self._panes.typed(self.pane_id, text)
        offset = log.end
        commands: list[tuple[str | bytes, ...]] = []
        buffer = ""
        if note is not None:
            commands.append(("set-option", "-p", "-t", self.pane_id, *note))
        if data:
            raw = ["-S"] if has_capability(self._client.version, "raw-paste") else []
            paste = ("paste-buffer", "-p", "-r", *raw, "-t", self.pane_id, "-b")
            if prepared is not None:
                commands.append((*paste, prepared.buffer))
            else:
                buffer = f"tmuxcc-{token_hex(8)}"
                commands += [("set-buffer", "-b", buffer, "--", data), (*paste, buffer, "-d")]
        if submit and not (data and pastes):
            commands.append(("send-keys", "-t", self.pane_id, "Enter"))
        if not await self._type(commands, buffer):
            return SendOutcome.DEAD
        stranded = submit and pastes
        if submit and pastes:
            for _ in range(ENTER_ATTEMPTS):
                if data:
                    await self._wait_quiet(offset)
                offset = log.end
                await self._command("send-keys", "-t", self.pane_id, "Enter")
                await self._wait_quiet(offset)
                stranded = log.exit_status is None and await self._stands_at_cursor(text)
                if not stranded:
                    break
        reacted = await self._wait_output(offset)
        if log.failure is not None:
            raise log.failure
        if log.programs != program or log.exit_status is not None:
            return SendOutcome.ACCEPTED if reacted else SendOutcome.DEAD
        if stranded:
            return SendOutcome.STRANDED
        return SendOutcome.ACCEPTED if reacted else SendOutcome.UNKNOWN

    async def send_keys(self, *keys: str) -> None:
        """Press keys by tmux's names (``Enter``, ``C-c``, ``M-x``, ``Up``); other words are typed.

        Control keys go as the byte they are, since a program that has switched on extended keys
        would get ``C-c`` as a sequence. If the pane is in a mode, that is left first. Raises
        `PaneDead` if the program has ended, `PaneNotFound`, `ConnectionClosed`.
        """
        if await self._make_ready() is None:
            raise PaneDead(self.pane_id)
        commands = [("send-keys", "-t", self.pane_id, *words) for words in _key_arguments(keys)]
        typed = "".join(key for key in keys if not is_key(key))
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
        wait ended; if there was neither, or another task waits in this pane, now; or at the offset
        `since`. With `screen` what the
        pane shows already is searched first. The first appearance of a line that was just typed is
        its echo and is not found, unless `echo` is set.

        Raises `PaneNotFound` and `ConnectionClosed`. For a deadline use a cancel scope; a
        cancelled wait can be taken up again.
        """
        wanted, unwanted = compile_patterns(patterns), compile_patterns(stop)
        panes = self._panes
        expectation = panes.take_expectation(self.pane_id)
        if expectation is None or since is not None:
            expectation = TextWindow(), self._stream(since, False, "drop", one_program=True)
        window, stream = expectation
        if echo:
            window.forget_echoes()
        try:
            if screen:
                seen = TextWindow()
                seen.receive((await self.capture()).encode("utf-8", "surrogateescape"))
                result = _found(seen, wanted, unwanted)
                if result is not None:
                    return result
            while True:
                result = _found(window, wanted, unwanted)
                if result is not None:
                    return result
                item = await stream.receive()
                if item is None or isinstance(item, Restarted):
                    return WaitResult("exited", None, None, window.consume(len(window.text)))
                if isinstance(item, Gap):
                    return WaitResult("gap", None, None, window.consume(len(window.text)))
                size = 0
                while isinstance(item, Chunk):
                    window.receive(item.data)
                    size += len(item.data)
                    if size > MAX_TEXT or not stream.has_chunk():
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
        if log.exit_status is None and log.failure is None:
            await self._panes.check(self.pane_id)
        program = log.programs
        while log.exit_status is None and log.failure is None and log.programs == program:
            await log.wait_end_change()
        if log.programs != program:
            assert log.last_status is not None
            return log.last_status
        if log.exit_status is None:
            assert log.failure is not None
            raise log.failure
        return log.exit_status

    # Helpers

    def _stream(
        self, since: int | None, seed: bool, overflow: Overflow, *, one_program: bool = False
    ) -> OutputStream:
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
            one_program=one_program,
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
        if "target pane has exited" in text:
            return PaneDead(self.pane_id)
        # The second is what set-option says.
        gone = "can't find pane" in text or "no such pane" in text
        if not gone:
            return error
        self._panes.drop_unseen(self.pane_id)
        return PaneNotFound(self.pane_id)

    async def _type(self, commands: Sequence[Sequence[Argument]], buffer: str) -> bool:
        """Run the commands that type, with a `buffer` of their own; whether there was a program."""
        try:
            await self._batch(*commands)
        except BaseException as error:
            if buffer:
                # It was to be deleted with the paste.
                self._client.delete_buffer(buffer)
            if not isinstance(error, PaneDead):
                raise
            return False
        return True

    async def _make_ready(self, states: Mapping[str, str] | None = None) -> bool | None:
        """Make sure that what is typed reaches the program; None if there is none any more.

        True if the program reads pastes as such. `states` are those of all panes, if known.
        """
        log = self._panes.log(self.pane_id)
        if log.failure is not None:
            raise log.failure
        if log.exit_status is not None:
            return None
        if states is not None:
            state = [states.get(self.pane_id, "")]
        else:
            where = ("display-message", "-p", "-t", self.pane_id)
            state = await self._command(*where, _READY_FORMAT)
        pane_id, dead, in_mode, pastes = ((state or [""])[0] + ":::").split(":")[:4]
        if pane_id != self.pane_id:
            self._panes.drop_unseen(self.pane_id)
            raise PaneNotFound(self.pane_id)
        if dead == "1":
            return None
        if in_mode not in ("", "0"):
            await self._command("copy-mode", "-q", "-t", self.pane_id)
        return pastes == "1" or (not pastes and log.reads_pastes())

    async def _wait_output(self, offset: int) -> bool:
        log = self._panes.log(self.pane_id)
        with trio.move_on_after(REACTION):
            while log.end <= offset and log.exit_status is None and log.failure is None:
                await log.wait_change()
        return log.end > offset

    async def _wait_quiet(self, offset: int) -> None:
        """Wait until the program has shown something and then been quiet, for a while at most."""
        await self._wait_output(offset)
        log = self._panes.log(self.pane_id)
        with trio.move_on_after(REACTION):
            while log.exit_status is None and log.failure is None:
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
_NAMED_KEY = (
    r"F(?:[1-9]|1[0-2])|Up|Down|Left|Right|Home|End|NPage|PageDown|PgDn|PPage|PageUp|PgUp|IC|Insert"
    r"|DC|Delete|Enter|Escape|Space|Tab|BTab|BSpace|KP(?:[0-9]|Enter|[*+./-])"
)
_KEY_NAME = re.compile(rf"(?:[CMS]-)+(?:\S|{_NAMED_KEY})|\^.|{_NAMED_KEY}", re.IGNORECASE)


def is_key(word: str) -> bool:
    """Whether tmux has a key of this name; other words are typed."""
    return _KEY_NAME.fullmatch(word) is not None


def _key_arguments(keys: Sequence[str]) -> list[list[str]]:
    """The arguments of the send-keys commands that press `keys`, in order."""
    commands: list[list[str]] = []
    for key in keys:
        control = _CONTROL_KEY.fullmatch(key)
        if control is not None:
            commands.append(["-H", f"{ord(control[1].upper()) & 0x1F:02x}"])
        elif is_key(key):
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
