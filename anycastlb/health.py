"""Fold one probe result into a check's state.

Theory of operation. A check is *unknown* until its first result, which is believed at once. From then on a result
that agrees with the state clears the streak, and one that contradicts it lengthens it; ``rise`` contradictions in a
row turn down into up, ``fall`` turn up into down. A backend whose check is still unknown counts as down, unless the
kernel was already serving it when the daemon started: then it is adopted, and counts as up until proven otherwise.
"""

from __future__ import annotations

from dataclasses import replace

from anycastlb.model import CheckState, Result

UNKNOWN = CheckState()


def step(state: CheckState, result: Result, rise: int, fall: int) -> CheckState:
    """The state after one more result."""
    if state.up is None:
        return CheckState(up=result.ok, since=result.at, last=result)
    if result.ok == state.up:
        return replace(state, streak=0, last=result)
    streak = state.streak + 1
    if streak >= (rise if result.ok else fall):
        return CheckState(up=result.ok, since=result.at, last=result)
    return replace(state, streak=streak, last=result)


def verdict(state: CheckState, adopted: bool) -> tuple[bool, str]:
    """Does a backend with this state count as up, and why."""
    if state.up is None:
        return adopted, "served before the restart, not checked yet" if adopted else "not checked yet"
    detail = state.last.detail if state.last else ""
    return state.up, detail if state.up else f"down: {detail}"
