"""The composition root of the real daemon: make the real parts, and own the process.

That is signals, logging, the preflight and the service manager. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from anycastlb import __version__
from anycastlb.adapters.certificates import CertificateFiles, not_after
from anycastlb.adapters.checks import parameters, types
from anycastlb.adapters.drivers.saved_settings import SavedSettings
from anycastlb.adapters.system.allocation import UnusedMemory, return_large_blocks
from anycastlb.adapters.system.garbage import GarbageCollection
from anycastlb.adapters.system.journal import Journal, LogFormatter, epoch, under_journald
from anycastlb.adapters.system.sd_notify import Notifier
from anycastlb.core.catalog.per_service import PerService
from anycastlb.core.events import Event
from anycastlb.core.model import AnycastlbError, Catalog, DriverError, SiteKey
from anycastlb.doctor.collect.startup import asked_by, at_start, with_catalog
from anycastlb.doctor.diagnosis import WITH_CATALOG, preflight
from anycastlb.doctor.finding import Finding
from anycastlb.engine.machine import Pulse
from anycastlb.engine.node import Node
from anycastlb.engine.parts import described, make_drivers, make_http_statistics, make_parts, make_store
from anycastlb.engine.stopping import anything_left
from anycastlb.serving import statsd
from anycastlb.serving.api.http.context import Context
from anycastlb.serving.api.server import Api
from anycastlb.serving.history import History, sample
from anycastlb.serving.metrics import Meters, Metrics, Sources, Statistics
from anycastlb.settings import Settings

STARTING = 30.0
"""Seconds in which a node usually has its first catalog in force."""
UNUSED = 60.0
"""Seconds from one time at which much memory that is not used is given back to the next."""


async def serve(settings: Settings, reread: Callable[[], Settings] | None = None) -> None:
    """Run a real node until it is asked to stop (SIGTERM, SIGINT). SIGHUP rereads, SIGUSR1 hands over.

    Raises ``AnycastlbError`` when the node cannot start.
    """
    journal, notify, meters, history = Journal(start=epoch()), Notifier(), Meters(), History()
    journal.observers.append(meters.observe_event)
    drivers = make_drivers(settings)
    with suppress(DriverError):
        drivers.ipvs.open()  # loads ip_vs where it may; the preflight reports what it could not do, and the remedy
    await inspect(settings, journal)
    originals = saved_settings(settings, journal)
    pulse = Pulse(notify.alive, silence=min(settings.bgp.hold, notify.watchdog) / 2, hold=settings.bgp.hold)
    inspector = catalog_inspector(settings, journal)
    parts, announcer = make_parts(settings, drivers, originals, journal, pulse, inspector)
    node = Node(settings, parts, journal, meters)
    api = make_api(settings, node, meters, history, drivers.ipvs.statistics)
    on_signals(settings, node, api, notify, reread)
    notify.ready()  # up and working; whether it can serve is what /readyz says
    background = (
        announcer.run(),
        drivers.addresses.watch(partial(node.inbox.wake, drivers.addresses.tables)),
        api.run(),
        meters.watch_loop(),
        sample(
            history,
            lambda: node.snapshot,
            drivers.ipvs.statistics,
            http=make_http_statistics(settings.http).read if settings.http else None,
        ),
        collect_garbage(),
        *statsd_reports(settings, node),
    )
    running = Event("daemon", settings.node.name, after="running", reason=f"anycastlb {__version__}")
    try:
        await node.run(*background, ready=lambda: journal.emit(running))
    except asyncio.CancelledError:
        return
    left = anything_left(node.snapshot.actual)
    reason = "no route of ours is left, but what is in the kernel" if left else "nothing of ours is left"
    journal.emit(Event("daemon", settings.node.name, after="stopped", reason=reason))


def statsd_reports(settings: Settings, node: Node) -> Iterable[Coroutine[Any, Any, None]]:
    """What reports to statsd, if node.toml asks for it."""
    http = settings.http
    if http is None or http.statsd is None:
        return ()
    count = make_http_statistics(http).read

    def sites() -> Mapping[SiteKey, object]:
        return node.snapshot.decision.desired.http_sites

    return (statsd.report(http.statsd, http.statsd_prefix, count, sites),)


async def collect_garbage() -> None:
    """Look at none but young objects until the first catalog is in force, or will not be soon; from then on give back
    what memory is not used any more, if it is much."""
    collection, unused = GarbageCollection(), UnusedMemory()
    collection.defer()
    try:
        await asyncio.sleep(STARTING)
        collection.resume()
        while True:
            await asyncio.to_thread(unused.give_back)
            await asyncio.sleep(UNUSED)
    finally:
        collection.end()


def saved_settings(settings: Settings, journal: Journal) -> SavedSettings:
    """What the kernel's settings were before this node, or the one before it, changed them."""
    originals = SavedSettings(
        settings.node.state_dir, lambda what, remedy: report([Finding("warning", "kernel", what, mend=remedy)], journal)
    )
    if not settings.ipvs.manage_sysctls:
        originals.drop()  # from now on they are the operator's
    return originals


def make_api(
    settings: Settings, node: Node, meters: Meters, history: History, statistics: Callable[[], Awaitable[Statistics]]
) -> Api:
    """The node's HTTP listener, with its metrics, its web page and its commands' answers."""
    http = make_http_statistics(settings.http) if settings.http else None
    ends = CertificateFiles(Path(settings.http.certificate_dir), not_after).look if settings.http else None
    metrics = Metrics(node, meters, node.journal, Sources(statistics, http.read if http else None, ends))
    context = Context(
        snapshot=lambda: node.snapshot,
        journal=node.journal,
        confirm=node.follower.confirm,
        scrape=metrics.scrape,
        settings=settings,
        store=make_store(settings),
        check_types=parameters(types(settings.checks)),
        alive_at=lambda: node.alive_at,
        source=described(settings),
        statistics=statistics,
        history=history,
        ask_haproxy=http.look_up if http else None,
        certificate_ends=ends,
    )
    socket = Path(settings.api.socket) if settings.api.socket else None
    return Api(context, settings.api.listen, socket=socket, outer=(meters.requests.middleware,))


def on_signals(
    settings: Settings, node: Node, api: Api, notify: Notifier, reread: Callable[[], Settings] | None
) -> None:
    """From now on SIGTERM, SIGINT, SIGUSR1 and SIGHUP mean what ``serve`` says, to the calling task."""
    running = asyncio.current_task()
    assert running is not None

    def emit(after: str, reason: str) -> None:
        node.journal.emit(Event("daemon", settings.node.name, after=after, reason=reason))

    def stop() -> None:
        if node.inbox.inputs.stopping:  # asked twice: now, and leave the rest to the bridge
            running.cancel()
            return
        notify.stopping()
        emit("stopping", "withdraw, drain, remove")
        node.stop()

    def hand_over() -> None:
        notify.handing_over()
        emit("handing over", "routes and kernel stay")
        running.cancel()

    def hang_up() -> None:
        if reread is not None:
            compare(settings, reread, node.journal)
        api.reread()
        node.follower.reread()

    actions = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGUSR1: hand_over, signal.SIGHUP: hang_up}
    for number, act in actions.items():
        asyncio.get_running_loop().add_signal_handler(number, act)


async def inspect(settings: Settings, journal: Journal) -> None:
    """Report what keeps this machine from being a good node. Raises ``DriverError`` if it cannot be one."""
    findings = preflight(await asyncio.to_thread(at_start, settings))
    report(findings, journal)
    if errors := [f"{finding.what} (mend: {finding.mend})" for finding in findings if finding.level == "error"]:
        raise DriverError("; ".join(errors))


def catalog_inspector(settings: Settings, journal: Journal) -> Callable[[Catalog], None]:
    """A function that is given each new catalog, and reports what the machine lacks for its services: once a fault."""
    known: set[Finding] = set()
    asked = PerService(asked_by)

    def inspect_catalog(catalog: Catalog) -> None:
        findings = preflight(with_catalog(settings, catalog, asked), WITH_CATALOG)
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
    """Keep for this process what a unit's AmbientCapabilities gave it: programs that it starts must not inherit it, but
    for the checker process (``engine.checker``)."""
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
    return_large_blocks()
    code = 0
    try:
        asyncio.run(serve(settings, load))
    except* AnycastlbError as group:
        for exc in group.exceptions:
            logging.getLogger("anycastlb").error("%s", exc)
        code = 1
    return code
