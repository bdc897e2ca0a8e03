"""One or two whole nodes on the fakes, to which Hypothesis does what operators, backends, kernels and Consul can do.

The observer of a node checks at every single write, look and heartbeat; the machine checks after every step and,
once everything works again, that all is as it should be.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from ipaddress import ip_address
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from anycastlb.adapters.cluster.memory import MemoryRegistry
from anycastlb.core.model import Address, Catalog, Change, DriverError, Service, Session, Table
from anycastlb.engine.node import Node
from tests.support.virtual import VirtualLoop
from tests.support.world import World

KERNEL: tuple[Table, ...] = ("addresses", "services", "destinations")
VIPS = ["192.0.2.10", "192.0.2.11", "192.0.2.12"]
BACKENDS = [f"10.1.0.{n}" for n in range(1, 6)]
CHECK = {"type": "tcp", "interval": "2s", "timeout": "500ms", "rise": 2, "fall": 3}
CATALOG = '[catalog]\nmax_shrink = "100%"\nconfirm = "3s"\n'
KNOWN = 22.0
"""Seconds after which the checks have surely seen that a backend turned, and every hold is over, by slow looks too."""
SILENCE = 4.0
"""Seconds between two heartbeats, at most: half of what the service manager waits."""
PAUSE = 1.2
"""Seconds from the end of a look that failed to the beginning of the next one, at most."""
LOOKS = 40
"""Looks at the kernel in a second, at most, whatever happens."""
QUIET_LOOKS = 1
"""The same while nothing happens."""
SETTLED = 130.0
FIRST: Mapping[str, Any] = {
    "vip": VIPS[:2],
    "port": 80,
    "drain": "3s",
    "backends": {f"n{n}": {"address": f"10.1.0.{n}"} for n in range(1, 4)},
}
"""With this service, which is healthy, every history begins."""
DISTANCE = 0.25
"""As of the registry of Consul."""
GOSSIP = 5.0
"""Seconds after which a node surely knows what another one has published."""
SETTLE = 55.0
"""For so long a drain surely waits that would take the last route: [drain] settle is 60 s."""
PEER = "198.51.100.1"
"""The router of every node."""

announcements = st.fixed_dictionaries(
    {},
    optional={
        "when": st.sampled_from(["any", "all"]),
        "fail": st.sampled_from(["withdraw", "keep"]),
        "last": st.sampled_from(["withdraw", "keep"]),
        "hold_down": st.sampled_from(["0s", "4s"]),
        "hold_up": st.sampled_from(["0s", "2s"]),
        "damping": st.just({}),
        "min_backends": st.sampled_from([1, 2, "50%"]),
    },
)
documents = st.fixed_dictionaries(
    {
        "vip": st.lists(st.sampled_from(VIPS), min_size=1, max_size=2, unique=True),
        "port": st.sampled_from([80, 443]),
        "drain": st.sampled_from(["0s", "3s", "10s"]),
        "backends": st.lists(st.sampled_from(BACKENDS), max_size=4, unique=True).map(
            lambda some: {f"n{address[-1]}": {"address": address} for address in some}
        ),
    },
    optional={
        "scheduler": st.sampled_from(["mh", "wrr"]),
        "protocol": st.sampled_from(["tcp", "udp"]),
        "slow_start": st.sampled_from(["0s", "5s"]),
        "max_failed": st.sampled_from([1, "50%"]),
        "announce": announcements,
    },
)
names = st.sampled_from(["a", "b", "c"])
nodes = st.integers(0, 1)


class Observer:
    """Watches one node from outside: what it must never do, and when it had a reason to withdraw."""

    def __init__(self, world: World, complain: Callable[[str], None], now: Callable[[], float]) -> None:
        self.world, self._complain, self._now = world, complain, now
        self.blind = False
        """The kernel cannot be read."""
        self.errors: dict[str, int] = {}
        """How many of the next calls fail, by what is called."""
        self.share = 0.0
        """This share of all calls fails."""
        self.refuses = False
        """The kernel refuses new services."""
        self.leaves = False
        """Operators want this node to announce nothing."""
        self.leaves_since = inf
        self.slow = 0.0
        """So many seconds more a look at the kernel takes."""
        self._starting = False
        """Its daemon has not proven yet that it lives."""
        self._failing_since: float | None = None
        """When the first of the looks began that could not read the kernel."""
        self.company: list[Observer] = []
        """The other nodes."""
        self.unreachable_since = dict.fromkeys(map(ip_address, VIPS), -inf)
        """Since when the router has had no route from here; infinity while it has one."""
        self.looks = 0
        self._catalog = Catalog()
        self._turned: dict[str, float] = dict.fromkeys(BACKENDS, -inf)
        self._unsound: dict[Address, float] = {}
        """Until when each VIP had a reason to be withdrawn; infinity: it has one now."""
        self._heartbeat_due = inf
        self._wrap()

    def _wrap(self) -> None:
        kernel, router = self.world.kernel, self.world.router
        for holder, name, what in (
            (kernel, "observe", "look"),
            (kernel, "apply", "write"),
            (kernel, "unused", "connections"),
            (router, "apply", "announce"),
            (router, "observe", "routes"),
            (self.world, "_counters", "counters"),
        ):
            setattr(holder, name, self._failing(getattr(holder, name), what))
        for driver in (kernel, router):
            driver._write = self._watched(driver._write)
        router.beat = self._heard(router.beat)
        router.sessions = (Session(PEER, "up", 0.0, ""),)
        kernel.refuse = lambda change: (
            "no such scheduler" if self.refuses and change.verb == "create" and change.table == "services" else None
        )
        self.world.on_catalog = self._learn

    # ---------------------------------------------------------------- what the rules do

    def turn(self, address: str, dead: bool) -> None:
        if dead != (address in self.world.dead):
            (self.world.dead.add if dead else self.world.dead.discard)(address)
            self._turned[address] = self._now()
            self.review()

    def heal(self) -> None:
        """Its machine works."""
        self.see(True)
        self.errors.clear()
        self.refuses, self.share, self.slow = False, 0.0, 0.0
        self.world.kernel.omits = lambda table, key: False
        self.review()

    def see(self, on: bool) -> None:
        if on and self.blind:
            self._heartbeat_due = self._now() + SILENCE
        self.blind = not on

    def started(self) -> None:
        """The first look is taken twice."""
        self._starting = True
        self._heartbeat_due = self._now() + SILENCE + 2 * self.slow

    def look_slowly(self, seconds: float) -> None:
        """From the next look on."""
        if self._starting:  # its first look is still to come
            self._heartbeat_due += 2 * max(0.0, seconds - self.slow)
        elif self._failing_since is not None:
            self._heartbeat_due += max(0.0, seconds - self.slow)
        self.slow = seconds

    def stopped(self) -> None:
        self._heartbeat_due = inf

    def forgets(self) -> None:
        """A daemon starts that knows no more than the kernel shows.

        Where all rows of a VIP that are left have no weight, it must take the backends for dead: nothing tells them
        apart from those that an edit has brought, while somebody deleted the ones that served meanwhile.
        """
        rows = self.world.kernel.rows["destinations"]
        for vip in self._unsound:
            weights = [row.weight for key, row in rows.items() if key.service.address == vip]
            if weights and not any(weights):
                self._unsound[vip] = max(self._unsound[vip], self._now() + KNOWN)

    def omit(self, looks: int, table: Table, places: set[int]) -> None:
        """The next looks leave out these rows of a table."""
        last = self.looks + looks
        hidden = {key for place, key in enumerate(self.world.kernel.rows[table]) if place in places}
        self.world.kernel.omits = lambda of, key: of == table and key in hidden and self.looks <= last

    def session(self, up: bool) -> None:
        """Its only BGP session comes up, or goes down."""
        if up != self.reaches:
            reason = "" if up else "the peer has closed it"
            self.world.router.sessions = (Session(PEER, "up" if up else "down", self._now(), reason),)
            self.note_routes()

    # ---------------------------------------------------------------- the last route

    @property
    def reaches(self) -> bool:
        """Does what it announces reach its router?"""
        return self.world.router.sessions[0].state == "up"

    def carries(self, vip: Address) -> bool:
        return self.reaches and vip in self.world.announced

    def note_routes(self) -> None:
        """Routes have come or gone at the router."""
        for vip, since in self.unreachable_since.items():
            if self.carries(vip):
                self.unreachable_since[vip] = inf
            elif since == inf:
                self.unreachable_since[vip] = self._now()

    def _takes_last_route(self, vip: Address) -> bool:
        """Has a drain that had to wait withdrawn the only route of a VIP that is served well?"""
        now = self._now()
        absent = all(now - other.unreachable_since[vip] > GOSSIP for other in self.company)
        early = GOSSIP < now - self.leaves_since < SETTLE
        services = self.services(vip)  # a VIP that nobody asks for any more leaves at once
        healthy = bool(services) and all(map(self._healthy, services))
        return bool(self.company) and self.reaches and absent and early and healthy

    # ---------------------------------------------------------------- no needless outage

    def _learn(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.review()

    def services(self, vip: Address) -> list[Service]:
        return [service for service in self._catalog.services if vip in service.vips]

    def sound(self, vip: Address) -> bool:
        """Is there every reason to announce it?"""
        services = self.services(vip)
        return bool(services) and all(self._healthy(s) for s in services) and not self.leaves and not self.refuses

    def _healthy(self, service: Service) -> bool:
        total, least = len(service.backends), service.announce.min_backends
        alive = all(str(backend.address) not in self.world.dead for backend in service.backends)
        return total > 0 and alive and (least.weight is not None or total >= least.of(total))

    def enough(self, vip: Address) -> bool:
        """Do so many of its backends live that it may be announced?"""
        services = [(service, self._open(service)) for service in self.services(vip)]
        return any(good for _, good in services) and all(good for s, good in services if s.announce.when == "all")

    def _open(self, service: Service) -> bool:
        total, rules = len(service.backends), service.announce
        alive = sum(str(backend.address) not in self.world.dead for backend in service.backends)
        return alive >= rules.min_backends.of(total) if alive or not total else rules.fail == "keep"

    def guarded(self, vip: Address) -> bool:
        """Is its last route kept?"""
        return any(service.announce.last == "keep" for service in self.services(vip))

    def review(self) -> None:
        """Something that is a reason to withdraw may have come or gone."""
        for vip in map(ip_address, VIPS):
            if not self.sound(vip) or self.share:
                self._unsound[vip] = inf
                continue
            turned = [self._turned[str(b.address)] for s in self.services(vip) for b in s.backends]
            before = self._unsound.get(vip, inf)
            since = self._now() + KNOWN if before == inf else before
            self._unsound[vip] = max(since, *(moment + KNOWN for moment in turned))

    # ---------------------------------------------------------------- every single write

    def _watched(self, write: Callable[[Change], None]) -> Callable[[Change], None]:
        def watched(change: Change) -> None:
            dying = change.table == "destinations" and str(change.key.address) in self.world.dead
            before = {vip for vip in self.world.announced if self.hole(vip) or dying}
            write(change)
            withdrawn = change.table == "routes" and change.new is None
            if withdrawn and self._now() > self._unsound.get(change.key, inf):
                self._complain(f"{change} although every backend is alive")
            if withdrawn and self._takes_last_route(change.key):
                self._complain(f"{change} by a drain, although no router has another route")
            self.note_routes()
            for vip in self.world.announced - before:
                if why := self.hole(vip):
                    self._complain(f"{change} makes a black hole: {vip} is announced and {why}")

        return watched

    def hole(self, vip: Address) -> str:
        """Why its traffic would be lost, empty if it would not."""
        rows = self.world.kernel.rows
        if vip not in rows["addresses"]:
            return "has no address"
        if not any(key.address == vip for key in rows["services"]):
            return "has no service"
        if not any(row.weight for key, row in rows["destinations"].items() if key.service.address == vip):
            return "has no destination with a weight"
        return ""

    # ---------------------------------------------------------------- calls and heartbeats

    def _failing(self, call: Callable[..., Coroutine[Any, Any, Any]], what: str) -> Callable[..., Any]:
        async def failing(*args: Any) -> Any:
            if what == "look":
                await self._look()
            if self.errors.get(what, 0):
                self.errors[what] -= 1
                raise DriverError("no buffer space available")
            if self.share and self.world.chance.random() < self.share:
                raise DriverError("no such process")
            return await call(*args)

        return failing

    async def _look(self) -> None:
        """It takes a while, and may fail. Raises ``DriverError``.

        A look that errs while the node has been blind for long is one more that could not read the kernel: then the
        first one that reads it proves life.
        """
        began = self._now()
        self.looks += 1
        await asyncio.sleep(0.001 + self.slow)
        if not self.blind and not self.errors.get("look", 0):
            self._failing_since = None
            return
        if self._failing_since is None:
            self._failing_since = began
        if self._now() - self._failing_since > SILENCE:
            looks = 2 if self._starting else 1
            self._heartbeat_due = max(self._heartbeat_due, self._now() + PAUSE + looks * self.slow)
        if self.blind:
            raise DriverError("no answer")

    def _heard(self, beat: Callable[[], None]) -> Callable[[], None]:
        def heard() -> None:
            self.listen()
            self._starting = False
            self._heartbeat_due = self._now() + SILENCE
            beat()

        return heard

    def listen(self) -> None:
        """A node that can see its machine proves life."""
        if not self.blind and not self.share and (late := self._now() - self._heartbeat_due) > 0.01:
            self._complain(f"no heartbeat for {SILENCE + late:.1f} s")


class Cluster(RuleBasedStateMachine):
    """Nodes with one catalog. Subclasses say how many."""

    size = 1

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.loop = self.runner.get_loop()
        self.directory = TemporaryDirectory(prefix="model.")
        self.complaints: list[str] = []
        self.registry = MemoryRegistry(distance=DISTANCE)
        self.registry_down = self.source_down = False
        self.keys: set[str] = set()
        self.stacks: dict[int, AsyncExitStack] = {}
        self.nodes: dict[int, Node] = {}
        self.observers = [self._observer(n) for n in range(self.size)]
        for observer in self.observers:
            observer.company = [other for other in self.observers if other is not observer]
        self.worlds = [observer.world for observer in self.observers]
        for world in self.worlds:
            world.source = self.worlds[0].source
        self.stopping = False
        for n in range(self.size):
            self._start(n)
        self.put("a", FIRST)
        self._wait(2 * KNOWN)

    def _observer(self, n: int) -> Observer:
        name = f"lb{n + 1}"
        state = Path(self.directory.name, name)
        state.mkdir()
        world = World(str(state), name=name, tables=CATALOG)
        world.registry = self.registry if self.size > 1 else None
        return Observer(world, lambda text: self.complaints.append(f"{name}: {text}"), self.loop.time)

    def _wait(self, seconds: float) -> None:
        looks, started = [o.looks for o in self.observers], self.loop.time()
        self.runner.run(asyncio.sleep(seconds))
        passed = self.loop.time() - started
        for observer, before in zip(self.observers, looks, strict=True):
            assert observer.looks - before <= LOOKS * (1 + passed), "it looks too often"

    def _start(self, n: int) -> None:
        async def start() -> None:
            self.stacks[n] = AsyncExitStack()
            self.nodes[n] = await self.stacks[n].enter_async_context(self.worlds[n].node())

        self.observers[n].started()
        self.runner.run(start())

    def _kill(self, n: int) -> None:
        """As by kill -9. Raises what has ended the node before."""
        self.observers[n].stopped()
        del self.nodes[n]
        self.runner.run(self.stacks.pop(n).aclose())

    # ---------------------------------------------------------------- operators

    @rule(name=names, document=documents)
    def put(self, name: str, document: Mapping[str, Any]) -> None:
        self.keys.add(name)
        self.worlds[0].put(f"services/{name}", {**document, "check": CHECK})
        self._wait(0.1)

    @rule(name=names, document=documents)
    def put_alive(self, name: str, document: Mapping[str, Any]) -> None:
        """An edit after which every backend is alive."""
        dead = set().union(*(world.dead for world in self.worlds))
        alive = {f"n{address[-1]}": {"address": address} for address in BACKENDS if address not in dead}
        wanted = {key: value for key, value in document["backends"].items() if key in alive}
        self.put(name, {**document, "backends": wanted or alive})

    @rule(name=names)
    def delete(self, name: str) -> None:
        if name in self.keys:
            self.keys.discard(name)
            self.worlds[0].source.delete(f"services/{name}")
        self._wait(0.1)

    @rule(n=nodes, on=st.booleans())
    def drain(self, n: int, on: bool) -> None:
        observer, key = self.observers[n % self.size], f"drain/lb{n % self.size + 1}"
        if on and not observer.leaves:
            self.worlds[0].put(key, "")
        elif observer.leaves and not on:
            self.worlds[0].source.delete(key)
        if on != observer.leaves:
            observer.leaves_since = self.loop.time() if on else inf
        observer.leaves = on
        observer.review()

    @rule(n=nodes, deleted=st.sampled_from(["", "", *KERNEL]))
    def restart(self, n: int, deleted: Table | Literal[""]) -> None:
        """What was damped stays closed, and what is deleted meanwhile withdraws nothing."""
        n %= self.size
        verdicts = self.nodes[n].snapshot.decision.verdicts
        damped = {vip: verdict.penalty for vip, verdict in verdicts.items() if verdict.reason.code == "damped"}
        self._kill(n)
        self.observers[n].errors.pop("routes", None)  # a new driver reads what the bridge reports: that cannot fail
        if deleted:
            for place in reversed(range(len(self.worlds[n].kernel.rows[deleted]))):
                self.drift(n, deleted, place)
        self._wait(0.2)
        self.observers[n].forgets()
        self._start(n)
        self._wait(0.3)
        for vip, penalty in damped.items():
            assert vip not in self.worlds[n].announced or penalty < 760, f"a restart opened {vip}, which was damped"

    # ---------------------------------------------------------------- what surrounds a node

    @rule(n=nodes, address=st.sampled_from(BACKENDS), dead=st.booleans(), everywhere=st.booleans())
    def turn(self, n: int, address: str, dead: bool, everywhere: bool) -> None:
        for observer in self.observers if everywhere else [self.observers[n % self.size]]:
            observer.turn(address, dead)

    @rule(down=st.booleans())
    def catalog_away(self, down: bool) -> None:
        if down != self.source_down:
            self.source_down = down
            (self.worlds[0].source.fail if down else self.worlds[0].source.heal)()

    @rule(n=nodes, on=st.booleans())
    def refuse(self, n: int, on: bool) -> None:
        self.observers[n % self.size].refuses = on
        self.observers[n % self.size].review()

    @rule(n=nodes, on=st.booleans())
    def blind(self, n: int, on: bool) -> None:
        self.observers[n % self.size].see(not on)

    @rule(
        n=nodes, what=st.sampled_from(["look", "write", "connections", "announce", "routes"]), calls=st.integers(1, 2)
    )
    def err(self, n: int, what: str, calls: int) -> None:
        """The next calls fail."""
        self.observers[n % self.size].errors[what] = calls
        if self.nodes:
            self.nodes[n % self.size].inbox.wake()

    @rule(n=nodes, seconds=st.sampled_from([0.0, 0.3, 1.5]))
    def look_slowly(self, n: int, seconds: float) -> None:
        self.observers[n % self.size].look_slowly(seconds)

    @rule(n=nodes, up=st.booleans())
    def session(self, n: int, up: bool) -> None:
        """The node's BGP session comes up or goes down: what it announces reaches its router, or does not."""
        self.observers[n % self.size].session(up)
        self.nodes[n % self.size].inbox.wake()

    @rule(n=nodes, on=st.booleans())
    def err_often(self, n: int, on: bool) -> None:
        """A third of all calls fails."""
        observer = self.observers[n % self.size]
        if observer.share and not on:
            observer.started()
        observer.share = 0.33 if on else 0.0
        observer.review()

    @rule(
        n=nodes,
        looks=st.integers(1, 3),
        table=st.sampled_from(KERNEL),
        places=st.sets(st.integers(0, 9), min_size=1),
    )
    def omit(self, n: int, looks: int, table: Table, places: set[int]) -> None:
        self.observers[n % self.size].omit(looks, table, places)
        self.nodes[n % self.size].inbox.wake()
        self._wait(0.05)

    @rule(n=nodes, table=st.sampled_from(KERNEL), place=st.integers(0, 5))
    def drift(self, n: int, table: Table, place: int) -> None:
        """Somebody deletes a row by hand."""
        rows = self.worlds[n % self.size].kernel.rows
        if keys := list(rows[table]):
            gone = keys[place % len(keys)]
            del rows[table][gone]
            for key in [key for key in rows["destinations"] if key.service == gone]:
                del rows["destinations"][key]

    @rule(n=nodes, on=st.booleans())
    def no_connections(self, n: int, on: bool) -> None:
        kernel = self.worlds[n % self.size].kernel
        kernel.idle = set(kernel.rows["destinations"]) if on else set()

    @precondition(lambda self: self.size > 1)
    @rule(down=st.booleans())
    def registry_away(self, down: bool) -> None:
        self.registry_down = down
        (self.registry.fail if down else self.registry.heal)()

    @precondition(lambda self: self.size > 1 and not self.registry_down)
    @rule(all_data=st.booleans())
    def lose_sessions(self, all_data: bool) -> None:
        async def lose() -> None:
            (self.registry.wipe if all_data else self.registry.expire)()

        self.runner.run(lose())

    @rule(seconds=st.sampled_from([0.3, 1.0, 3.0, 7.0]))
    def wait(self, seconds: float) -> None:
        self._wait(seconds)

    @rule(seconds=st.sampled_from([12.0, 40.0]))
    def wait_long(self, seconds: float) -> None:
        self._wait(seconds)

    # ---------------------------------------------------------------- what must hold

    @invariant()
    def nothing_forbidden_was_done(self) -> None:
        for observer in getattr(self, "observers", []):
            observer.listen()
        assert not getattr(self, "complaints", []), self.complaints

    @invariant()
    def nobody_died(self) -> None:
        if getattr(self, "nodes", None):
            running = [t for t in asyncio.all_tasks(self.loop) if t.get_coro().__qualname__ == "Node.run"]  # type: ignore[union-attr]
            assert len(running) == self.size

    @rule()
    def settle(self) -> None:
        """Everything works again, and after a while all is as it should be."""
        for observer in self.observers:
            observer.heal()
        self.catalog_away(False)
        self.registry_down = False
        self.registry.heal()
        self._wait(SETTLED)
        for n in range(self.size):
            self._at_rest(n)
        self._in_quiet()
        self._agreed()

    def _at_rest(self, n: int) -> None:
        observer, snapshot, rows = self.observers[n], self.nodes[n].snapshot, self.worlds[n].kernel.rows
        decision, catalog = snapshot.decision, snapshot.inputs.catalog
        assert not snapshot.failures and not snapshot.plan and not decision.memory.leaving
        assert rows["addresses"] == dict(decision.desired.addresses)
        assert rows["services"] == dict(decision.desired.services)
        assert set(rows["destinations"]) == set(decision.desired.destinations)
        assert self.worlds[n].announced == set(decision.desired.routes)
        vips = {vip for service in catalog.services for vip in service.vips}
        assert set(rows["addresses"]) == vips
        for key, row in rows["destinations"].items():
            verdict = decision.backends[key]
            assert verdict.up == (str(key.address) not in self.worlds[n].dead), f"{key}: {verdict.reason.text}"
            assert not verdict.up or row.weight == 100, f"{key}: {verdict.reason.text}"
        for vip in vips:
            why = f"lb{n + 1} {vip}: {decision.verdicts[vip].reason.text}"
            if vip in self.worlds[n].announced:
                assert not observer.leaves and not observer.hole(vip), f"{why}; {observer.hole(vip)}"
                assert observer.enough(vip) or observer.guarded(vip), why
            else:
                assert not observer.sound(vip), why

    def _in_quiet(self) -> None:
        for world in self.worlds:
            world.forget()
        looks = [observer.looks for observer in self.observers]
        self._wait(30)
        for observer, before in zip(self.observers, looks, strict=True):
            written = [str(change) for change in observer.world.writes]
            assert not written, "something is written while nothing changes"
            assert observer.looks - before <= 30 * QUIET_LOOKS, "it looks often while nothing changes"

    def _agreed(self) -> None:
        """Every node knows what the others do, and those that see the same do the same."""
        for n, node in self.nodes.items():
            for m in self.nodes.keys() - {n}:
                peer = node.inbox.inputs.cluster.peers.get(f"lb{m + 1}")
                assert peer is not None and peer.alive and peer.status is not None and not peer.error, peer
                announced = {vip for vip, summary in peer.status.vips.items() if summary.announced}
                carried = self.worlds[m].announced if self.observers[m].reaches else set()
                assert announced == carried, f"lb{n + 1} is wrong about lb{m + 1}"
                states = {session.state == "up" for session in peer.status.sessions}
                assert states == {self.observers[m].reaches}, f"lb{n + 1} is wrong about lb{m + 1}'s session"
        for vip in map(ip_address, VIPS):
            self._one_keeps_the_last_route(vip)
        if len({frozenset(world.dead) for world in self.worlds}) == 1:
            assert len({json.dumps(self._table(world)) for world in self.worlds}) == 1, "the tables differ"

    def _one_keeps_the_last_route(self, vip: Address) -> None:
        """Of the nodes whose routes reach a router; whoever leaves keeps nothing."""
        able = [o for o in self.observers if o.reaches and not o.leaves]
        if not able or not able[0].guarded(vip) or any(o.enough(vip) for o in self.observers):
            return
        keepers = [o.world.settings.node.name for o in able if o.carries(vip)]
        assert len(keepers) <= 1, f"{keepers} keep the last route of {vip}"
        services = able[0].services(vip)
        could = any(s.backends for s in services) and all(s.backends for s in services if s.announce.when == "all")
        assert keepers or not could or self.size == 1, f"nobody keeps the last route of {vip}"

    def _table(self, world: World) -> dict[str, list[tuple[str, int]]]:
        """The destinations of each service in the kernel's order, from which mh fills its table."""
        table: dict[str, list[tuple[str, int]]] = {}
        for key, row in world.kernel.rows["destinations"].items():
            table.setdefault(str(key.service), []).append((f"{key.address}:{key.port}", row.last_weight))
        return dict(sorted(table.items()))

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        try:
            if self.nodes and not self.complaints:
                self._stop()
        finally:
            self.runner.close()
            self.directory.cleanup()

    def _stop(self) -> None:
        """A node that is stopped in order leaves nothing, even if it never had a catalog."""
        for observer in self.observers:
            observer.heal()
            observer.leaves = True
            observer.review()
        for node in self.nodes.values():
            node.stop()
        self._wait(60)
        for n, world in enumerate(self.worlds):
            self._kill(n)
            assert not any(world.kernel.rows.values()) and not world.announced, f"lb{n + 1} has left something"


class TwoNodes(Cluster):
    size = 2
