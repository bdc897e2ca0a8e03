"""The IPVS side of a service document: its scheduler, the flags of that scheduler, and its persistence."""

from __future__ import annotations

from collections.abc import Sequence

from anycastlb.core.catalog.schema import ServiceDocument
from anycastlb.core.model import Backend, Protocol, VirtualService

FLAGS = {"mh-port": "mh", "mh-fallback": "mh", "sh-port": "sh", "sh-fallback": "sh"}
"""Flags that belong to one scheduler; ``flag-1`` to ``flag-3`` go with any."""
CANONICAL = {
    ("mh", "flag-1"): "mh-fallback",
    ("mh", "flag-2"): "mh-port",
    ("sh", "flag-1"): "sh-fallback",
    ("sh", "flag-2"): "sh-port",
}
"""The kernel has three bits; where a scheduler names one, that is its name."""


def parse_virtual(protocol: Protocol, parsed: ServiceDocument, backends: Sequence[Backend]) -> VirtualService:
    """The settings of the virtual service in IPVS, with the defaults that depend on other fields."""
    flags = parsed.scheduler_flags
    if flags is None:
        flags = ("mh-port", "mh-fallback") if parsed.scheduler == "mh" else ()
    one_packet = parsed.one_packet
    if one_packet is None:
        # Stateless UDP: every packet is hashed. Not with nat, whose replies need the connection entry.
        stateful = parsed.persistence or any(backend.forward == "nat" for backend in backends)
        one_packet = protocol == "udp" and parsed.scheduler == "mh" and not stateful
    keep = parsed.persistence
    return VirtualService(
        scheduler=parsed.scheduler,
        flags=frozenset(CANONICAL.get((parsed.scheduler, flag), flag) for flag in flags),
        one_packet=one_packet,
        persistence=round(keep.timeout) if keep else 0,
        persistence_prefix=keep.netmask or 0 if keep else 0,
    )
