"""Fold one probe result into a check's state.

Theory of operation. A check is *unknown* until its first result, which is believed at once. From then on a result
that agrees with the state clears the streak, and one that contradicts it lengthens the streak. ``rise``
contradictions in a row turn down into up, ``fall`` of them turn up into down. A backend whose check is still unknown
counts as down, unless the kernel was already serving it when the daemon started, or it was up when its check was
edited: then it counts as up until proven otherwise. A probe that says nothing of its target is no result; it stands
in ``CheckState.unproven`` until the next result (``engine.verdicts``).

Pure. Decision record: docs/decisions/0003-pools-and-gates.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from anycastlb.core.decision import weights
from anycastlb.core.delta import delta
from anycastlb.core.model import Check, CheckState, Health, Reason, Result

UNKNOWN = CheckState()


EVIDENCE = 10
"""Results kept of each kind: the latest, and the latest failures."""
WINDOW = 100
"""Results the record counts."""


def step(state: CheckState, result: Result, rise: int, fall: int) -> CheckState:
    """The state after one more result."""
    up, streak, since, agreed = _turned(state, result, rise, fall)
    asks, record = (result.weight, result.drain) if result.ok else state.asks, _counted(state.record, result.ok)
    return CheckState(
        up,
        streak,
        since,
        result,
        asks=state.asks if asks == state.asks else asks,  # one object for as long as it is the same
        agreed=agreed,
        recent=(*state.recent[-EVIDENCE + 1 :], result),
        failures=state.failures if result.ok else (*state.failures[-EVIDENCE + 1 :], result),
        record=state.record if record == state.record else record,
    )


def _turned(state: CheckState, result: Result, rise: int, fall: int) -> tuple[bool, int, float, int]:
    """``up``, ``streak``, ``since`` and ``agreed`` after one more result."""
    if state.up is None:
        return result.ok, state.streak, result.at, state.agreed
    if result.ok == state.up:
        return state.up, 0, state.since, state.agreed + 1
    streak = state.streak + 1
    if streak >= (rise if result.ok else fall):
        return result.ok, 0, result.at, 0
    return state.up, streak, state.since, 0


def _counted(record: tuple[float, int], ok: bool) -> tuple[float, int]:
    good, count = record
    if count >= WINDOW:  # the oldest result leaves; on average it was as good as the window
        good, count = good - good / count, count - 1
    return good + ok, count + 1


def pause(check: Check, state: CheckState) -> float:
    """Seconds until the next probe is due after the last: faster while a verdict turns, slower while it stays down."""
    if state.streak:
        return check.fast_interval or check.interval
    if state.up is False and check.down_interval is not None:
        return max(check.interval, min(check.down_interval, check.interval * 2.0 ** min(state.agreed, 32)))
    return check.interval


def verdict(state: CheckState, before: bool) -> tuple[bool, Reason]:
    """Does a backend with this state count as up, and why; ``before``: did it so far?"""
    if state.up is None:
        why = f": {state.last.detail}" if state.last else ""  # what keeps the check from being run
        return before, Reason("not_checked", f"not checked yet{'; up so far' * before}{why}")
    detail = state.last.detail if state.last else ""
    if state.up:
        return True, Reason("check_passed", detail)
    unproven = state.last is not None and state.unproven is state.last  # for so long that it counts as a failure
    return False, Reason("check_unproven" if unproven else "check_failed", f"down: {detail}")


def alike(one: CheckState, other: CheckState) -> bool:
    """Do two states of a check say the same to a decision? Evidence that confirms a check that is up does not count."""
    if one.last is None or other.last is None:
        return one == other
    return (
        one.up is other.up
        and one.since == other.since
        and one.asks == other.asks
        and one.last.detail == other.last.detail
        and (one.up is True or one.last == other.last)
        and (one.record == other.record or weights.earned(*one.record) == weights.earned(*other.record))
    )


def turned(old: Health, new: Health) -> Iterable[Check]:
    """The checks of which a decision may think otherwise than the last one."""
    keys = delta(old, new).keys
    return [key for key in keys if key not in old or key not in new or not alike(old[key], new[key])]
