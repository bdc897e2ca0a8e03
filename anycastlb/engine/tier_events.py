"""The events about gateways, routes and pools: which can be served from now on, and which cannot. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from anycastlb.core.decision.http.passive import FAILED
from anycastlb.core.events import Event, Level
from anycastlb.core.http.names import original
from anycastlb.core.model import NO_REASON, GatewayVerdict, HttpServerKey, HttpVerdicts, Reason, RouteVerdict


def tier_events(before: HttpVerdicts, after: HttpVerdicts) -> Iterator[Event]:
    """One event for each that is new, or that opened or closed."""
    for turn in _turned(_pools(before), _pools(after)):
        yield Event("pool", turn.name, turn.why.text, turn.before, turn.after, turn.level, code=turn.why.code)
    yield from _passive_events(before, after)
    for turn in _turned(_states(before.routes), _states(after.routes)):
        yield Event("route", turn.name, turn.why.text, turn.before, turn.after, turn.level, code=turn.why.code)
    for turn in _turned(_states(before.gateways), _states(after.gateways)):
        yield Event("gateway", turn.name, turn.why.text, turn.before, turn.after, turn.level, code=turn.why.code)


State: TypeAlias = tuple[bool, Reason]
WORDS = {None: "", True: "open", False: "closed"}


class Turn(NamedTuple):
    name: str
    before: str
    after: str
    why: Reason
    level: Level


def _states(verdicts: Mapping[str, RouteVerdict] | Mapping[str, GatewayVerdict]) -> dict[str, State]:
    return {name: (verdict.open, verdict.reason) for name, verdict in verdicts.items()}


def _pools(verdicts: HttpVerdicts) -> dict[str, State]:
    return {name: (pool.serves, pool.verdict.reason) for name, pool in verdicts.pools.items()}


def _turned(before: Mapping[str, State], after: Mapping[str, State]) -> Iterator[Turn]:
    for name, (is_open, why) in after.items():
        was, _ = before.get(name, (None, NO_REASON))
        if was != is_open:
            yield Turn(name, WORDS[was], WORDS[is_open], why, "info" if is_open else "warning")


def _passive_events(before: HttpVerdicts, after: HttpVerdicts) -> Iterator[Event]:
    """One for each backend that is out from now on because of its requests, and one when it is in again."""
    for name, pool in after.pools.items():
        if (known := before.pools.get(name)) is pool:
            continue
        for backend, verdict in pool.backends.items():
            old = known.backends.get(backend) if known else None
            was, now = (one is not None and one.reason.code == FAILED for one in (old, verdict))
            if was != now:
                why, words = verdict.reason, ("in", "out")
                level: Level = "warning" if now else "info"
                yield Event("passive", f"{name}/{backend}", why.text, words[was], words[now], level, code=why.code)


def server_reason(key: HttpServerKey, verdicts: HttpVerdicts) -> Reason:
    """Why HAProxy has the backend of a pool as it has; ``NO_REASON`` of one that leaves."""
    pool = verdicts.pools.get(original(key.section))
    backend = pool.backends.get(original(key.server)) if pool else None
    return backend.reason if backend else NO_REASON
