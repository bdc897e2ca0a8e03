"""Firewall marks for probes through IPVS (``"via": "forward"``): which backend has which, and the rows behind it.

Theory of operation. A probe that should take the way of the real traffic is sent to the VIP, with a firewall mark.
The kernel looks for an IPVS service with that mark before it looks for one of that address and port, and finds one
that has exactly one destination: the backend, as the real service reaches it. So every way to a backend
(``ForwardPath``) needs a mark and two rows. They are rows of the desired state like all others, but nothing waits for
them: they are never drained, no VIP depends on them, and a mark that nobody needs any more goes at once.

Pure. Which marks are ours is decided by their range alone. Decision record:
docs/decisions/0004-probes-through-ipvs.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from anycastlb.core.model import (
    Destination,
    DestinationKey,
    ForwardPath,
    Inputs,
    Memory,
    ServiceKey,
    Snapshot,
    State,
    VirtualService,
)

Range = tuple[int, int]
"""Lowest and highest mark, both included."""


def allot(vias: Iterable[ForwardPath], known: Mapping[ForwardPath, int], marks: Range) -> dict[ForwardPath, int | None]:
    """A mark for each: the known one if it lies in the range, else the lowest that nobody has; None = none is left.

    A mark that is known is given to nobody else in this decision, even if its owner is gone: a probe may still be
    under way with it.
    """
    low, high = marks
    given = {via: known.get(via) for via in vias}
    kept = {via: mark if mark is not None and low <= mark <= high else None for via, mark in given.items()}
    taken = set(known.values())
    free = (mark for mark in range(low, high + 1) if mark not in taken)
    new = sorted((via for via, mark in kept.items() if mark is None), key=_order)
    return {**kept, **{via: next(free, None) for via in new}}


def _order(via: ForwardPath) -> tuple[int, int, int, str, int, int]:
    return via.family, via.address.version, int(via.address), via.forward, via.tunnel_port, via.port


def service_key(via: ForwardPath, mark: int) -> ServiceKey:
    return ServiceKey("fwmark", IPv4Address(0) if via.family == 4 else IPv6Address(0), mark)


def destination_key(via: ForwardPath, mark: int) -> DestinationKey:
    return DestinationKey(service_key(via, mark), via.address, via.port)


def service_row(via: ForwardPath) -> VirtualService:
    """Datagrams are scheduled one by one, so that no connection entry sends a later probe from the same port to an
    earlier probe's backend. Not with ``nat``, whose replies need the entry."""
    return VirtualService("rr", one_packet=via.forward != "nat")


def destination_row(via: ForwardPath) -> Destination:
    return Destination(via.forward, 1, 1, tunnel_port=via.tunnel_port)


def split(actual: State, marks: Range) -> tuple[dict[ForwardPath, int], State]:
    """What a former daemon left in the kernel: the marks it had given, and the state without the rows of probes.

    Of two marks with the same meaning the lower counts; one with no or several destinations means nothing.
    """
    by_mark: dict[int, list[ForwardPath]] = {}
    for key, row in actual.destinations.items():
        if _ours(key.service, marks):
            via = ForwardPath(key.address, row.forward, row.tunnel_port, key.service.address.version, key.port)
            by_mark.setdefault(key.service.port, []).append(via)
    known: dict[ForwardPath, int] = {}
    for mark, vias in sorted(by_mark.items()):
        if len(vias) == 1:
            known.setdefault(vias[0], mark)
    rest = replace(
        actual,
        services={key: row for key, row in actual.services.items() if not _ours(key, marks)},
        destinations={key: row for key, row in actual.destinations.items() if not _ours(key.service, marks)},
    )
    return known, rest


def _ours(key: ServiceKey, marks: Range) -> bool:
    return key.protocol == "fwmark" and marks[0] <= key.port <= marks[1]


def rows(
    probe_paths: Mapping[ForwardPath, int | None],
) -> tuple[dict[ServiceKey, VirtualService], dict[DestinationKey, Destination]]:
    """The IPVS services and destinations that these marks need."""
    given = {via: mark for via, mark in probe_paths.items() if mark is not None}
    return (
        {service_key(via, mark): service_row(via) for via, mark in given.items()},
        {destination_key(via, mark): destination_row(via) for via, mark in given.items()},
    )


def usable(snapshot: Snapshot) -> dict[ForwardPath, int | str]:
    """Of each way to a backend the mark that the kernel now has, or why it has none; absent: not yet known."""
    if not snapshot.decision.probe_paths:
        return {}
    reasons = {failure.change.key: failure.reason for failure in snapshot.failures}
    out: dict[ForwardPath, int | str] = {}
    low, high = snapshot.inputs.policy.marks
    for via, mark in snapshot.decision.probe_paths.items():
        if mark is None:
            out[via] = f"no firewall mark is left for the probe in {low}-{high}: widen [checks] marks in node.toml"
            continue
        service, destination = service_key(via, mark), destination_key(via, mark)
        if reason := reasons.get(destination) or reasons.get(service):
            out[via] = f"the kernel has no way for the probe: {reason}"
        elif _programmed(snapshot.actual, via, mark):
            out[via] = mark
    return out


def _programmed(actual: State, via: ForwardPath, mark: int) -> bool:
    if actual.services.get(service_key(via, mark)) != service_row(via):
        return False
    return actual.destinations.get(destination_key(via, mark)) == destination_row(via)


def paths(vias: Iterable[ForwardPath], inputs: Inputs, memory: Memory) -> dict[ForwardPath, int | None]:
    """The firewall mark of every backend that is probed through IPVS; a node that stops probes nothing.

    ``vias``: every way to a backend that a check of the catalog takes through IPVS.
    """
    return {} if inputs.stopping else allot(vias, memory.marks, inputs.policy.marks)


def come_free(probed: Mapping[ForwardPath, int | None], memory: Memory) -> bool:
    """Is a mark missing, and one freed only now, so that the next decision can give it away?"""
    return None in probed.values() and bool(memory.marks.keys() - probed.keys())
