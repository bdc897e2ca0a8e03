"""The real parts of a node, made from its settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from anycastlb.adapters.certificates import CertificateFiles, fingerprint
from anycastlb.adapters.checks import tcp, types
from anycastlb.adapters.checks.probe.reach import Reach
from anycastlb.adapters.cluster import Registry
from anycastlb.adapters.cluster.consul import ConsulRegistry
from anycastlb.adapters.cluster.instance import instance
from anycastlb.adapters.discovery import Kind, LossRule
from anycastlb.adapters.discovery.consul import FOLLOWED, GRACE, PAUSE, ConsulConnections, ConsulDiscovery
from anycastlb.adapters.discovery.watch import Kinds
from anycastlb.adapters.drivers.addresses import AddressDriver
from anycastlb.adapters.drivers.bgp import BgpDriver
from anycastlb.adapters.drivers.bridge_server import BridgeServer
from anycastlb.adapters.drivers.haproxy.beside import HaproxyBeside
from anycastlb.adapters.drivers.haproxy.driver import HaproxyDriver
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.sockets import SocketRuntime
from anycastlb.adapters.drivers.haproxy.statistics import HaproxyStatistics
from anycastlb.adapters.drivers.haproxy.tries import HaproxyTries
from anycastlb.adapters.drivers.ingress import IngressDriver
from anycastlb.adapters.drivers.ipvs.config import ConfigDriver
from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.adapters.drivers.names import RecordStore
from anycastlb.adapters.drivers.names.background import RecordDriver
from anycastlb.adapters.drivers.names.consul import ConsulServices
from anycastlb.adapters.drivers.saved_settings import Restorable, SavedSettings
from anycastlb.adapters.drivers.sysctls import PROBING, TAKEOVER, SysctlDriver
from anycastlb.adapters.gate_memory import NAME, GateFile
from anycastlb.adapters.sources import Source, Store
from anycastlb.adapters.sources.consul import ConsulSource
from anycastlb.adapters.sources.consul_store import ConsulStore
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event
from anycastlb.core.model import (
    EMPTY,
    HTTP_TABLES,
    NAMES,
    Catalog,
    Check,
    ConsulInstances,
    Discover,
    DrainRules,
    Inputs,
    Policy,
    Rows,
    Share,
    Spread,
    Table,
)
from anycastlb.engine.checker.processes import in_own_processes
from anycastlb.engine.checker.protocol import bounds
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.machine import Machine, Pulse
from anycastlb.engine.node import Parts
from anycastlb.settings import HttpSettings, Settings
from anycastlb.settings.http import GATEWAY_MARKS
from anycastlb.settings.ipvs import SYNC_REFRESH, SYNC_THRESHOLD


def make_source(settings: Settings) -> Source:
    if settings.catalog.source == "file":
        from anycastlb.adapters.sources.file import FileSource  # nobody else needs its library

        return FileSource(settings.catalog.path)
    return ConsulSource(settings.consul)


def make_store(settings: Settings) -> Store:
    if settings.catalog.source == "file":
        from anycastlb.adapters.sources.file_store import FileStore

        return FileStore(settings.catalog.path)
    return ConsulStore(settings.consul)


def make_kinds(settings: Settings) -> Kinds:
    """How instances are discovered. A Consul that has lost too many is doubted for a moment; a name without records,
    for as long as a catalog that has lost too many VIPs: its records come in one piece or not at all."""
    vanished = LossRule(settings.catalog.max_shrink, GRACE)
    connections = ConsulConnections(settings.consul)
    resolves_to_nothing = LossRule(Share(percent=100.0), settings.catalog.confirm)

    def kind(wanted: Discover) -> Kind:
        if isinstance(wanted, ConsulInstances):
            return Kind(lambda: ConsulDiscovery(wanted, connections), vanished, FOLLOWED, PAUSE)
        from anycastlb.adapters.discovery.dns import DnsDiscovery  # nobody else needs its library

        return Kind(lambda: DnsDiscovery(wanted), resolves_to_nothing)

    return kind


def make_registry(settings: Settings) -> Registry | None:
    return ConsulRegistry(settings.consul) if settings.catalog.source == "consul" else None


def make_registrars(
    settings: Settings, emit: Callable[[Event], None], on_change: Callable[[], None], alive_at: Callable[[], float]
) -> tuple[RecordDriver, ...]:
    """Where this node writes names."""
    places: list[RecordStore] = []
    if settings.dns.server:
        from anycastlb.adapters.drivers.names.dns import DnsZone  # nobody else needs its library

        places.append(DnsZone(settings.dns, Path(settings.node.state_dir) / "dns-names"))
    if settings.consul.register_services:
        places.append(ConsulServices(settings.consul, settings.node.name, settings.bgp.hold))
    return tuple(RecordDriver(place, emit, on_change, alive_at, max(settings.bgp.hold, 5.0)) for place in places)


def described(settings: Settings) -> str:
    """The catalog source in words an operator can act on."""
    if settings.catalog.source == "file":
        return f"file {settings.catalog.path}"
    return f"consul {settings.consul.address} {settings.consul.prefix}"


class Drivers(NamedTuple):
    """The drivers of the kernel's tables, in the order in which they observe."""

    sysctls: SysctlDriver
    config: ConfigDriver
    addresses: AddressDriver
    ipvs: IpvsDriver


def installation_of(settings: HttpSettings) -> Installation:
    return Installation(
        Path(settings.directory),
        Path(settings.certificate_dir),
        Path(settings.socket),
        Path(settings.master_socket),
        Path(settings.program),
        threads=settings.threads,
        hard_stop_after=settings.hard_stop_after,
    )


def make_http(settings: HttpSettings, on_change: Callable[[], None] = lambda: None) -> HaproxyBeside:
    """The driver of HAProxy."""
    installation = installation_of(settings)
    runtime = SocketRuntime(installation.socket, installation.master, installation.program)
    return HaproxyBeside(HaproxyDriver(installation, runtime, on_change), runtime, on_change)


def make_spread(settings: HttpSettings | None) -> Spread | None:
    """How connections of gateways are shared with the other nodes."""
    if settings is None or settings.address is None:
        return None
    check = Check("tcp", settings.address, 0, tcp.Params(), interval=1.0, timeout=1.0, rise=2, fall=3)
    return Spread(settings.address, settings.ingress, settings.marks, check)


def make_http_statistics(settings: HttpSettings) -> HaproxyStatistics:
    """What asks HAProxy for its counters."""
    installation = installation_of(settings)
    return HaproxyStatistics(installation, _questions(installation))


def _questions(installation: Installation) -> SocketRuntime:
    """A connection for questions alone, so that they hold up no change."""
    return SocketRuntime(installation.socket, installation.master, installation.program)


def make_drivers(settings: Settings) -> Drivers:
    node, spread = settings.node, make_spread(settings.http)
    marks = (*node.fwmark_ranges, settings.checks.marks, spread.marks if spread else GATEWAY_MARKS)
    ipvs = IpvsDriver(node.vip_ranges, marks)
    sysctls = SysctlDriver((*TAKEOVER, *PROBING, SYNC_THRESHOLD, SYNC_REFRESH))
    return Drivers(sysctls, ConfigDriver(ipvs.use), AddressDriver(), ipvs)


def make_announcer(settings: Settings, journal: Journal, wake: Callable[[], None]) -> BgpDriver:
    bgp = settings.bgp
    server = BridgeServer(bgp.socket, bgp.group, journal.emit)
    return BgpDriver(server, bgp.hold, settings.node.vip_ranges, on_change=wake, emit=journal.emit)


def kernel_settings(settings: Settings) -> dict[str, Any]:
    """What the kernel must be set to, as inputs of a decision; nothing where the operator manages it."""
    ipvs = settings.ipvs
    if not ipvs.manage_sysctls:
        return {}
    return {
        "sysctls": {**TAKEOVER, **ipvs.sysctls},
        "probing_sysctls": PROBING,
        "config": ipvs.config,
        "cached_config": ipvs.cached_config,
    }


def drain_rules(settings: Settings) -> DrainRules:
    """How this node leaves the routes."""
    drain, max_drained = settings.drain, settings.cluster.max_drained
    return DrainRules(drain.graceful, drain.med, drain.prepend, drain.settle, drain.deadline, max_drained)


def first_inputs(settings: Settings, originals: Mapping[Table, Rows] = EMPTY, **kernel: Any) -> Inputs:
    """The inputs of a node's first decision: what node.toml says, and nothing of the world.

    ``kernel``: its ``kernel_settings``, where they are to be kept.
    """
    policy = Policy(
        node=settings.node.name,
        marks=settings.checks.marks,
        max_withdrawals=settings.cluster.max_withdrawals,
        drain_rules=drain_rules(settings),
        naming=settings.naming,
        http=settings.http is not None,
        spread=make_spread(settings.http),
        **kernel,
    )
    return Inputs(policy, originals=originals)


def _complain(journal: Journal, what: str, remedy: str) -> None:
    journal.emit(Event("failure", NAME, f"{what}; {remedy}", level="warning"))


def make_parts(
    settings: Settings,
    drivers: Drivers,
    originals: SavedSettings,
    journal: Journal,
    pulse: Pulse,
    on_catalog: Callable[[Catalog], None],
) -> tuple[Parts, BgpDriver]:
    """Every part of a real node, and its announcer, which has to be run beside it."""
    inputs = first_inputs(settings, originals.rows, **kernel_settings(settings))
    inbox = Inbox(inputs)
    announcer = make_announcer(settings, journal, partial(inbox.wake, BgpDriver.tables))
    sysctls, config = Restorable(drivers.sysctls, originals), Restorable(drivers.config, originals)
    spread = inputs.policy.spread
    marking = [IngressDriver(spread.interfaces)] if spread else []
    http = make_http(settings.http, partial(inbox.wake, HTTP_TABLES)) if settings.http else None
    machine = Machine(
        (sysctls, config, drivers.addresses, drivers.ipvs, *marking, *([http] if http else [])),
        announcer,
        make_registrars(settings, journal.emit, partial(inbox.wake, NAMES), lambda: pulse.at),
        inspected=drivers.ipvs,
        unused=drivers.ipvs.unused,
        counters=drivers.ipvs.statistics,
        originals=lambda: originals.rows,
        gate_memory=GateFile(settings.node.state_dir, partial(_complain, journal)),
        pulse=pulse,
        haproxy=http,
    )
    parts = Parts(
        inbox,
        make_source(settings),
        machine,
        check_types=types(settings.checks, Reach(settings.checks.networks, settings.closed)),
        kinds=make_kinds(settings),
        make_checking=in_own_processes(bounds(settings)),
        on_catalog=on_catalog,
        certificates=CertificateFiles(Path(settings.http.certificate_dir), fingerprint) if settings.http else None,
        count_tries=HaproxyTries(_questions(installation_of(settings.http))).read if settings.http else None,
        registry=make_registry(settings),
        instance=instance(settings.node.state_dir),
        started_wall=time.time(),
    )
    return parts, announcer
