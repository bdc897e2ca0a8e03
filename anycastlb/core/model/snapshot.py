"""What readers may see: one cycle of the reconciler, whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from anycastlb.core.model.base import EMPTY, Address
from anycastlb.core.model.decision import Decision
from anycastlb.core.model.inputs import Inputs
from anycastlb.core.model.machine import Change, Failure, State
from anycastlb.core.model.names import Registrar


@dataclass(frozen=True, slots=True)
class Session:
    """One BGP session of the local ExaBGP."""

    peer: str
    state: Literal["up", "down", "connected", "unknown"]
    since: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Speaker:
    """The local BGP speaker as the bridge last reported it."""

    connected: bool = False
    """Is the bridge connected to the daemon?"""
    version: str = ""
    sessions: tuple[Session, ...] = ()
    rejected: Mapping[Address, str] = field(default_factory=lambda: EMPTY)
    """Routes ExaBGP or the bridge refused, with the reason."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One reconciler cycle, whole: all that API, metrics and commands may see."""

    inputs: Inputs = Inputs()
    actual: State = State()
    decision: Decision = Decision()
    plan: tuple[Change, ...] = ()
    """What this cycle tried, in its order."""
    failures: tuple[Failure, ...] = ()
    """What of it was refused."""
    pending: tuple[Change, ...] = ()
    """What is still to be changed after the cycle: what was refused, and names, which are written in the background."""
    speaker: Speaker = Speaker()
    registrars: tuple[Registrar, ...] = ()
    at: float = 0.0
    at_wall: float = 0.0
    cycle: int = 0
