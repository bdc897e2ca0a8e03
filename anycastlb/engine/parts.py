"""The real parts of a node, made from its settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from anycastlb.adapters.cluster import Registry
from anycastlb.adapters.cluster.consul import ConsulRegistry
from anycastlb.adapters.discovery import Kind, LossRule
from anycastlb.adapters.discovery.consul import GRACE, ConsulDiscovery
from anycastlb.adapters.discovery.dns import DnsDiscovery
from anycastlb.adapters.discovery.watch import Kinds
from anycastlb.adapters.drivers.addresses import AddressDriver
from anycastlb.adapters.drivers.ipvs.config import ConfigDriver
from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.adapters.drivers.names import RecordStore
from anycastlb.adapters.drivers.names.background import RecordDriver
from anycastlb.adapters.drivers.names.consul import ConsulServices
from anycastlb.adapters.drivers.names.dns import DnsZone
from anycastlb.adapters.drivers.sysctls import PROBING, TAKEOVER, SysctlDriver
from anycastlb.adapters.sources import Source, Store
from anycastlb.adapters.sources.consul import ConsulSource
from anycastlb.adapters.sources.consul_store import ConsulStore
from anycastlb.adapters.sources.file import FileSource
from anycastlb.adapters.sources.file_store import FileStore
from anycastlb.core.events import Event
from anycastlb.core.model import (
    ConsulInstances,
    Discover,
    Share,
)
from anycastlb.settings import Settings
from anycastlb.settings.ipvs import SYNC_REFRESH, SYNC_THRESHOLD


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
    vanished = LossRule(settings.catalog.max_shrink, GRACE)
    resolves_to_nothing = LossRule(Share(percent=100.0), settings.catalog.confirm)

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
    places: list[RecordStore] = []
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
        "probing_sysctls": PROBING,
        "config": ipvs.config,
        "cached_config": ipvs.cached_config,
    }
