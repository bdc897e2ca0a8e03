"""The composition root of the real daemon: make the real parts, and own the process.

That is signals, logging, the preflight and the service manager. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from anycastlb import __version__, plan
from anycastlb.api.context import Context
from anycastlb.api.history import History, sample
from anycastlb.api.server import Api
from anycastlb.checks import parameters, types
from anycastlb.cluster import Registry
from anycastlb.cluster.consul import ConsulRegistry
from anycastlb.cluster.instance import instance
from anycastlb.decide import adopt, decide
from anycastlb.discovery import Doubt, Kind
from anycastlb.discovery.consul import GRACE, ConsulDiscovery
from anycastlb.discovery.dns import DnsDiscovery
from anycastlb.discovery.watch import Kinds, survey
from anycastlb.drivers.addresses import AddressDriver
from anycastlb.drivers.bgp import BgpDriver
from anycastlb.drivers.ipvs import IpvsDriver
from anycastlb.drivers.ipvs_config import ConfigDriver
from anycastlb.drivers.originals import Originals, Restorable
from anycastlb.drivers.preflight import Finding, preflight, probing
from anycastlb.drivers.sysctls import PROBING, TAKEOVER, SysctlDriver
from anycastlb.events import Event, Journal, LogFormatter, epoch, under_journald
from anycastlb.follower import identity
from anycastlb.metrics import Metrics
from anycastlb.model import (
    AnycastlbError,
    Catalog,
    CheckState,
    ConsulInstances,
    Discover,
    DriverError,
    Feed,
    Inputs,
    Result,
    Share,
    Snapshot,
    State,
)
from anycastlb.node import Node, checks
from anycastlb.records import Place
from anycastlb.records.consul import ConsulServices
from anycastlb.records.dns import DnsZone
from anycastlb.records.driver import RecordDriver
from anycastlb.settings import Settings
from anycastlb.settings.ipvs import SYNC_REFRESH, SYNC_THRESHOLD
from anycastlb.sources import Source, Store
from anycastlb.sources.consul import ConsulSource
from anycastlb.sources.consul_store import ConsulStore
from anycastlb.sources.file import FileSource
from anycastlb.sources.file_store import FileStore
from anycastlb.sources.saved import Saved

PATIENCE = 10.0
"""Seconds that a plan waits for its discoveries."""

# ---------------------------------------------------------------- the real parts


def make_source(settings: Settings) -> Source:
    if settings.catalog.source == "file":
        return FileSource(settings.catalog.path)
    return ConsulSource(settings.consul)


def make_store(settings: Settings) -> Store:
    if settings.catalog.source == "file":
        return FileStore(settings.catalog.path)
    return ConsulStore(settings.consul)


def make_kinds(settings: Settings) -> Kinds:
    """How instances are discovered. A Consul that has lost too many is doubted for a moment; a name without records,
    for as long as a catalog that has lost too many VIPs: its records come in one piece or not at all."""
    vanished = Doubt(settings.catalog.max_shrink, GRACE)
    resolves_to_nothing = Doubt(Share(percent=100.0), settings.catalog.confirm)

    def kind(wanted: Discover) -> Kind:
        if isinstance(wanted, ConsulInstances):
            return Kind(lambda: ConsulDiscovery(wanted, settings.consul), vanished)
        return Kind(lambda: DnsDiscovery(wanted), resolves_to_nothing)

    return kind


def make_registry(settings: Settings) -> Registry | None:
    return ConsulRegistry(settings.consul) if settings.catalog.source == "consul" else None


def make_registrars(
    settings: Settings, emit: Callable[[Event], None], on_change: Callable[[], None], alive_at: Callable[[], float]
) -> tuple[RecordDriver, ...]:
    """Where this node writes names."""
    places: list[Place] = []
    if settings.dns.server:
        places.append(DnsZone(settings.dns, Path(settings.node.state_dir) / "dns-names"))
    if settings.consul.register_services:
        places.append(ConsulServices(settings.consul, settings.node.name, settings.bgp.hold))
    return tuple(RecordDriver(place, emit, on_change, alive_at, max(settings.bgp.hold, 5.0)) for place in places)


def described(settings: Settings) -> str:
    """The catalog source in words an operator can act on."""
    if settings.catalog.source == "file":
        return f"file {settings.catalog.path}"
    return f"consul {settings.consul.address} {settings.consul.prefix}"


def make_drivers(settings: Settings) -> tuple[SysctlDriver, ConfigDriver, AddressDriver, IpvsDriver]:
    node = settings.node
    ipvs = IpvsDriver(node.vip_ranges, (*node.fwmark_ranges, settings.checks.marks))
    sysctls = SysctlDriver((*TAKEOVER, *PROBING, SYNC_THRESHOLD, SYNC_REFRESH))
    return sysctls, ConfigDriver(ipvs.use), AddressDriver(), ipvs


def kernel_settings(settings: Settings) -> dict[str, Any]:
    """What the kernel must be set to, as inputs of a decision; nothing where the operator manages it."""
    ipvs = settings.ipvs
    if not ipvs.manage_sysctls:
        return {}
    return {
        "sysctls": {**TAKEOVER, **ipvs.sysctls},
        "lane_sysctls": PROBING,
        "config": ipvs.config,
        "cached_config": ipvs.cached_config,
    }


async def serve(settings: Settings, reread: Callable[[], Settings] | None = None) -> None:
    """Run a real node until it is told to stop (SIGTERM, SIGINT). SIGHUP rereads, SIGUSR1 hands over.

    Raises ``AnycastlbError`` when the node cannot start.
    """
    journal = Journal(start=epoch())
    sysctls, config, addresses, ipvs = make_drivers(settings)
    with suppress(DriverError):
        ipvs.open()  # loads ip_vs where it may; what it may not, the preflight tells with its mend
    inspect(settings, journal)
    originals = Originals(settings.node.state_dir, lambda what, mend: tell([Finding("warning", what, mend)], journal))
    if not settings.ipvs.manage_sysctls:
        originals.drop()  # from now on they are the operator's
    notify = Notifier()
    source = make_source(settings)
    bgp = BgpDriver(
        settings.bgp.socket,
        settings.bgp.hold,
        settings.node.vip_ranges,
        on_change=lambda: node.inbox.wake(),
        emit=journal.emit,
        group=settings.bgp.group,
    )
    node = Node(
        settings,
        source,
        (Restorable(sysctls, originals), Restorable(config, originals), addresses, ipvs),
        bgp,
        journal,
        types=types(settings.checks),
        kinds=make_kinds(settings),
        **kernel_settings(settings),
        originals=lambda: originals.rows,
        pulse=notify.alive,
        unused=ipvs.unused,
        counters=ipvs.statistics,
        first_lane=lambda: tell(probing(settings), journal),
        registry=make_registry(settings),
        registrars=make_registrars(settings, journal.emit, lambda: node.inbox.wake(), lambda: node.reconciler.alive_at),
        instance=instance(settings.node.state_dir),
        started_wall=time.time(),
    )
    metrics = Metrics(
        lambda: node.snapshot,
        node.meters,
        journal,
        statistics=ipvs.statistics,
        load=lambda: node.prober.load,
        alive_at=lambda: node.reconciler.alive_at,
    )
    history = History()
    context = Context(
        snapshot=lambda: node.snapshot,
        journal=journal,
        confirm=node.follower.confirm,
        scrape=metrics.scrape,
        settings=settings,
        store=make_store(settings),
        check_types=parameters(types(settings.checks)),
        alive_at=lambda: node.reconciler.alive_at,
        source=described(settings),
        statistics=ipvs.statistics,
        history=history,
    )
    sampling = sample(history, lambda: node.snapshot, ipvs.statistics)
    api = Api(
        context,
        settings.api.listen,
        socket=Path(settings.api.socket) if settings.api.socket else None,
        outer=(node.meters.requests.middleware,),
    )

    def ready() -> None:
        journal.emit(Event("daemon", settings.node.name, after="running", reason=f"anycastlb {__version__}"))

    loop = asyncio.get_running_loop()
    running = asyncio.current_task()
    assert running is not None

    def stop() -> None:
        if node.inbox.inputs.stopping:  # asked twice: now, and leave the rest to the bridge
            running.cancel()
            return
        notify.stopping()
        journal.emit(Event("daemon", settings.node.name, after="stopping", reason="withdraw, drain, remove"))
        node.stop()

    def hand_over() -> None:
        journal.emit(Event("daemon", settings.node.name, after="handing over", reason="routes and kernel stay"))
        running.cancel()

    def hang_up() -> None:
        if reread is not None:
            compare(settings, reread, journal)
        api.reread()
        node.follower.reread()

    for number, act in (
        (signal.SIGTERM, stop),
        (signal.SIGINT, stop),
        (signal.SIGUSR1, hand_over),
        (signal.SIGHUP, hang_up),
    ):
        loop.add_signal_handler(number, act)
    notify.ready()  # up and working; whether it can serve is what /readyz says
    try:
        beside = (bgp.run(), addresses.watch(node.inbox.wake), api.run(), node.meters.watch_loop(), sampling)
        await node.run(*beside, ready=ready)
    except asyncio.CancelledError:
        return
    journal.emit(Event("daemon", settings.node.name, after="stopped", reason="nothing of ours is left"))


def inspect(settings: Settings, journal: Journal) -> None:
    """Preflight: every finding is told; an error among them stops the start. Raises ``DriverError``."""
    findings = preflight(settings)
    tell(findings, journal)
    if errors := [f"{finding.what} (mend: {finding.mend})" for finding in findings if finding.level == "error"]:
        raise DriverError("; ".join(errors))


def tell(findings: Iterable[Finding], journal: Journal) -> None:
    for finding in findings:
        journal.emit(Event("preflight", finding.what, reason=finding.mend, level=finding.level))


def compare(settings: Settings, reread: Callable[[], Settings], journal: Journal) -> None:
    """Settings are read once; on SIGHUP say whether the file still says the same."""
    try:
        same = reread() == settings
    except AnycastlbError as exc:
        journal.emit(Event("settings", "node.toml", reason=str(exc), level="error"))
        return
    if not same:
        reason = "changed; it is read at start: hand over to a new process with SIGUSR1 to apply it"
        journal.emit(Event("settings", "node.toml", reason=reason, level="warning"))


class Notifier:
    """systemd's notify protocol (sd_notify(3)); silent when nobody asked."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address or os.environ.get("NOTIFY_SOCKET", "")

    def ready(self) -> None:
        self._send(f"READY=1\nSTATUS=anycastlb {__version__}")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=routes withdrawn, draining")

    def alive(self) -> None:
        """Fed by the reconciler's progress, not by a timer: a stuck node must be restarted."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), address)
        except OSError:
            return  # the service manager's trouble must not become ours


def keep_privileges() -> None:
    """Keep for this process what a unit's AmbientCapabilities gave it: the programs of checks must not inherit it."""
    clear_all, ambient = 4, 47  # PR_CAP_AMBIENT_CLEAR_ALL, PR_CAP_AMBIENT
    ctypes.CDLL(None).prctl(ambient, clear_all, 0, 0, 0)  # it cannot fail on a kernel that we run on


def set_up_logging(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter(settings.log.format, under_journald(sys.stderr)))
    logging.basicConfig(handlers=[handler], level=settings.log.level.upper(), force=True)


def main(settings: Settings, path: str | Path | None = None, load: Callable[[], Settings] | None = None) -> int:
    """Run a node in this process; the exit code. Errors go to the log, one line each."""
    set_up_logging(settings)
    keep_privileges()
    code = 0
    try:
        asyncio.run(serve(settings, load))
    except* AnycastlbError as group:
        for exc in group.exceptions:
            logging.getLogger("anycastlb").error("%s", exc)
        code = 1
    return code


# ---------------------------------------------------------------- a plan without a daemon


async def look(settings: Settings) -> Snapshot:
    """What a daemon started now would do first: reads the catalog once, observes, decides, and writes nothing.

    Every backend counts as up, and no route as announced, since nobody has checked. Raises ``AnycastlbError``.
    """
    from anycastlb.catalog import parse, troubled

    source = make_source(settings)
    try:
        tree = await source.read(None)
    finally:
        await source.close()
    node = settings.node
    parsed = partial(parse, tree, Catalog(), node.vip_ranges, node.fwmark_ranges, parameters(types(settings.checks)))
    catalog = parsed()
    if catalog.discovers:
        saved = Saved(node.state_dir, identity(settings)).load().instances
        instances, troubles = await survey(make_kinds(settings), catalog.discovers, saved, PATIENCE)
        catalog = troubled(parsed(instances), troubles)
    tables: dict[Any, Any] = {}
    for driver in make_drivers(settings):
        tables.update(await driver.observe())
    actual = State(**tables)
    now = time.monotonic()
    up = CheckState(up=True, since=now, last=Result(True, "assumed up", 0.0, now))
    inputs = Inputs(
        node=node.name,
        catalog=catalog,
        feed=Feed(connected=True, loaded=True, since=now),
        health=dict.fromkeys(checks(catalog), up),
        **kernel_settings(settings),
        originals=Originals(node.state_dir).rows,
        marks=settings.checks.marks,
    )
    decision = decide(inputs, adopt(actual, now, inputs.marks), now)
    changes = plan.diff(actual, decision.desired)
    return Snapshot(inputs, actual, decision, changes, at=now, at_wall=time.time())


def dry_run(settings: Settings) -> Snapshot:
    """``look`` for callers without an event loop."""
    awaiting: Awaitable[Snapshot] = look(settings)
    return asyncio.run(awaiting)  # type: ignore[arg-type]
