"""The facts that a daemon needs about its own machine when it starts, and when it takes over a catalog.

They are read at once, inside the running event loop: nothing is asked over a network. Nothing is changed, and no module
is loaded.
"""

from __future__ import annotations

import os

from anycastlb.core.model import Catalog
from anycastlb.doctor.collect import consul, host, processes
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
    )


def with_catalog(settings: Settings, catalog: Catalog) -> Facts:
    """What ``WITH_CATALOG`` judges: what the catalog asks of the machine, and how the machine is set up for it."""
    needs = Needs(forwards=consul.forwards(catalog), through=consul.probes_through_ipvs(catalog))
    nat = any(forward == "nat" for _, forward in needs.forwards)
    sysctls = host.sysctls((*host.FORWARDING, *host.of_interfaces("accept_local"))) if nat or needs.through else {}
    return Facts(config="node.toml", settings=settings, starting=True, kernel=Kernel("", sysctls=sysctls), needs=needs)
