"""Two nodes, each with the real bridge, and the faults that may strike them, in virtual time.

A story of two faults (``happen``): the first fault begins, then the second, at moments that a seed draws; they end in
an order that it draws. Meanwhile no route leads to a VIP without its address, its service and a weight (or whose
backends are all dead: while its withdrawal is under way, its weights are lowered), a VIP with no reason to go stays
announced, and one with a reason goes; afterwards everything is as it was.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random
from typing import Any

import pytest

from anycastlb.adapters import gate_memory
from anycastlb.adapters.cluster.memory import MemoryRegistry
from anycastlb.adapters.sources import cache
from anycastlb.core.model import Address, DriverError, Rows, Table
from anycastlb.engine.node import Node
from tests.support.speaker import PEERS, SpeakingWorld
from tests.support.world import VIP, WEB

CATALOG = '[catalog]\nmax_shrink = "50%"\nconfirm = "20s"\n'
EVERYONE = {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
OTHERS = {"api": "192.0.2.11", "old": "192.0.2.12"}
GONE = 35.0
"""Seconds after which a route with a reason to go has gone, also if ExaBGP must be killed or a lease must run out."""
THIRD = "10.99.3.1"
MANY = ip_network("198.18.0.0/16")
EACH = 50
"""VIPs of each service of the many."""


class Site:
    """Two nodes, each on a machine of its own. Faults strike the first one, unless they say otherwise."""

    def __init__(
        self, directory: Path, patch: pytest.MonkeyPatch, chance: Random, more: int = 0, last: str = "", **drain: Any
    ) -> None:
        """``more``: so many VIPs more than the three, from the start. ``last``: of ``announce``, of every service."""
        self.patch, self.chance = patch, chance
        self.common: dict[str, Any] = {"announce": {"last": last}} if last else {}
        self.registry = MemoryRegistry(distance=0.25)
        self.worlds: list[SpeakingWorld] = []
        for name in ("lb1", "lb2"):
            (directory / name).mkdir()
            rules = {"settle": "1s", "deadline": "5s", **drain}
            ranges = ["192.0.2.0/24", str(MANY)]
            world = SpeakingWorld(str(directory / name), name=name, tables=CATALOG, drain=rules, vip_ranges=ranges)
            world.registry = self.registry
            self.worlds.append(world)
        self.worlds[1].source = self.worlds[0].source
        self.world, self.other = self.worlds
        self.stacks: dict[int, AsyncExitStack] = {}
        self.nodes: dict[int, Node] = {}
        self.complaints: list[str] = []
        self.extra: set[Address] = set()
        self.more = {f"more{n}": [MANY[n * EACH + k + 1] for k in range(EACH)] for n in range(more // EACH)}
        """The VIPs of the services that are there beside the three."""
        self.extra.update(*self.more.values())

    def put_all(self) -> None:
        for name in ("web", *OTHERS):
            self.put(name)
        for name, vips in self.more.items():
            self.put(name, vip=list(map(str, vips)))

    def put(self, name: str = "web", **more: Any) -> None:
        whole = {**WEB, "vip": {"web": str(VIP), **OTHERS}.get(name), **self.common, **more}
        self.world.put(f"services/{name}", whole)

    async def start(self, n: int) -> None:
        if n not in self.nodes:
            self.stacks[n] = AsyncExitStack()
            self.nodes[n] = await self.stacks[n].enter_async_context(self.worlds[n].node())

    async def kill(self, n: int) -> None:
        if n in self.nodes:
            del self.nodes[n]
            await self.stacks.pop(n).aclose()

    def hole(self, world: SpeakingWorld) -> str:
        """Which VIP's traffic is lost, and why; empty if none is."""
        rows, announced = world.kernel.rows, world.announced
        for vip in announced - rows["addresses"].keys():
            return f"{vip} is announced without its address"
        weighted = {key.service.address for key, row in rows["destinations"].items() if row.weight}
        for vip in announced - weighted - self.dead(world):
            return f"{vip} is announced without a weight"
        return ""

    def dead(self, world: SpeakingWorld) -> set[Address]:
        """The VIPs whose routes are to go because none of their backends is up. Of a node that is away, none."""
        node = self.nodes.get(self.worlds.index(world))
        verdicts = node.snapshot.decision.verdicts.values() if node else ()
        return {
            verdict.vip for verdict in verdicts if not verdict.open and not any(part.up for part in verdict.services)
        }

    async def watch(self, steady: bool) -> None:
        """Look at every moment. ``steady``: the first VIP has no reason to go."""
        while True:
            for world in self.worlds:
                if hole := self.hole(world):
                    self.complaints.append(f"{world.settings.node.name}: {hole}")
                if steady and VIP not in world.announced:
                    self.complaints.append(f"{world.settings.node.name}: {VIP} is withdrawn")
            await asyncio.sleep(0.2 if self.more else 0.02)

    def settled(self) -> str:
        """What is not yet as it should be, after everything has ended."""
        vips = {VIP, *map(ip_address, OTHERS.values()), *self.extra}
        for world in self.worlds:
            weights = [row.weight for row in world.kernel.rows["destinations"].values()]
            for what, good in {
                "routes": all(world.speaker.exabgp.announced(peer) == vips for peer in PEERS),
                "addresses": set(world.kernel.rows["addresses"]) == vips,
                "weights": set(weights) == {100} and len(weights) == 3 * len(vips),
            }.items():
                if not good:
                    return f"{world.settings.node.name}: {what}: {world.announced}, {weights}"
        return self.strangers(vips)

    def strangers(self, vips: set[Address]) -> str:
        """Which node is wrong about the other one; empty if none is."""
        for n, node in self.nodes.items():
            peer = node.inbox.inputs.cluster.peers.get(f"lb{2 - n}")
            status = peer.status if peer is not None and peer.alive and not peer.error else None
            if status is None or {vip for vip, summary in status.vips.items() if summary.announced} != vips:
                return f"lb{n + 1} is wrong about lb{2 - n}: {peer}"
        return ""


Act = Callable[[Site], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    begin: Act
    end: Act
    reason: bool = False
    """The first VIP of the first node must be withdrawn."""
    harmless: bool = True
    """Routes stay, whatever the fault does; so they do if both faults are harmless."""
    lasts: tuple[float, float] = field(default=(1.0, 4.0))


def sync(act: Callable[[Site], object]) -> Act:
    async def acted(site: Site) -> None:
        act(site)

    return acted


def deed(begin: Callable[[Site], object], end: Callable[[Site], object] = lambda site: None, **more: Any) -> Fault:
    return Fault(sync(begin), sync(end), **more)


async def _unread() -> Mapping[Table, Rows]:
    raise DriverError("no answer")


def _blind(site: Site) -> None:
    site.world.kernel.observe = _unread  # type: ignore[method-assign]


def _see(site: Site) -> None:
    site.world.kernel.__dict__.pop("observe", None)


def _blind_once(site: Site) -> None:
    async def once() -> Mapping[Table, Rows]:
        _see(site)
        raise DriverError("no answer")

    site.world.kernel.observe = once  # type: ignore[method-assign]


def _consul(site: Site, away: bool) -> None:
    for part in (site.world.source, site.registry):
        (part.fail if away else part.heal)()


def _full(path: Any, content: Any, *more: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _fill_disk(site: Site) -> None:
    for module in (gate_memory, cache):
        site.patch.setattr(module, "write_atomic", _full)


def _shrink(site: Site) -> None:
    for name in (*OTHERS, *site.more):
        if f"services/{name}" in site.world.source._entries:
            site.world.source.delete(f"services/{name}")


def _unshrink(site: Site) -> None:
    site.put_all()


def _lose_more(site: Site) -> None:
    site.world.source.delete("services/web")


def _freeze(site: Site) -> None:
    asyncio.get_running_loop()._virtual.now += 20.0  # type: ignore[attr-defined]


def _grow(site: Site) -> None:
    vips = [ip_address("192.0.2.100") + n for n in range(120)]
    site.extra.update(vips)
    for n in range(0, 120, 12):
        site.put(f"many{n}", vip=[str(vip) for vip in vips[n : n + 12]])


async def _restart_both(site: Site) -> None:
    for n in (0, 1):
        await site.kill(n)


async def _start_both(site: Site) -> None:
    for n in (0, 1):
        await site.start(n)


async def _stop(site: Site) -> None:
    if 0 in site.nodes:
        site.nodes[0].stop()


async def _start_again(site: Site) -> None:
    await site.kill(0)
    await site.start(0)


FAULTS: dict[str, Fault] = {
    "ExaBGP slow": deed(
        lambda s: setattr(s.world.speaker, "per_command", 1.0), lambda s: setattr(s.world.speaker, "per_command", 0.01)
    ),
    "ExaBGP frozen": deed(
        lambda s: setattr(s.world.speaker, "frozen", True), lambda s: setattr(s.world.speaker, "frozen", False)
    ),
    "ExaBGP reloaded": deed(
        lambda s: s.world.speaker.add_neighbor(THIRD), lambda s: s.world.speaker.remove_neighbor(THIRD)
    ),
    "a session flaps": deed(
        lambda s: s.world.speaker.session(PEERS[1], False), lambda s: s.world.speaker.session(PEERS[1], True)
    ),
    "all sessions down": deed(
        lambda s: [s.world.speaker.session(peer, False) for peer in PEERS],
        lambda s: [s.world.speaker.session(peer, True) for peer in PEERS],
    ),
    "the other's sessions down": deed(
        lambda s: [s.other.speaker.session(peer, False) for peer in PEERS],
        lambda s: [s.other.speaker.session(peer, True) for peer in PEERS],
    ),
    "bridge dies": deed(lambda s: s.world.speaker.kill_bridge()),
    "vip_ranges change": deed(
        lambda s: s.world.speaker.change_ranges("192.0.2.0/25", str(MANY)),
        lambda s: s.world.speaker.change_ranges("192.0.2.0/24", str(MANY)),
    ),
    "daemon restarts": Fault(lambda s: s.kill(0), lambda s: s.start(0)),
    "the other restarts": Fault(lambda s: s.kill(1), lambda s: s.start(1)),
    "both restart": Fault(_restart_both, _start_both),
    "SIGTERM": Fault(_stop, _start_again, reason=True, harmless=False, lasts=(40.0, 45.0)),
    "drain": deed(
        lambda s: s.world.put("drain/lb1", ""),
        lambda s: s.world.source.delete("drain/lb1"),
        reason=True,
        harmless=False,
    ),
    "all backends die": deed(
        lambda s: [w.dead.update(EVERYONE) for w in s.worlds],
        lambda s: [w.dead.clear() for w in s.worlds],
        reason=True,
        harmless=False,
    ),
    "this node is cut off": deed(
        lambda s: s.world.dead.update(EVERYONE), lambda s: s.world.dead.clear(), reason=True, harmless=False
    ),
    "120 more VIPs": deed(_grow),
    "kernel unread": deed(_blind, _see, lasts=(1.0, 3.0)),
    "kernel unread for long": deed(_blind, _see, harmless=False, lasts=(20.0, 30.0)),
    "kernel unread once": deed(_blind_once),
    "another program edits IPVS": deed(
        lambda s: setattr(s.world.kernel, "omits", lambda table, key: s.chance.random() < 0.1),
        lambda s: setattr(s.world.kernel, "omits", lambda table, key: False),
    ),
    "a service comes and goes": deed(
        lambda s: s.put("new", vip="192.0.2.50", drain="1s"), lambda s: s.world.source.delete("services/new")
    ),
    "sessions of Consul lost": deed(lambda s: s.registry.expire()),
    "Consul lost its data": deed(lambda s: s.registry.wipe()),
    "Consul away": deed(lambda s: _consul(s, True), lambda s: _consul(s, False)),
    "disk full": deed(_fill_disk, lambda s: s.patch.undo()),
    "held shrink": deed(_shrink, _unshrink, lasts=(3.0, 9.0)),
    "further loss": deed(_lose_more, lambda s: s.put()),
    "backend drain": deed(
        lambda s: s.put(backends={**WEB["backends"], "web1": {"address": "10.1.0.1", "drain": True}}),
        lambda s: s.put(),
    ),
    "slow start": deed(lambda s: s.put(slow_start="10s")),
    "clock forward": deed(
        lambda s: setattr(s.world, "started_wall", s.world.started_wall + 200),
    ),
    "clock back": deed(lambda s: setattr(s.world, "started_wall", s.world.started_wall - 200)),
    "freeze": deed(_freeze, harmless=False),
}

EXABGP = ("ExaBGP slow", "ExaBGP frozen")
CELLS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(EXABGP, ("daemon restarts", "120 more VIPs", "a session flaps", "drain", "SIGTERM")),
    "ExaBGP reloaded": (
        "daemon restarts",
        "bridge dies",
        "120 more VIPs",
        "drain",
        "SIGTERM",
        "all backends die",
        "a session flaps",
        "kernel unread",
        "freeze",
    ),
    "all sessions down": ("the other restarts", "daemon restarts", "drain", "all backends die", "bridge dies"),
    "the other's sessions down": ("drain", "this node is cut off", "SIGTERM"),
    "bridge dies": ("all backends die", "drain", "vip_ranges change", "SIGTERM", "daemon restarts"),
    "kernel unread": ("SIGTERM", "all backends die", "drain", "daemon restarts"),
    "kernel unread for long": ("SIGTERM", "all backends die", "drain", "daemon restarts"),
    "kernel unread once": ("SIGTERM", "all backends die", "drain", "daemon restarts"),
    "another program edits IPVS": (
        "kernel unread once",
        "a service comes and goes",
        "daemon restarts",
        "120 more VIPs",
        "drain",
    ),
    "sessions of Consul lost": ("the other restarts", "drain", "this node is cut off", "both restart"),
    "Consul lost its data": ("the other restarts", "drain", "this node is cut off", "both restart"),
    "Consul away": ("all backends die", "daemon restarts", "SIGTERM", "disk full", "both restart", "held shrink"),
    "drain": ("Consul away", "clock forward", "clock back", "freeze"),
    "held shrink": ("drain", "backend drain", "further loss", "daemon restarts", "both restart"),
    "daemon restarts": ("this node is cut off", "slow start", "backend drain", "disk full"),
    "both restart": ("all backends die", "a service comes and goes"),
    "clock forward": ("all backends die", "daemon restarts", "this node is cut off"),
    "clock back": ("all backends die", "daemon restarts", "this node is cut off"),
    "freeze": ("all backends die", "sessions of Consul lost", "Consul away"),
    "disk full": ("Consul away", "held shrink", "all backends die"),
}
PAIRS = [(one, two) for one, twos in CELLS.items() for two in twos]


async def happen(site: Site, one: Fault, two: Fault) -> None:
    """The story of two faults."""
    lives = [asyncio.ensure_future(world.speaker.live()) for world in site.worlds]  # noqa: TID251
    watching: asyncio.Task[None] | None = None
    try:
        site.put_all()
        for n in (0, 1):
            await site.start(n)
        await quiet(site, 30)
        steady = one.harmless and two.harmless
        watching = asyncio.ensure_future(site.watch(steady))  # noqa: TID251
        await one.begin(site)
        await asyncio.sleep(site.chance.uniform(0, 3))
        await two.begin(site)
        faults = [one, two]
        site.chance.shuffle(faults)
        await last(site, faults)
        for fault in faults:
            await fault.end(site)
            await asyncio.sleep(site.chance.uniform(0, 2))
        await _start_both(site)
        await quiet(site, 150)
        assert not site.complaints, site.complaints[:5]
    finally:
        for task in (*lives, *([watching] if watching else [])):
            task.cancel()
        for n in list(site.nodes):
            await site.kill(n)


async def last(site: Site, faults: list[Fault]) -> None:
    """Let both last, until a route with a reason has gone. A daemon that was killed is started again by systemd."""
    until = asyncio.get_running_loop().time() + max(site.chance.uniform(*fault.lasts) for fault in faults)
    await asyncio.sleep(2.0)
    await _start_both(site)
    if any(fault.reason for fault in faults):
        await reached(site, lambda: VIP not in site.world.announced, GONE, "it is still announced")
    await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))


async def quiet(site: Site, within: float) -> None:
    await reached(site, lambda: not site.settled(), within, "")


async def reached(site: Site, condition: Callable[[], bool], within: float, what: str) -> None:
    end = asyncio.get_running_loop().time() + within
    while not condition():
        assert asyncio.get_running_loop().time() < end, (what or site.settled(), site.complaints[:3])
        await asyncio.sleep(0.2 if site.more else 0.05)
