"""Routes and gateways: which routes can be served, and whether that is enough for the VIPs of their gateways.

A route is served if one of its pools is, for the requests to the others get 503 and no other node would do better; a
route that only redirects needs no pool. On its VIPs a gateway is one service among others, whose backends are routes:
so gates, damping, drains and the other nodes' reports hold for it as they stand.

Pure. Decision record: docs/decisions/0019-http-tier.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from anycastlb.core.decision.basis import Refusals
from anycastlb.core.decision.http.listening import Listening
from anycastlb.core.decision.judgement import Judgement
from anycastlb.core.decision.member import Member
from anycastlb.core.model import (
    Address,
    Backend,
    Condition,
    Gateway,
    GatewayVerdict,
    HttpRoute,
    PoolVerdict,
    Reason,
    RouteVerdict,
    Service,
    ServiceVerdict,
    SiteKey,
    VirtualService,
    on_vip,
)

NO_IPVS = VirtualService("wrr")
"""What stands where a service has its row in IPVS."""
SHARED = VirtualService("mh", frozenset({"mh-port", "mh-fallback"}))
"""The same connection goes to the same node, whichever node it comes to."""
SHOWN = 3
"""Routes that a reason names."""


def listener(gateway: Gateway, mark: int | None = None, nodes: tuple[Backend, ...] = ()) -> Service:
    """The gateway as a service on its VIPs. IPVS has no part in it, unless ``nodes`` share its connections: those that
    come in from outside have the firewall ``mark``."""
    shared = mark is not None and bool(nodes)
    return Service(
        name=on_vip(gateway.name),
        vips=gateway.vips,
        protocol="fwmark" if shared else "tcp",
        port=mark if mark is not None and shared else gateway.port,
        virtual=SHARED if shared else NO_IPVS,
        backends=nodes if shared else (),
        announce=gateway.announce,
        drain=gateway.drain,
    )


def judge_listener(
    service: Service, vip: Address, listening: Listening, refusal: Reason | None, nodes: tuple[Member, ...] = ()
) -> Judgement:
    """A gateway on one of its VIPs. ``refusal``: why HAProxy does not listen there. ``nodes``: those that share its
    connections, whose health decides about their weights and not about the gate."""
    verdict = listening.verdict
    reason, condition = verdict.reason, listening.condition
    if refusal is not None:
        reason, condition = Reason("refused", refusal.text), replace(condition, well=False, able=False)
    judged = ServiceVerdict(
        service=service.name,
        key=service.key(vip),
        open=verdict.open and refusal is None,
        up=verdict.up,
        total=len(verdict.routes),
        needed=verdict.needed,
        reason=reason,
        unsettled=listening.unsettled,
        returning=listening.returning,
        condition=condition,
    )
    return Judgement(service, vip, judged, nodes)


def judge_route(
    route: HttpRoute, pools: Mapping[str, PoolVerdict], gateways: Collection[str], refused: Refusals
) -> RouteVerdict:
    """``gateways``: the names of those that there are."""
    names = tuple(sorted(route.pools()))
    if refusal := _refusal(route, gateways, refused):
        return RouteVerdict(route.name, False, names, Reason("refused", refusal.text))
    if not names:
        return RouteVerdict(route.name, True, names, Reason("route_without_pools", "needs no pool"))
    served = [name for name in names if name in pools and pools[name].serves]
    words = "; ".join(f"{name}: {_why(pools.get(name))}" for name in names[:SHOWN])
    if len(names) > SHOWN:
        words += f"; and {len(names) - SHOWN} more"
    if not served:
        return RouteVerdict(route.name, False, names, Reason("pools_dead", f"no pool can be served: {words}"))
    if len(served) < len(names):
        text = f"{len(served)}/{len(names)} pools can be served: {words}"
        return RouteVerdict(route.name, True, names, Reason("pools_dead_in_part", text))
    return RouteVerdict(route.name, True, names, Reason("pools_up", words))


def judge_gateway(gateway: Gateway, routes: Sequence[tuple[HttpRoute, RouteVerdict]]) -> GatewayVerdict:
    """``routes``: its own."""
    served = sum(verdict.open for _, verdict in routes)
    critical = [verdict for route, verdict in routes if route.critical]
    needed = len(routes) if gateway.when == "all" else 1
    words = f"{served}/{len(routes)} routes can be served"
    names = tuple(route.name for route, _ in routes)
    is_open = served >= max(needed, 1)
    if gateway.when == "critical" and not all(verdict.open for verdict in critical):
        is_open, words = False, f"{words}, not every critical one"
    elif not is_open and routes:
        words += f", needs {needed}"
    if not routes:
        reason = Reason("no_routes", "no route names this gateway")
    elif is_open:
        reason = Reason("routes_served", words)
    else:
        dead = [verdict for _, verdict in routes if not verdict.open]
        dead.sort(key=lambda verdict: gateway.when == "critical" and verdict not in critical)
        more = "; ".join(f"{verdict.route}: {verdict.reason}" for verdict in dead[:SHOWN])
        reason = Reason("routes_dead", f"{words}: {more}", dead[0].route)
    if not is_open and routes and gateway.announce.fail == "keep":
        is_open, reason = True, reason.also("kept open (fail = keep)", "kept_fail_open")
    return GatewayVerdict(gateway.name, is_open, served, needed, names, reason)


def listening(verdict: GatewayVerdict, port: int, pools: Iterable[PoolVerdict]) -> Listening:
    """``pools``: those that the gateway's routes send requests to."""
    verdicts = [pool.verdict for pool in pools]
    conditions = [one.condition for one in verdicts]
    condition = Condition(
        well=verdict.open and verdict.reason.code != "kept_fail_open",
        dead=bool(conditions) and not verdict.up and all(one.dead for one in conditions),
        able=bool(verdict.routes) and (verdict.open or any(one.able for one in conditions)),
        cycle=max((one.cycle for one in conditions), default=0.0),
        recovery=max((one.recovery for one in conditions), default=0.0),
    )
    return Listening(
        verdict,
        port,
        unsettled=max((one.unsettled for one in verdicts), default=0.0),
        returning=max((one.returning for one in verdicts), default=0.0),
        condition=condition,
    )


def _why(pool: PoolVerdict | None) -> str:
    return "there is no such pool" if pool is None else str(pool.verdict.reason)


def _refusal(route: HttpRoute, gateways: Collection[str], refused: Refusals) -> Reason | None:
    """Why HAProxy does not have a hostname of the route."""
    if not refused:
        return None
    keys = (SiteKey(gateway, host) for gateway in route.gateways if gateway in gateways for host in route.hostnames)
    return next((refused[key] for key in keys if key in refused), None)
