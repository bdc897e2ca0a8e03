"""What every step of one decision is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from anycastlb.core.decision.containment import Containment
from anycastlb.core.decision.handover import Successor
from anycastlb.core.decision.http.listening import Listening
from anycastlb.core.model import EMPTY, Change, Failure, Inputs, Memory, Reason, ServiceKey, Table

BUILT: tuple[Table, ...] = ("addresses", "services", "destinations", "http_servers", "http_sites")
Refusals: TypeAlias = Mapping[object, Reason]
"""What the machine refused to create, and so cannot serve, by key and with its reason."""


@dataclass(frozen=True, slots=True)
class Basis:
    """The arguments of ``decide``, and what follows from them for every step."""

    inputs: Inputs
    memory: Memory
    now: float
    refused: Refusals
    replaced: frozenset[Successor] = frozenset()
    """The services and VIPs whose old backends, taken out by an edit, still get flows."""
    vips: int = 0
    """How many VIPs the catalog has."""
    listening: Mapping[str, Listening] = field(default_factory=lambda: EMPTY)
    """What the gates of gateways go by, by their names."""
    contained: Containment = field(default_factory=Containment)
    """Collects the faults of the steps."""


def refused(inputs: Inputs) -> Refusals:
    """What the machine has refused to create so far."""
    return {key: failure.reason for failure in refusals(inputs.failures) for key in _subjects(failure.change)}


def refusals(failures: Iterable[Failure]) -> tuple[Failure, ...]:
    """The failures a decision depends on: what could not be built. What could not be changed still serves as it was."""
    return tuple(failure for failure in failures if _unbuilt(failure.change))


def unheard(change: Change) -> frozenset[ServiceKey]:
    """Where HAProxy does not listen because this change of its configuration was not made."""
    return change.new.listens - (change.old.listens if change.old else frozenset()) if change.new else frozenset()


def _subjects(change: Change) -> Iterable[object]:
    return unheard(change) if change.table == "http_engine" else (change.key,)


def _unbuilt(change: Change) -> bool:
    if change.table == "services" and change.verb == "update":
        return bool(change.old.scheduler == "none")  # filled, but never switched to its scheduler
    if change.table == "http_engine":
        return bool(unheard(change))
    return change.verb == "create" and change.table in BUILT
