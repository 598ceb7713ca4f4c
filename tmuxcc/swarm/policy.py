"""When an agent is started again, and how much it may write: decisions, and nothing that acts.

No I/O, no trio, no clock and no dice: times and random numbers are arguments. Times are seconds of
any one clock that does not go backwards, such as `trio.current_time`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast, get_args

from attrs import Attribute, field, frozen

from ..errors import InvalidSwarm
from .checks import SHORTEST, number, shown

When: TypeAlias = Literal["no", "on-failure", "always"]


# Restarts


def _check_when(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value not in get_args(When):
        raise InvalidSwarm(
            f'has to be "no", "on-failure" or "always", not {shown(value)}', attribute.name
        )


@frozen
class RestartPolicy:
    """When a program that has ended is started again, and how long to wait before.

    `when` is ``"no"``, ``"on-failure"`` (exit status other than 0, or a signal) or ``"always"``.
    The first wait is `delay` seconds, each following one `factor` times as long, up to
    `max_delay`; it is spread by the fraction `jitter` both ways, so that many agents do not start
    at once. A run of `stable_after` seconds makes the waits begin anew. More than `max_restarts`
    within `window` seconds are a crash loop, and there the restarts end.

    Raises `InvalidSwarm`, which names the field.
    """

    when: When = field(default="no", validator=_check_when)
    delay: float = field(default=0.5, validator=number("a number of seconds", 0), kw_only=True)
    factor: float = field(default=2.0, validator=number("a number", 1), kw_only=True)
    max_delay: float = field(default=30.0, validator=number("a number of seconds", 0), kw_only=True)
    jitter: float = field(default=0.1, validator=number("a number", 0, 1), kw_only=True)
    max_restarts: int = field(
        default=5, validator=number("a whole number", 1, whole=True), kw_only=True
    )
    window: float = field(
        default=60.0, validator=number("a number of seconds", SHORTEST), kw_only=True
    )
    stable_after: float = field(
        default=10.0, validator=number("a number of seconds", 0), kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        if self.max_delay < self.delay:
            raise InvalidSwarm(
                f"has to be at least the delay, {self.delay:g} seconds, not {self.max_delay:g}",
                "max_delay",
            )


NO_RESTARTS = RestartPolicy()


def restart_policy(value: RestartPolicy | str | None) -> RestartPolicy:
    """The policy that `value` means: itself, the one of that name, or for None no restarts.

    Raises `InvalidSwarm`.
    """
    if isinstance(value, RestartPolicy):
        return value
    if value is None:
        return NO_RESTARTS
    if value not in get_args(When):
        raise InvalidSwarm(
            f'has to be "no", "on-failure", "always" or a RestartPolicy, not {shown(value)}',
            "restart",
        )
    return RestartPolicy(cast("When", value))


@frozen
class RestartHistory:
    """What `decide_restart` has to remember of a program; empty at its first start.

    `times` are those of its restarts that still count for the window, `in_a_row` is how many there
    were since the last run that was stable.
    """

    times: tuple[float, ...] = ()
    in_a_row: int = 0


@frozen
class Restart:
    """Start the program again after `delay` seconds; `history` is for the next decision."""

    delay: float
    history: RestartHistory


@frozen
class GiveUp:
    """Leave the program as it is. `reason` completes "it is not started again: …"."""

    reason: str
    crash_loop: bool


def decide_restart(
    policy: RestartPolicy,
    history: RestartHistory,
    *,
    ok: bool,
    requested: bool,
    ran_for: float,
    now: float,
    random: float,
) -> Restart | GiveUp:
    """What to do about a program that ended at `now`, after `ran_for` seconds.

    `ok` says that it ended well, `requested` that somebody asked for the end. `random` is a number
    from 0 to 1 that spreads the delay. The delay is never negative and never more than
    `RestartPolicy.max_delay`.
    """
    if requested:
        return GiveUp("its end was asked for", crash_loop=False)
    if policy.when == "no":
        return GiveUp("its restart policy says so", crash_loop=False)
    if policy.when == "on-failure" and ok:
        return GiveUp("it ended well", crash_loop=False)
    times = history.times
    if times:
        # The restart may have come later than it was due.
        times = (*times[:-1], max(times[-1], now - ran_for))
    times = tuple(time for time in times if now - time < policy.window)
    if len(times) >= policy.max_restarts:
        restarts = "1 restart" if len(times) == 1 else f"{len(times)} restarts"
        return GiveUp(
            f"it ended again after {restarts} within {policy.window:g} seconds", crash_loop=True
        )
    in_a_row = 0 if ran_for >= policy.stable_after else history.in_a_row
    delay = _backoff(policy, in_a_row, random)
    return Restart(delay, RestartHistory((*times, now + delay), in_a_row + 1))


def _backoff(policy: RestartPolicy, in_a_row: int, random: float) -> float:
    if not policy.delay:
        return 0.0
    try:
        delay = min(policy.delay * policy.factor**in_a_row, policy.max_delay)
    except OverflowError:
        delay = policy.max_delay
    low = delay * (1 - policy.jitter)
    # Cut before the draw: cut after it, half of the long delays would be exactly the longest.
    high = min(delay * (1 + policy.jitter), policy.max_delay)
    return min(low + (high - low) * random, high)


# Output


@frozen(kw_only=True)
class OutputLimits:
    """How much a program may write; None is no limit.

    `rate` is bytes per second in the long run, `burst` the bytes that may come at once (None: those
    of one second), `size` the bytes of one run of the program. After `clear_history_after` bytes
    the pane's history is cleared, again and again.

    Raises `InvalidSwarm`, which names the field.
    """

    rate: int | None = field(
        default=None,
        validator=number("a whole number of bytes per second", 1, whole=True, optional=True),
    )
    burst: int | None = field(
        default=None, validator=number("a whole number of bytes", 1, whole=True, optional=True)
    )
    size: int | None = field(
        default=None, validator=number("a whole number of bytes", 1, whole=True, optional=True)
    )
    clear_history_after: int | None = field(
        default=None, validator=number("a whole number of bytes", 1, whole=True, optional=True)
    )

    def __attrs_post_init__(self) -> None:
        if self.burst is not None and self.rate is None:
            raise InvalidSwarm("means nothing without a rate", "burst")


NO_LIMITS = OutputLimits()


@frozen
class Verdict:
    """What to do about a pane's output, after a piece of it has come.

    `action` is ``"go-on"``, ``"hold"`` (let nothing through until the time `until`, then ask
    `OutputBrake.resume`) or ``"cut"`` (let nothing more through of this run of the program; `until`
    is then that of a hold which would outlast the run, or None). `clear_history` says that the
    pane's history is to be cleared now.
    """

    action: Literal["go-on", "hold", "cut"]
    until: float | None = None
    clear_history: bool = False


_GO_ON = Verdict("go-on")


class OutputBrake:
    """Holds `limits` against what one pane writes.

    If the caller lets nothing through while it is told to hold, then what comes through in any
    stretch of time is at most ``rate * seconds + burst`` and one piece, namely the one that went
    over the limit: it had come already. A hold lasts until the whole burst is there again, so that
    a flood is cut into few large pieces instead of many small ones. Likewise of one run of a
    program at most `OutputLimits.size` and one piece come through.

    `received` is how many bytes of this run have come, let through or not, `cut` whether that was
    too many, and `held_until` the time of the hold that is on.
    """

    def __init__(self, limits: OutputLimits) -> None:
        self.limits = limits
        self.received = 0
        self.cut = False
        self.held_until: float | None = None
        self._burst = float(limits.burst or limits.rate or 0)
        self._tokens = self._burst
        self._counted_at: float | None = None
        self._history = 0

    def receive(self, size: int, now: float) -> Verdict:
        """`size` bytes have come at `now`: what to do with those that follow.

        During a hold they are taken for bytes that were already under way: `drop`.
        """
        if self.limits.rate is not None and self.held_until is None and not self.cut:
            self._spend(size, self.limits.rate, now)
        return self.drop(size)

    def drop(self, size: int) -> Verdict:
        """`size` bytes were written that were not let through.

        They count for the size of the run and for the history of the pane, but not for the rate: a
        program that never pauses would never be heard again.
        """
        self.received += size
        clear_history = self._fills_history(size)
        if self.limits.size is not None and self.received >= self.limits.size:
            self.cut = True
        if self.cut:
            return Verdict("cut", self.held_until, clear_history)
        if self.held_until is not None:
            return Verdict("hold", self.held_until, clear_history)
        return Verdict("go-on", None, clear_history) if clear_history else _GO_ON

    def resume(self, now: float) -> bool:
        """Whether output may go on at `now`: not before the time of the hold, nor after a cut."""
        if self.held_until is not None and now >= self.held_until:
            self.held_until = None
        return self.held_until is None and not self.cut

    def new_run(self) -> None:
        """The program is started anew: its size counts from 0, and a cut is over.

        A hold is not over, lest a program that floods and fails gets round the rate: ask `resume`
        at `held_until`, as without a new run.
        """
        self.received = 0
        self.cut = False

    def _fills_history(self, size: int) -> bool:
        limit = self.limits.clear_history_after
        if limit is None:
            return False
        self._history += size
        if self._history < limit:
            return False
        self._history = 0
        return True

    def _spend(self, size: int, rate: int, now: float) -> None:
        if self._counted_at is None:
            self._counted_at = now
        elapsed = max(0.0, now - self._counted_at)
        self._counted_at = max(now, self._counted_at)
        self._tokens = min(self._burst, self._tokens + rate * elapsed) - size
        if self._tokens < 0:
            self.held_until = now + (self._burst - self._tokens) / rate
