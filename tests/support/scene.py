"""A node in trouble, as one hand-made snapshot: every state an operator can meet stands in it once."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.decision import decide, health, plan
from anycastlb.core.model import (
    Announce,
    Backend,
    BackendVerdict,
    Catalog,
    Change,
    Check,
    CheckState,
    Decision,
    Destination,
    DestinationKey,
    Entry,
    Failure,
    Feed,
    Inputs,
    Leaving,
    Memory,
    Policy,
    Problem,
    Reason,
    Result,
    Route,
    Service,
    ServiceKey,
    ServiceVerdict,
    Session,
    Share,
    Shrink,
    Snapshot,
    Speaker,
    State,
    Tree,
    Verdict,
    VipAddress,
    VirtualService,
    Weights,
)

NOW = 10_000.0
WALL = 1_800_000_000.0
SOURCE = "consul http://127.0.0.1:8500 anycastlb/"
WEB4, WEB6 = ip_address("192.0.2.10"), ip_address("2001:db8:ffff::10")
DNS, MAIL, GONE = ip_address("192.0.2.11"), ip_address("192.0.2.12"), ip_address("192.0.2.13")
MH = VirtualService("mh", frozenset({"mh-port", "mh-fallback"}))


def backend(name: str, address: str, port: int, weight: int = 100, kind: str = "http") -> Backend:
    target = ip_address(address)
    return Backend(name, target, port, Check(kind, target, port, (), 2.0, 1.0, 2, 3), weight)


def seen(ok: bool, detail: str, took: float, ago: float, since: float = 200.0, streak: int = 0, up: bool | None = None):
    return CheckState(ok if up is None else up, streak, NOW - since, Result(ok, detail, took, NOW - ago))


def told(*results: tuple[bool, str, float, float]) -> CheckState:
    """The state after these results (ok, detail, seconds it took, seconds ago), with rise 2 and fall 3."""
    state = CheckState()
    for ok, detail, took, ago in results:
        state = health.step(state, Result(ok, detail, took, NOW - ago), 2, 3)
    return state


WEB = Service(
    "web",
    (WEB4, WEB6),
    "tcp",
    80,
    MH,
    (
        backend("web1", "10.1.0.1", 80),
        backend("web2", "10.1.0.2", 8080),
        backend("web3", "10.1.0.3", 80, 50),
        backend("web1-v6", "2001:db8:1:2:3:4:5:6", 80),
        backend("web2-v6", "2001:db8:1::2", 8080),
    ),
)
RESOLVER = Service(
    "dns",
    (DNS,),
    "udp",
    53,
    VirtualService("mh", frozenset({"mh-port"}), one_packet=True),
    tuple(backend(f"dns{n}", f"10.2.0.{n}", 53, kind="tcp") for n in (1, 2, 3, 4)),
    Announce(min_backends=Share(2)),
)
SMTP = Service("mail", (MAIL,), "tcp", 25, VirtualService("wlc"), (backend("mx", "10.3.0.1", 25, kind="none"),))

HEALTH = {
    WEB.backends[0].check: seen(True, "HTTP 200", 0.003, 1.0),
    WEB.backends[1].check: seen(True, "HTTP 200", 0.0123, 0.5, since=4.0),
    WEB.backends[2].check: seen(False, "connection refused", 0.0004, 1.2, since=12.0),
    WEB.backends[3].check: seen(True, "HTTP 200", 0.0021, 1.0, since=90_000.0),
    WEB.backends[4].check: seen(False, "HTTP 503, expected 200", 0.004, 0.2, streak=1, up=True),
    RESOLVER.backends[0].check: seen(True, "connected", 0.0008, 1.0),
    RESOLVER.backends[1].check: seen(True, "connected", 0.0009, 0.1, since=30.0, streak=1, up=False),
    RESOLVER.backends[2].check: seen(False, "timed out after 1 s", 1.0, 2.0, since=30.0),
}


NOTES = {
    "HTTP 200; slow start: 30%": ("slow start: 30%",),
    "not checked yet": ("not checked yet",),
    "not checked": ("not checked",),
}


def verdicts() -> tuple[dict[DestinationKey, BackendVerdict], dict[DestinationKey, Destination]]:
    """The judged backends, and the kernel's rows for those it has."""
    told = {
        ("web", WEB4): [
            (True, 100, "HTTP 200"),
            (True, 30, "HTTP 200; slow start: 30%"),
            (False, 0, "down: connection refused"),
        ],
        ("web", WEB6): [(True, 100, "HTTP 200"), (True, 100, "HTTP 503, expected 200")],
        ("dns", DNS): [
            (True, 100, "connected"),
            (False, 0, "down: connected"),
            (False, 0, "down: timed out after 1 s"),
            (False, 0, "not checked yet"),
        ],
        ("mail", MAIL): [(True, 100, "not checked")],
    }
    judged, rows = {}, {}
    for service in (WEB, RESOLVER, SMTP):
        for vip in service.vips:
            for member, (up, weight, reason) in zip(service.members(vip), told[service.name, vip], strict=True):
                key = DestinationKey(service.key(vip), member.address, member.port)
                why = Reason("check_passed" if up else "check_failed", reason)
                parts = Weights(member.weight, None, float(up), weight / member.weight if weight else 1.0)
                judged[key] = BackendVerdict(service.name, member.name, up, weight, why, parts, NOTES.get(reason, ()))
                rows[key] = Destination("tunnel", weight, member.weight)
    return judged, rows


BACKENDS, ROWS = verdicts()
LEFT = DestinationKey(WEB.key(WEB4), ip_address("10.1.0.9"), 80)
OLD = ServiceKey("tcp", GONE, 443)
REFUSED = Reason("kernel_refused", "no memory for another service (ENOMEM); free some memory")


def judged(service: Service, vip, up: int, needed: int = 1, reason: str = "") -> ServiceVerdict:
    total = len(service.members(vip))
    told = reason or f"{up}/{total} backends up" + (f", needs {needed}" if up < needed else "")
    why = Reason("backends_up" if up >= needed and not reason else "too_few_backends", told)
    return ServiceVerdict(service.name, service.key(vip), up >= needed and not reason, up, total, needed, why)


def waiting(snapshot: Snapshot) -> Snapshot:
    """The snapshot with what is still to be changed in it, as the reconciler leaves it."""
    return replace(snapshot, pending=plan.diff(snapshot.actual, snapshot.decision.desired))


def trouble() -> Snapshot:
    """Everything at once: open, closed, rejected and leaving VIPs, a bad document, a refusal, a held catalog."""
    web4, web6 = judged(WEB, WEB4, 2), judged(WEB, WEB6, 2)
    dns, mail = judged(RESOLVER, DNS, 1, 2), judged(SMTP, MAIL, 1)
    failed = Change("services", SMTP.key(MAIL), None, SMTP.virtual)
    routes = {WEB4: Route(communities=("65001:100",), med=10), WEB6: Route()}
    desired = State(
        addresses={vip: VipAddress() for vip in (WEB4, WEB6, DNS, MAIL, GONE)},
        services={service.key(vip): service.virtual for service in (WEB, RESOLVER, SMTP) for vip in service.vips}
        | {OLD: MH},
        destinations={**ROWS, LEFT: Destination("tunnel", 0, 100)},
        routes={**routes, MAIL: Route()},
    )
    late = list(ROWS)[2]
    rows = {key: row for key, row in desired.destinations.items() if key.service != SMTP.key(MAIL)}
    snapshot = Snapshot(
        inputs=Inputs(
            Policy("lb1"),
            catalog=Catalog(
                services=(RESOLVER, SMTP, WEB),
                problems=(Problem("services/api", "backends.api1.weight", "expected a whole number, not 'heavy'"),),
                index=4711,
            ),
            feed=Feed(True, NOW - 7300, loaded=True, held=Shrink((DNS, MAIL), 4, NOW - 30, NOW + 270)),
            health=HEALTH,
        ),
        actual=State(
            addresses=desired.addresses,
            services={key: row for key, row in desired.services.items() if key != SMTP.key(MAIL)},
            destinations={**rows, late: replace(ROWS[late], weight=50)},
            routes=routes,
        ),
        decision=Decision(
            desired=desired,
            memory=Memory(
                leaving={
                    ("addresses", GONE): Leaving(VipAddress(), NOW + 12),
                    ("services", OLD): Leaving(MH, NOW + 12),
                    ("destinations", LEFT): Leaving(Destination("tunnel", 0, 100), NOW + 29.5),
                }
            ),
            verdicts={
                WEB4: Verdict(WEB4, True, web4.reason, NOW - 7200, (web4,)),
                WEB6: Verdict(WEB6, True, web6.reason, NOW - 7200, (web6,)),
                DNS: Verdict(DNS, False, dns.reason, NOW - 12, (dns,)),
                MAIL: Verdict(MAIL, True, mail.reason, NOW - 40, (mail,)),
            },
            backends=BACKENDS,
        ),
        plan=(failed,),
        failures=(Failure(failed, REFUSED),),
        speaker=Speaker(
            True,
            "5.0.15",
            (
                Session("10.0.0.1", "up", NOW - 7200),
                Session("2001:db8:0:1::1", "down", NOW - 12, "hold timer expired"),
            ),
            {MAIL: "192.0.2.12/32 lies outside vip_ranges"},
        ),
        at=NOW,
        at_wall=WALL,
        cycle=42,
    )
    return waiting(snapshot)


def calm() -> Snapshot:
    """A node that serves one VIP and has nothing to complain about."""
    snapshot = trouble()
    catalog = Catalog((replace(WEB, vips=(WEB4,)),), index=4712)
    verdict = snapshot.decision.verdicts[WEB4]
    members = {key: row for key, row in BACKENDS.items() if key.service == WEB.key(WEB4)}
    state = State(
        addresses={WEB4: VipAddress()},
        services={WEB.key(WEB4): MH},
        destinations={key: ROWS[key] for key in members},
        routes={WEB4: Route()},
    )
    return replace(
        snapshot,
        inputs=replace(snapshot.inputs, catalog=catalog, feed=Feed(True, NOW - 7300, loaded=True)),
        actual=state,
        decision=Decision(state, verdicts={WEB4: verdict}, backends=members),
        plan=(),
        failures=(),
        pending=(),
        speaker=replace(snapshot.speaker, rejected={}, sessions=(Session("10.0.0.1", "up", NOW - 7200),)),
    )


SHOP4 = ip_address("192.0.2.20")
SHOP = {
    "vip": str(SHOP4),
    "port": 80,
    "check": {"type": "http", "via": "forward", "fast_interval": "200ms", "down_interval": "30s"},
    "backends": {
        "s1": {"address": "10.4.0.1"},
        "s2": {"address": "10.4.0.2", "override": 40},
        "s3": {"address": "10.4.0.3", "weight": 93, "check": {"via": "direct"}},
        "s4": {"address": "10.4.0.4", "drain": True},
        "s5": {"address": "10.4.0.5"},
        "s6": {"address": "10.4.0.6"},
        "sorry": {"address": "10.4.0.9", "fallback": True, "check": {"type": "none", "via": "direct"}},
    },
    "max_failed": 1,
    "slow_start": "20s",
    "announce": {
        "min_backends": 2,
        "reopen": 3,
        "fallback": "withdraw",
        "damping": {"penalty": 1000, "suppress": 1500, "half_life": "1m", "longest": "10m"},
    },
}
"""A service that asks for everything at once."""


def subtle(flaps: int = 1) -> Snapshot:
    """What a node decides by itself of ``SHOP`` after so many flaps."""
    catalog = parse_catalog(
        Tree({"services/shop": Entry(json.dumps(SHOP).encode())}), Catalog(), (ip_network("192.0.2.0/24"),), (), PARAMS
    )
    (shop,) = catalog.services
    check = {backend.name: shop.check(SHOP4, backend) for backend in shop.backends}
    good = [(True, "HTTP 200", 0.003 + n / 1000, 20.5 - 2 * n) for n in range(11)]
    asking = replace(told(*good), asks=(50, False))
    dead = [(False, "no route to host", 0.0007, 9.0 - 2 * n) for n in range(4)]
    states = {
        check["s1"]: told((False, "HTTP 503", 0.004, 7300.0), (True, "HTTP 200", 0.02, 90.0), *good),
        check["s2"]: told(*good, (False, "no answer within 1 s", 1.0, 0.2)),
        check["s3"]: asking,
        check["s4"]: told(*good),
        check["s5"]: told(*dead),
        check["s6"]: told(*good[:3], *dead),
        check["sorry"]: told((True, "not checked (type none)", 0.0, 100.0)),
    }
    inputs = Inputs(Policy("lb1"), catalog, Feed(True, NOW - 7300, loaded=True))
    lost = {key: replace(state, up=False) for key, state in states.items() if key != check["sorry"]}
    memory = Memory()
    steps = [(400.0, states)]
    for flap in range(flaps):
        steps += [(9.5 - flap, lost), (9.0 - flap, states)]
    for ago, health_then in [*steps, (0.0, states)]:
        decision = decide.decide(replace(inputs, health=health_then), memory, NOW - ago)
        memory = decision.memory
    s4 = DestinationKey(shop.key(SHOP4), ip_address("10.4.0.4"), 80)
    leaving = {("destinations", s4): Leaving(Destination("tunnel", 0, 100), NOW + 12)}
    decision = replace(decision, memory=replace(memory, leaving=leaving))
    snapshot = replace(
        calm(),
        inputs=replace(inputs, health=states),
        actual=replace(
            decision.desired, destinations={**decision.desired.destinations, s4: Destination("tunnel", 0, 100)}
        ),
        decision=decision,
    )
    return waiting(snapshot)
