"""Keep in ``state_dir`` what a restarted daemon must still know of its gates: one small JSON file, written whole.

Nothing is decided here. A file that is missing says nothing; one that cannot be read, or holds anything else than what
this module has written, is complained about and says nothing either.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from anycastlb.adapters.system.atomic_file import write_atomic
from anycastlb.core.model import Gate, Recollection, ServiceKey

NAME = "gates.json"
VERSION = 1
LARGEST = 64 * 2**20
"""Bytes: far more than 100,000 gates take."""
BAD = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


class GateMemory(Protocol):
    """Where what is known of the gates outlives the daemon."""

    def load(self) -> Recollection | None: ...

    def save(self, recollection: Recollection) -> None: ...


class NoGateMemory:
    """Nothing outlives the daemon."""

    def load(self) -> Recollection | None:
        return None

    def save(self, recollection: Recollection) -> None:
        return None


class GateFile:
    """The file of one state directory. ``complain(what, remedy)`` hears why it cannot be read or kept."""

    def __init__(self, state_dir: str | Path, complain: Callable[[str, str], None] = lambda what, remedy: None) -> None:
        self.path = Path(state_dir) / NAME
        self._complain, self._complained = complain, ""

    def load(self) -> Recollection | None:
        """What the daemon before this one knew; None if nobody can say."""
        try:
            with self.path.open("rb") as file:
                content = file.read(LARGEST + 1)
            return _decode(content)
        except FileNotFoundError:
            return None
        except BAD as exc:
            remedy = "nothing needs to be done: gates open as at a first start, without hold times and penalties"
            self._complain(f"{self.path} cannot be used: {exc}", remedy)
            return None

    def save(self, recollection: Recollection) -> None:
        """Replace the file."""
        try:
            write_atomic(self.path, _encode(recollection))
            self._complained = ""
        except OSError as exc:
            if str(exc) != self._complained:
                self._complained = str(exc)
                what = f"{self.path} cannot be written ({exc}): a restart would forget hold times and damping"
                self._complain(
                    what, f"make {self.path.parent} writable for the daemon, and see whether its disk is full"
                )


def _encode(recollection: Recollection) -> bytes:
    gates = {
        str(vip): {
            "open": gate.open,
            "since": gate.since if math.isfinite(gate.since) else None,
            "penalty": gate.penalty if math.isfinite(gate.penalty) else 0.0,
            "penalty_at": gate.penalty_at,
            "suppressed_since": gate.suppressed_since,
            "withdrawn": gate.withdrawn_wall,
        }
        for vip, gate in recollection.gates.items()
    }
    below = [[key.protocol, str(key.address), key.port] for key in sorted(recollection.below, key=str)]
    document = {"version": VERSION, "at": recollection.at_wall, "gates": gates, "below_threshold": below}
    return json.dumps(document, indent=1).encode()


def _decode(content: bytes) -> Recollection:
    if len(content) > LARGEST:
        raise ValueError(f"more than {LARGEST} bytes")
    document = json.loads(content)
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r}; expected {VERSION}")
    gates = {ip_address(_text(vip)): _gate(gate) for vip, gate in document["gates"].items()}
    below = frozenset(_key(*parts) for parts in document["below_threshold"])
    return Recollection(gates, below, _number(document["at"]))


def _gate(document: Any) -> Gate:
    since, suppressed = document["since"], document["suppressed_since"]
    if not isinstance(document["open"], bool):
        raise ValueError(f"{document['open']!r} as open; expected true or false")
    return Gate(
        open=document["open"],
        since=-math.inf if since is None else _number(since),
        penalty=max(0.0, _number(document["penalty"])),
        penalty_at=_number(document["penalty_at"]),
        suppressed_since=None if suppressed is None else _number(suppressed),
        withdrawn_wall=int(_number(document["withdrawn"])),
    )


def _key(protocol: Any, address: Any, port: Any) -> ServiceKey:
    if protocol not in ("tcp", "udp", "sctp", "fwmark") or not isinstance(port, int):
        raise ValueError(f"{protocol!r} {address!r} {port!r}; expected a service")
    return ServiceKey(protocol, ip_address(_text(address)), port)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r}; expected an address")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r}; expected a number")
    return float(value)
