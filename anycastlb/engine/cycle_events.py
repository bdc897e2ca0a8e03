"""The events of one cycle: what has changed since the last snapshot, for the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import ParamSpec

from anycastlb.core.events import Event, Level
from anycastlb.core.model import (
    NAMES,
    NO_REASON,
    Address,
    Change,
    Decision,
    Failure,
    NodeDrain,
    Reason,
    Snapshot,
    Verdict,
)
from anycastlb.engine.outcomes import OUTDATED
from anycastlb.engine.tier_events import server_reason, tier_events

P = ParamSpec("P")
UNDRAINED = Reason("undrained", "it is drained no more, and may announce again")
READABLE = 100
"""A plan of up to this many changes has one event for each of them."""


def cycle_events(
    node: str, previous: Snapshot, decision: Decision, finished: Sequence[Change], failures: Sequence[Failure]
) -> list[Event]:
    """Everything that this cycle has to report, beside what it could not read.

    ``previous``: the snapshot of the cycle before. ``finished``: the changes that were done or refused. A fault of ours
    in making an event takes that event's place: what was decided and done stands.
    """
    return list(_cycle_events(node, previous, decision, finished, failures))


def _cycle_events(
    node: str, previous: Snapshot, decision: Decision, finished: Sequence[Change], failures: Sequence[Failure]
) -> Iterator[Event]:
    last = previous.decision
    if decision.verdicts is not last.verdicts:
        for vip, verdict in decision.verdicts.items():
            if (before := last.verdicts.get(vip)) is not verdict:
                yield from _contained(vip, _verdict_events, vip, before, verdict)
    if decision.http is not last.http:
        yield from _contained(node, tier_events, last.http, decision.http)
    yield from _contained(node, _drain_events, node, last.memory.node_drain, decision.memory.node_drain)
    for subject, fault in decision.faults.items():
        if last.faults.get(subject) != fault:
            yield Event("failure", subject, fault.text, level="error", code=fault.code)
    failed = {id(failure.change) for failure in failures}
    done = [change for change in finished if change.table not in NAMES and id(change) not in failed]
    if done:
        yield from _contained(node, _change_events, done, decision)
    if failures != previous.failures:
        old = set(map(id, previous.failures))
        fresh = [failure for failure in failures if id(failure) not in old]
        known = {(failure.change, failure.reason) for failure in previous.failures} if fresh else set()
        yield from _contained(node, _failure_events, fresh, known)


def _contained(
    subject: object, events: Callable[P, Iterable[Event]], /, *args: P.args, **kwargs: P.kwargs
) -> list[Event]:
    try:
        return list(events(*args, **kwargs))
    except Exception as exc:
        return [telling_failed(subject, exc)]


def telling_failed(subject: object, exc: Exception) -> Event:
    """The event in place of what could not be told because of a fault of ours."""
    text = f"internal error in telling of {subject}, which goes on as decided: {type(exc).__name__}: {exc}"
    return Event("failure", str(subject), f"{text}; please report it", level="error", code="internal_error")


def _verdict_events(vip: Address, before: Verdict | None, after: Verdict) -> Iterator[Event]:
    if before is None or before.open != after.open:
        yield _gate_event(vip, before.open if before else None, after)
    if after.kept != (before.kept if before else ""):
        yield _kept_event(vip, before.kept if before else "", after)


def _gate_event(vip: Address, before: bool | None, after: Verdict) -> Event:
    words = {None: "", True: "open", False: "closed"}
    level: Level = "info" if after.open else "warning"
    why = after.reason
    return Event("gate", str(vip), why.text, words[before], words[after.open], level, code=why.code)


def _kept_event(vip: Address, before: str, verdict: Verdict) -> Event:
    """It is a warning or an error where only something else than this node's own health keeps the VIP announced, and
    that will not pass by itself."""
    levels: Mapping[str, Level] = {"last": "warning", "limit": "error"}
    level = levels.get(verdict.kept, "info")
    why = verdict.reason
    return Event("kept", str(vip), why.text, before, verdict.kept, level, code=why.code)


def _drain_events(node: str, before: NodeDrain | None, after: NodeDrain | None) -> Iterator[Event]:
    """How far the node has left, when that or the reason has changed."""
    if (before and (before.stage, before.reason)) == (after and (after.stage, after.reason)):
        return
    was, now = (item.stage if item else "" for item in (before, after))
    reason = after.reason if after else UNDRAINED
    level: Level = "warning" if after and after.overdue else "info"
    yield Event("drain", node, reason.text, was, now or "undrained", level, code=reason.code)


def _change_events(changes: Sequence[Change], decision: Decision) -> list[Event]:
    """One event a change; of a plan too large to read, one a kind."""
    if len(changes) <= READABLE:
        return [_change_event(change, decision) for change in changes]
    counts = Counter(f"{change.table}.{change.verb}" for change in changes)
    return [Event(kind, "many", after=f"{count} rows") for kind, count in counts.items()]


def _change_event(change: Change, decision: Decision) -> Event:
    reason = NO_REASON
    if change.table == "destinations" and change.key in decision.backends:
        reason = decision.backends[change.key].reason
    elif change.table == "routes" and change.key in decision.verdicts:
        reason = decision.verdicts[change.key].reason
    elif change.table == "http_servers":
        reason = server_reason(change.key, decision.http)
    before = "" if change.old is None else str(change.old)
    after = "" if change.new is None else str(change.new)
    return Event(f"{change.table}.{change.verb}", str(change.key), reason.text, before, after, code=reason.code)


def _failure_events(failures: Iterable[Failure], known: Collection[tuple[Change, Reason]]) -> Iterator[Event]:
    """One event for each failure that the last cycle did not have: a lasting one is reported once."""
    for failure in failures:
        if (failure.change, failure.reason) not in known:
            why = failure.reason
            level: Level = "warning" if why.code in OUTDATED else "error"
            yield Event("failure", str(failure.change), why.text, level=level, code=why.code)
