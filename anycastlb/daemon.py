"""The composition root of the real daemon: make the real parts, and own the process.

That is signals, logging, the preflight and the service manager. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from anycastlb import __version__
from anycastlb.adapters.checks import parameters, types
from anycastlb.adapters.cluster.instance import instance
from anycastlb.adapters.drivers.bgp import BgpDriver
from anycastlb.adapters.drivers.saved_settings import Restorable, SavedSettings
from anycastlb.adapters.system.journal import Journal, LogFormatter, epoch, under_journald
from anycastlb.adapters.system.sd_notify import Notifier
from anycastlb.core.events import Event
from anycastlb.core.model import (
    AnycastlbError,
    Catalog,
    DriverError,
)
from anycastlb.doctor.collect.startup import at_start, with_catalog
from anycastlb.doctor.diagnosis import WITH_CATALOG, preflight
from anycastlb.doctor.finding import Finding
from anycastlb.engine.node import Node
from anycastlb.engine.parts import (
    described,
    kernel_settings,
    make_drivers,
    make_kinds,
    make_registrars,
    make_registry,
    make_source,
    make_store,
)
from anycastlb.serving.api.http.context import Context
from anycastlb.serving.api.server import Api
from anycastlb.serving.history import History, sample
from anycastlb.serving.metrics import Metrics
from anycastlb.settings import Settings


async def serve(settings: Settings, reread: Callable[[], Settings] | None = None) -> None:
    """Run a real node until it is told to stop (SIGTERM, SIGINT). SIGHUP rereads, SIGUSR1 hands over.

    Raises ``AnycastlbError`` when the node cannot start.
    """
    journal = Journal(start=epoch())
    sysctls, config, addresses, ipvs = make_drivers(settings)
    with suppress(DriverError):
        ipvs.open()  # loads ip_vs where it may; what it may not is reported by the preflight, with its remedy
    inspect(settings, journal)
    originals = SavedSettings(
        settings.node.state_dir, lambda what, mend: report([Finding("warning", "kernel", what, mend=mend)], journal)
    )
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
        on_catalog=catalog_inspector(settings, journal),
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
    """Report what keeps this machine from being a good node. Raises ``DriverError`` if it cannot be one."""
    findings = preflight(at_start(settings))
    report(findings, journal)
    if errors := [f"{finding.what} (mend: {finding.mend})" for finding in findings if finding.level == "error"]:
        raise DriverError("; ".join(errors))


def catalog_inspector(settings: Settings, journal: Journal) -> Callable[[Catalog], None]:
    """A function that is given each new catalog, and reports what the machine lacks for its services: once a fault."""
    known: set[Finding] = set()

    def inspect_catalog(catalog: Catalog) -> None:
        findings = preflight(with_catalog(settings, catalog), WITH_CATALOG)
        report([finding for finding in findings if finding not in known], journal)
        known.clear()
        known.update(findings)

    return inspect_catalog


def report(findings: Iterable[Finding], journal: Journal) -> None:
    for finding in findings:
        level: Literal["warning", "error"] = "error" if finding.level == "error" else "warning"
        journal.emit(Event("preflight", finding.what, reason=finding.mend, level=level))


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
