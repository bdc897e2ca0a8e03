"""Long histories of a node, in small steps: what is known changes a little, and the node decides again.

The catalogs are small and colliding: services share VIPs, backends and firewall marks, so that what concerns one
service concerns another now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

from hypothesis import strategies as st

from anycastlb.adapters.checks.tcp import Params
from anycastlb.core.decision import health
from anycastlb.core.decision.http.pools import checks_of_pool
from anycastlb.core.model import (
    Address,
    Announce,
    Backend,
    Catalog,
    Change,
    Check,
    Cluster,
    Damping,
    Failure,
    Inputs,
    Peer,
    Policy,
    Reason,
    Result,
    Service,
    ServiceSummary,
    Share,
    Spread,
    Status,
    VipSummary,
    VirtualService,
    on_vip,
)
from tests.support.http_tree import read

VIPS = [ip_address(f"192.0.2.{n}") for n in range(1, 5)]
NAMES = ("web", "api", "dns", "mail", "old")
BACKENDS = range(1, 6)
PAUSES = st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.5, 1.0, 3.0, 12.0, 70.0])
DAMPING = Damping(penalty=1000, half_life=5, suppress=1500, reuse=750, longest=60)


def check(number: int) -> Check:
    return Check("tcp", ip_address(f"10.0.0.{number}"), 80, (), 1, 1, 2, 2)


@st.composite
def backends(draw: st.DrawFn, number: int) -> Backend:
    return Backend(
        f"b{number}",
        ip_address(f"10.0.0.{number}"),
        80,
        check(number),
        weight=draw(st.sampled_from([100, 100, 100, 50, 0])),
        drain=draw(st.sampled_from([False] * 7 + [True])),
        override=draw(st.sampled_from([None] * 6 + [0, 20])),
        fallback=draw(st.sampled_from([False] * 6 + [True])),
        through=draw(st.sampled_from([False] * 6 + [True])),
    )


@st.composite
def announces(draw: st.DrawFn) -> Announce:
    return Announce(
        min_backends=draw(st.sampled_from([Share(1), Share(1), Share(2), Share(percent=50)])),
        reopen=draw(st.sampled_from([None, None, Share(2)])),
        when=draw(st.sampled_from(["any", "any", "all"])),
        fail=draw(st.sampled_from(["withdraw", "withdraw", "keep"])),
        last=draw(st.sampled_from(["withdraw", "withdraw", "keep"])),
        damping=draw(st.sampled_from([None, None, None, DAMPING])),
        hold_up=draw(st.sampled_from([0.0, 0.0, 0.0, 3.0])),
        hold_down=draw(st.sampled_from([0.0, 0.0, 0.0, 3.0])),
    )


@st.composite
def services(draw: st.DrawFn, name: str) -> Service:
    marked = draw(st.sampled_from([False] * 5 + [True]))
    return Service(
        name,
        tuple(draw(st.lists(st.sampled_from(VIPS), min_size=1, max_size=2, unique=True))),
        "fwmark" if marked else "tcp",
        7000 + NAMES.index(name) if marked else 80 + NAMES.index(name),
        VirtualService(draw(st.sampled_from(["mh", "mh", "wrr"]))),
        tuple(draw(backends(n)) for n in draw(st.lists(st.sampled_from(BACKENDS), max_size=4, unique=True))),
        draw(announces()),
        drain=draw(st.sampled_from([0.0, 2.0, 10.0])),
        slow_start=draw(st.sampled_from([0.0, 0.0, 5.0])),
        slow_start_by_history=draw(st.sampled_from([False] * 7 + [True])),
        max_failed=draw(st.sampled_from([None, None, None, Share(1), Share(percent=50)])),
    )


def http_catalogs() -> list[Catalog]:
    """Gateways, routes and pools that follow each other."""
    gateway: dict[str, Any] = {"vip": str(VIPS[0]), "port": 443, "protocol": "http", "drain": "10s"}
    pool = {"port": 80, "backends": {f"b{n}": {"address": f"10.0.0.{n}"} for n in (1, 2)}}
    route = {"gateways": ["g1"], "hostnames": ["a.example"], "rules": [{"backendRefs": [{"name": "blog"}]}]}
    split = {**route, "rules": [{"backendRefs": [{"name": "blog"}, {"name": "img"}]}]}
    redirect = {"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}]}
    redirected = {**route, "hostnames": ["b.example"], "rules": [redirect]}
    of_pools = {"gateways/g1": gateway, "routes/a": route, "services/blog": pool}
    more = {"services/img": {**pool, "port": 81}, "routes/a": split, "routes/b": redirected}
    two = {**gateway, "vip": [str(VIPS[1]), str(VIPS[2])], "announce": {"when": "all"}}
    both = {"gateways/g2": two, "routes/b": {**redirected, "gateways": ["g1", "g2"]}}
    alone = {"gateways/g1": {**gateway, "spread": "none"}}
    made = [read(given) for given in ({}, of_pools, of_pools | more, of_pools | more | both, of_pools | alone)]
    problems = [problem for one in made for problem in one.problems]
    assert not problems, problems
    return made


HTTP_CATALOGS = http_catalogs()
SPREAD = Spread(ip_address("10.9.0.1"), ("eth0",), (70, 71), Check("tcp", VIPS[0], 0, Params(), 1, 1, 2, 2))


@dataclass
class World:
    """What is known at the moment of the next decision."""

    inputs: Inputs
    now: float = 1000.0
    wake_at: float | None = None
    """When the last decision asked to be made again."""
    wanted: Mapping[Any, Any] = field(default_factory=dict)
    """The rows that the last decision asked for, by table and key."""
    sharing: tuple[Service, ...] = ()
    """The gateways, as services, whose connections the last decision shared among nodes."""

    def put(self, **fields: Any) -> None:
        self.inputs = replace(self.inputs, **fields)

    def edit(self, services: dict[str, Service]) -> None:
        self.put(catalog=replace(self.inputs.catalog, services=tuple(services.values())))

    @property
    def services(self) -> dict[str, Service]:
        return {service.name: service for service in self.inputs.catalog.services}

    @property
    def checks(self) -> list[Check]:
        """Of every backend on every VIP, through IPVS or not."""
        standing = (*self.inputs.catalog.services, *self.sharing)
        found = [s.check(v, b) for s in standing for v in s.vips for b in s.members(v)]
        found += [one for pool in self.inputs.catalog.pools for one in checks_of_pool(pool)]
        return list(dict.fromkeys(found))


Step = Callable[[World], None]


def _put_service(service: Service) -> Step:
    return lambda world: world.edit({**world.services, service.name: service})


def _put_http(number: int) -> Step:
    made = HTTP_CATALOGS[number]
    parts = {"gateways": made.gateways, "routes": made.routes, "pools": made.pools}
    return lambda world: world.put(catalog=replace(world.inputs.catalog, **parts))


def _delete_service(name: str) -> Step:
    return lambda world: world.edit({n: s for n, s in world.services.items() if n != name})


def _read_again(world: World) -> None:
    """The same documents are parsed once more: equal, but other objects."""
    world.edit({name: replace(s, backends=tuple(replace(b) for b in s.backends)) for name, s in world.services.items()})


def _reorder(world: World) -> None:
    world.edit(dict(reversed(world.services.items())))


def _results(ok: bool, of: frozenset[int], detail: str) -> Step:
    """Some checks have another result."""

    def step(world: World) -> None:
        states = {c: s for c, s in world.inputs.health.items() if c in world.checks}
        for number, one in enumerate(world.checks):
            if number % 7 in of:
                last = Result(ok, detail, 0.01, world.now, weight=50 if detail == "half" else None)
                states[one] = health.step(states.get(one, health.UNKNOWN), last, one.rise, one.fall)
        world.put(health=states)

    return step


def _forget(world: World) -> None:
    """Every check begins anew."""
    world.put(health={})


def _refuse(number: int) -> Step:
    """The machine refuses to create something that was asked for; with 0, it refuses nothing any more."""

    def step(world: World) -> None:
        rows = list(world.wanted)
        refused = [rows[number * 7 % len(rows)]] if number and rows else []
        why = Reason("kernel_refused", "no memory")
        world.put(
            failures=tuple(Failure(Change(table, key, None, world.wanted[table, key]), why) for table, key in refused)
        )

    return step


def _idle(world: World) -> None:
    world.put(idle=frozenset(key for table, key in world.wanted if table == "destinations"))


def _peer(vips: frozenset[Address], dead: bool, connected: bool) -> Step:
    def step(world: World) -> None:
        catalog = world.inputs.catalog
        standing = {s.name: s.vips for s in catalog.services} | {on_vip(g.name): g.vips for g in catalog.gateways}
        summary = ServiceSummary(open=not dead, up=0 if dead else 2, total=2, dead=dead)
        names = {name: dict.fromkeys(of_service, summary) for name, of_service in standing.items()}
        own = "ill" if dead else "well"
        seen = {vip: VipSummary(open=not dead, announced=not dead, own=own) for vip in vips}  # type: ignore[arg-type]
        status = Status("lb2", ready=True, vips=seen, services=names, gateway_address=ip_address("10.9.0.2"))
        world.put(cluster=Cluster(follows=True, connected=connected, peers={"lb2": Peer("lb2", True, status)}))

    return step


def _drain(on: bool) -> Step:
    drained = frozenset({"lb1"}) if on else frozenset()
    return lambda world: world.put(catalog=replace(world.inputs.catalog, drained=drained))


def _pass(seconds: float) -> Step:
    def step(world: World) -> None:
        world.now += seconds

    return step


def _wake(world: World) -> None:
    if world.wake_at is not None:
        world.now = max(world.now, world.wake_at)


def _almost_wake(world: World) -> None:
    if world.wake_at is not None:
        world.now = max(world.now, world.wake_at - 0.01)


SUBSETS = st.sampled_from([frozenset({n}) for n in range(7)] + [frozenset({1, 3, 5}), frozenset(range(7))])
STEPS: st.SearchStrategy[Step] = st.one_of(
    PAUSES.map(_pass),
    st.just(_wake),
    st.just(_almost_wake),
    st.builds(_results, st.just(True), SUBSETS, st.sampled_from(["connected", "connected", "half"])),
    st.builds(_results, st.booleans(), SUBSETS, st.just("seen")),
    st.builds(_results, st.just(False), SUBSETS, st.just("refused")),
    st.sampled_from(NAMES).flatmap(services).map(_put_service),
    st.sampled_from(NAMES).flatmap(services).map(_put_service),
    st.sampled_from(NAMES).map(_delete_service),
    st.sampled_from([_read_again, _reorder, _forget, _idle]),
    st.sampled_from([0, 0, 1, 2, 3]).map(_refuse),
    st.builds(_peer, st.frozensets(st.sampled_from(VIPS)), st.booleans(), st.sampled_from([True, True, False])),
    st.sampled_from([False, False, False, True]).map(_drain),
    st.sampled_from(range(len(HTTP_CATALOGS))).map(_put_http),
)


@st.composite
def histories(draw: st.DrawFn, length: int = 40) -> tuple[Inputs, list[Step]]:
    """What is known at the start, and what happens then, one step before each decision."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    catalog = Catalog(tuple(draw(services(name)) for name in names))
    limit = draw(st.sampled_from([None, None, Share(1)]))
    steps = draw(st.lists(STEPS, min_size=3, max_size=length))
    http, spread = draw(st.sampled_from([(False, None), (True, None), (True, SPREAD)]))
    return Inputs(Policy("lb1", max_withdrawals=limit, http=http, spread=spread), catalog, wall=1e9), steps


def moments(inputs: Inputs, steps: list[Step]) -> Iterator[World]:
    """The world before each decision; whoever decides leaves ``wake_at`` and ``wanted``."""
    world = World(inputs)
    yield world
    for step in steps:
        step(world)
        yield world
