"""What GORB keeps in Consul, as ``consul kv export PREFIX`` prints it, to the documents that its REST API would write.

A host that is a name cannot be looked up here: what has one is left out. Each backend gets a key of its own. Pure.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from anycastlb.core.catalog.bounds import MAX_BULK, read_json
from anycastlb.core.catalog.keys import named
from anycastlb.core.fields import shown
from anycastlb.core.importers import gorb
from anycastlb.core.importers.documents import Documents, Note, UnreadableInput, weight

EXPECTED = 'what `consul kv export PREFIX` prints: [{"key": ..., "flags": 0, "value": ...}]'
SERVICE = ("host", "port", "protocol", "method", "flags", "persistent", "delifaddr")
BACKEND = ("host", "port", "weight", "method", "pulse", "vsid")
PULSE = ("type", "interval", "args")
ARGS = ("method", "path", "host", "port", "expect")
Options = dict[str, Any]


def convert(text: str) -> tuple[Documents, list[Note]]:
    """The documents by key, and what could not be carried over, or not exactly. Raises ``UnreadableInput``."""
    conversion = _Conversion()
    backends: list[tuple[str, Any]] = []
    for key, value in _values(text):
        match key.strip("/").split("/"):
            case [*_, "services", name]:
                conversion.add(f"service {shown(name)}", name, value)
            case [*_, "backends", name]:
                backends.append((name, value))
            case [*_, "gorblock"]:
                pass  # held while GORB reads
            case _:
                conversion.notes.append(Note(0, f"{shown(key)}: neither services/NAME nor backends/NAME; left out"))
    for name, value in backends:
        conversion.add(f"backend {shown(name)}", name, value, of_a_service=False)
    return conversion.documents, conversion.notes


class _Conversion:
    def __init__(self) -> None:
        self.documents: Documents = {}
        self.notes: list[Note] = []

    def add(self, what: str, name: str, value: Any, of_a_service: bool = True) -> None:
        notes: list[Note] = []
        try:
            options = _options(value)
            if not named(name):
                raise ValueError("nothing here can have that name")
            if hosts := gorb.names(options):
                raise ValueError(f"{shown(min(hosts))} is a name, and no address is looked up for it")
            key, document = (self._service if of_a_service else self._backend)(name, options, notes)
            if key in self.documents:
                raise ValueError("it is there twice")
            self.documents[key] = document
        except (ValueError, gorb.GorbRefusal) as exc:
            notes = [Note(0, f"{exc}; left out")]
        self.notes += [Note(0, f"{what}: {note.what}") for note in notes]

    def _service(self, name: str, options: Options, notes: list[Note]) -> tuple[str, Options]:
        if "vip" in options:
            raise ValueError("a document of anycastlb's own; `anycastlb export` writes what can be imported")
        document = gorb.service(options, {})
        notes += _unknown(options, SERVICE)
        if "persistence" in document:
            notes.append(Note(0, "persistent: GORB never told the kernel; here a client stays for 5 minutes"))
        return f"services/{name}", document

    def _backend(self, name: str, options: Options, notes: list[Note]) -> tuple[str, Options]:
        service = self.documents.get(f"services/{options.get('vsid')}")
        if service is None:
            raise ValueError(f"vsid {shown(options.get('vsid'))}: there is no such service")
        document = gorb.backend(options, {}, ip_address(service["vip"]).version)
        document["weight"] = weight(document["weight"], 0, notes)
        if options.get("weight") == 0:
            document["weight"] = 0
            notes.append(Note(0, "weight 0: GORB makes 100 of it when it starts anew; here it stays 0"))
        pulse = _spelt(options.get("pulse") or {})
        notes += _unknown(options, BACKEND) + _unknown(pulse, PULSE, "pulse.")
        notes += _unknown(pulse.get("args") or {}, ARGS, "pulse.args.")
        return f"services/{options['vsid']}/backends/{name}", document


def _unknown(options: Any, known: tuple[str, ...], place: str = "") -> list[Note]:
    if not isinstance(options, dict):
        return [Note(0, f"{place.rstrip('.')}: expected an object, not {shown(options)}; left out")]
    names = (name for name in options if name.lower() not in known)
    return [Note(0, f"{place}{name:.60}: no field of GORB's; left out") for name in names]


def _spelt(options: Mapping[str, Any]) -> Options:
    """With names in small letters: GORB makes no difference."""
    return {name.lower(): value for name, value in options.items()}


def _options(value: Any) -> Options:
    """The options in a value of Consul's. Raises ValueError."""
    try:
        options = read_json(base64.b64decode(value, validate=True).decode())
    except (TypeError, ValueError) as exc:
        raise ValueError(f"expected the base64 of an object in JSON: {exc}") from exc
    if not isinstance(options, dict):
        raise ValueError(f"expected an object, not {shown(options)}")
    return _spelt(options)


def _values(text: str) -> Iterator[tuple[str, Any]]:
    """The keys of an export with their values. Raises ``UnreadableInput``."""
    try:
        export = read_json(text, MAX_BULK)
    except ValueError as exc:
        raise UnreadableInput(0, f"expected {EXPECTED}: {exc}") from exc
    rows: list[Any] = export if isinstance(export, list) else [None]
    if not all(isinstance(row, dict) and isinstance(row.get("key"), str) for row in rows):
        raise UnreadableInput(0, f"expected {EXPECTED}, not {shown(export)}")
    yield from ((row["key"], row.get("value")) for row in rows)
