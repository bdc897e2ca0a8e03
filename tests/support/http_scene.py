"""A node that serves a gateway, as one snapshot: what it decides by itself of the catalog of ``http_tree``."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from anycastlb.core.decision import decide
from anycastlb.core.model import (
    Change,
    CheckState,
    Failure,
    Feed,
    HttpCounters,
    Inputs,
    Memory,
    PassiveFailure,
    Policy,
    PoolCounters,
    Reason,
    SiteCounters,
    SiteKey,
    Snapshot,
)
from tests.support import scene
from tests.support.http_tree import CERTIFICATES, DOCUMENTS, read

NOW = scene.NOW
AWAY = Reason("haproxy_away", "HAProxy is not running: systemctl status anycastlb-haproxy")
UP = scene.told(*[(True, "HTTP 200", 0.003, 20.5 - 2 * n) for n in range(11)])
DOWN = scene.told(*[(False, "HTTP 503", 0.004, 9.0 - 2 * n) for n in range(4)])


def snapshot(down: set[str] = frozenset(), documents: dict[str, Any] = DOCUMENTS, http: bool = True) -> Snapshot:  # type: ignore[assignment]
    """All that is wanted is there. ``down``: the addresses of backends that fail their checks."""
    catalog = read(documents)
    health: dict[Any, CheckState] = {}
    for service in (*catalog.services, *catalog.pools):
        for backend in service.backends:
            vip = service.vips[0] if service.vips else None
            check = service.check(vip, backend) if vip else backend.check
            health[check] = DOWN if str(backend.address) in down else UP
    inputs = Inputs(
        Policy("lb1", http=http),
        catalog,
        Feed(True, NOW - 7300, loaded=True),
        health=health,
        certificates={name: f"{name}-fingerprint" for name in CERTIFICATES} if http else {},
    )
    decision = decide.decide(inputs, Memory(), NOW - 30)
    decision = decide.decide(inputs, decision.memory, NOW)
    return replace(scene.calm(), inputs=inputs, actual=decision.desired, decision=decision)


def failing() -> Snapshot:
    """The check of ``blog/b1`` passes, and it fails the requests of clients."""
    whole = snapshot()
    failure = PassiveFailure(NOW - 2, NOW + 3, "3 of 9 requests failed within 5 s")
    inputs = replace(whole.inputs, passive={"blog": {(ip_address("10.1.0.1"), 80): failure}})
    decision = decide.decide(inputs, whole.decision.memory, NOW)
    return replace(whole, inputs=inputs, actual=decision.desired, decision=decision)


def away() -> Snapshot:
    """HAProxy does not run: none of its rows is there, and one failure says why."""
    whole = snapshot()
    wanted = whole.decision.desired
    failure = Failure(Change("http_engine", "config", None, wanted.http_engine["config"]), AWAY)
    gone = replace(wanted, http_engine={}, http_certificates={}, http_servers={}, http_sites={}, routes={})
    inputs = replace(whole.inputs, failures=(failure,))
    decision = decide.decide(inputs, whole.decision.memory, NOW)
    return scene.waiting(replace(whole, inputs=inputs, actual=gone, decision=decision, failures=(failure,)))


async def counters() -> HttpCounters:
    """What HAProxy has counted; one hostname is that of a route which is no more."""
    counted = SiteCounters(12, 1200, 3400, (8, 1, 2, 1))
    sites = {SiteKey("web", host): counted for host in ("shop.example", "*.shop.example", "nobody.example")}
    return HttpCounters(sites, {name: PoolCounters(12, 1, 3, 2, 1, 4, 0.012) for name in ("blog", "blog-canary")})
