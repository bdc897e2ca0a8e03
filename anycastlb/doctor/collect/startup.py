"""The facts that a daemon needs about its own machine when it starts, and when it takes over a catalog.

They are read at once, inside the running event loop: nothing is asked over a network. Nothing is changed, and no module
is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from anycastlb.core.catalog.per_service import PerService
from anycastlb.core.model import Address, Catalog, Forward, Service
from anycastlb.doctor.collect import haproxy, host, processes
from anycastlb.doctor.facts import Facts, Kernel, Needs, Process
from anycastlb.settings import Settings

DEFAULT_SCHEDULERS = ("mh",)
"""What services use unless their documents say otherwise: at start the catalog is not known yet."""


def at_start(settings: Settings) -> Facts:
    """What this process, which is about to become a node, finds on its machine."""
    return Facts(
        config="node.toml",
        settings=settings,
        starting=True,
        me=processes.process(os.getpid()) or Process(os.getpid(), ()),
        kernel=host.kernel(DEFAULT_SCHEDULERS),
        needs=Needs(schedulers=DEFAULT_SCHEDULERS),
        exposed_secrets=host.exposed_secrets(settings),
        haproxy=haproxy.tier(settings.http) if settings.http else None,
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """What one service asks of the machine."""

    nat: Mapping[tuple[Address, Forward], str]
    """As ``Needs.forwards``: of each family the first backend that is reached by ``nat``."""
    through: bool
    """A check goes through IPVS."""


def asked_by(service: Service) -> Asked | None:
    """None: nothing, as nearly every service."""
    nat = [backend for backend in service.backends if backend.forward == "nat"]
    first = {backend.address.version: backend for backend in reversed(nat)}
    forwards = {(one.address, one.forward): f"{service.name}/{one.name}" for one in first.values()}
    through = any(backend.through for backend in service.backends)
    return Asked(forwards, through) if forwards or through else None


def with_catalog(settings: Settings, catalog: Catalog, asked: PerService[Asked | None] | None = None) -> Facts:
    """What ``WITH_CATALOG`` judges: what the catalog asks of the machine, and how the machine is set up for it.

    ``asked``: of ``asked_by``; it remembers what the services of the catalog before asked.
    """
    services = list(filter(None, (asked or PerService(asked_by))(catalog.services)))
    nat = {where: name for one in reversed(services) for where, name in one.nat.items()}
    through = any(one.through for one in services) and any(
        vip.version == 4 for service in catalog.services for vip in service.vips
    )
    sysctls = host.sysctls((*host.FORWARDING, *host.of_interfaces("accept_local"))) if nat or through else {}
    needs = Needs(forwards=nat, through=through)
    return Facts(config="node.toml", settings=settings, starting=True, kernel=Kernel("", sysctls=sysctls), needs=needs)
