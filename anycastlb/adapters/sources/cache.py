"""Keep the last good catalog and the last discovered instances on disk, so that a node starts without its source.

Two JSON files in ``state_dir``: version, identity of the source, checksum, content. Each is written beside its place,
synced and renamed over, so that a crash leaves the old file or the new one. A file that is not exactly what was
written is refused, never half used.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from anycastlb.adapters.system.atomic_file import write_atomic
from anycastlb.core.model import ConsulInstances, Discover, DnsInstances, Entry, Instance, SourceError, Tree

VERSION = 1
NAME = "catalog.json"
INSTANCES = "instances.json"
TOGETHER = 50
"""Entries that are written and hashed at once."""
BAD = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a damaged file can raise."""
Instances: TypeAlias = Mapping[Discover, tuple[Instance, ...]]


class SavedTree:
    """The saved tree of one source. ``identity`` says which (``consul anycastlb/``): another's tree is not ours."""

    def __init__(self, state_dir: str | Path, identity: str) -> None:
        self.path = Path(state_dir) / NAME
        self._identity = identity
        self._lines: dict[str, tuple[Entry, bytes]] = {}
        """The entries that were saved last, each with its line in the file."""

    def load(self) -> Tree | None:
        """The saved tree; None if there is none. Raises ``SourceError`` for one that cannot be used."""
        try:
            document = _read(self.path, self._identity)
            if document["checksum"] != _checksum(document["index"], document["entries"]):
                raise ValueError("the checksum does not fit")
            return Tree({key: _entry(row) for key, row in document["entries"].items()}, int(document["index"]))
        except FileNotFoundError:
            return None
        except BAD as exc:
            raise SourceError(f"the saved catalog {self.path} cannot be used ({exc}); it will be replaced") from exc

    def save(self, tree: Tree) -> None:
        """Replace the file. Raises ``SourceError`` (a full disk), which leaves the old file as it was."""
        rows = self._encoded(tree)
        checksum = _digest(chain([b"[%d, {" % tree.index], _separated(rows, b", "), [b"}]"]))
        head = {"version": VERSION, "source": self._identity, "index": tree.index, "checksum": checksum}
        begin = json.dumps(head).encode()[:-1] + b', "entries": {\n'
        _replace(self.path, chain([begin], _separated(rows, b",\n"), [b"\n}}"]))

    def _encoded(self, tree: Tree) -> list[bytes]:
        """A line for each entry, as the checksum wants it; those of entries that were saved before are remembered."""
        known, self._lines = self._lines, {}
        for key in sorted(tree.entries):
            entry, line = tree.entries[key], known.get(key)
            if line is None or line[0] is not entry:
                line = entry, f"{json.dumps(key)}: {json.dumps(_row(entry), sort_keys=True)}".encode()
            self._lines[key] = line
        return [line for _, line in self._lines.values()]


class SavedInstances:
    """What was discovered last, beside the saved tree of the same source."""

    def __init__(self, state_dir: str | Path, identity: str) -> None:
        self.path = Path(state_dir) / INSTANCES
        self._identity = identity

    def load(self) -> Instances:
        """What was saved; empty if nothing was. Raises ``SourceError`` for a file that cannot be used."""
        try:
            document = _read(self.path, self._identity)
            if document["checksum"] != _checksum(0, document["found"]):
                raise ValueError("the checksum does not fit")
            return {_discover(row): tuple(map(_instance, row["instances"])) for row in document["found"]}
        except FileNotFoundError:
            return {}
        except BAD as exc:
            raise SourceError(f"the saved instances {self.path} cannot be used ({exc}); replaced when found") from exc

    def save(self, instances: Instances) -> None:
        """Replace the file. Raises ``SourceError``, which leaves the old file as it was."""
        rows = [_discovered(*row) for row in sorted(instances.items(), key=str)]
        _write(self.path, self._identity, {"checksum": _checksum(0, rows), "found": rows})


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was on disk, and why not what was not."""

    tree: Tree | None = None
    instances: Instances = field(default_factory=dict)
    errors: tuple[str, ...] = ()


class CatalogCache:
    """Both files of one source; each is written only when it would say something else."""

    def __init__(self, state_dir: str | Path, identity: str) -> None:
        self._tree = SavedTree(state_dir, identity)
        self._instances = SavedInstances(state_dir, identity)
        self._entries: Mapping[str, Entry] | None = None
        """What is known to be on disk; None = nothing is."""
        self._saved_instances: Instances = {}
        self._lock = threading.Lock()
        """Held by whoever writes: a stop may come while a thread does."""

    def load(self) -> Recalled:
        """Whatever of it can be used. Blocks."""
        errors: list[str] = []
        tree: Tree | None = None
        instances: Instances = {}
        try:
            tree = self._tree.load()
            self._entries = tree.entries if tree is not None else None
        except SourceError as exc:
            errors.append(str(exc))
        try:
            instances = self._saved_instances = self._instances.load()
        except SourceError as exc:
            errors.append(str(exc))
        return Recalled(tree, instances, tuple(errors))

    def has(self, entries: Mapping[str, Entry], instances: Instances) -> bool:
        """Is exactly this on disk?"""
        return entries == self._entries and instances == self._saved_instances

    def save(self, tree: Tree, instances: Instances) -> None:
        """Make it so. Blocks. Raises ``SourceError``."""
        with self._lock:
            if instances != self._saved_instances:  # first: the tree needs them
                self._instances.save(instances)
                self._saved_instances = instances
            if tree.entries != self._entries:
                self._tree.save(tree)
                self._entries = tree.entries


def _read(path: Path, identity: str) -> Any:
    document = json.loads(path.read_bytes())
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r}, expected {VERSION}")
    if document["source"] != identity:
        raise ValueError(f"it was read from {document['source']!r}, this node follows {identity!r}")
    return document


def _write(path: Path, identity: str, content: Mapping[str, Any]) -> None:
    _replace(path, json.dumps({"version": VERSION, "source": identity, **content}, indent=1).encode())


def _replace(path: Path, content: bytes | Iterable[bytes]) -> None:
    try:
        write_atomic(path, content)
    except OSError as exc:
        raise SourceError(f"the catalog cannot be saved to {path}: {exc}; free or mend that disk") from exc


def _row(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"value": base64.b64encode(entry.value).decode(), "created": entry.created}
    return row | {"format": entry.format, "origin": entry.origin, "error": entry.error}


def _entry(row: dict[str, Any]) -> Entry:
    value = base64.b64decode(row["value"], validate=True)
    return Entry(value, int(row["created"]), row["format"], str(row["origin"]), str(row["error"]))


def _discovered(wanted: Discover, instances: tuple[Instance, ...]) -> dict[str, Any]:
    kind = "consul" if isinstance(wanted, ConsulInstances) else "dns"
    return {kind: _fields(wanted), "instances": [_fields(instance) for instance in instances]}


def _fields(value: Discover | Instance) -> dict[str, Any]:
    return {name: str(field) if _is_address(field) else field for name, field in asdict(value).items()}


def _is_address(field: object) -> bool:
    return isinstance(field, (IPv4Address, IPv6Address))


def _discover(row: dict[str, Any]) -> Discover:
    if "consul" in row:
        return ConsulInstances(**row["consul"])
    fields, resolver = row["dns"], row["dns"]["resolver"]
    return DnsInstances(**{**fields, "resolver": None if resolver is None else ip_address(resolver)})


def _instance(row: dict[str, Any]) -> Instance:
    return Instance(**{**row, "address": ip_address(row["address"])})


def _checksum(index: int, content: Any) -> str:
    return _digest([json.dumps([index, content], sort_keys=True).encode()])


def _digest(canonical: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in canonical:
        digest.update(part)
    return "sha256:" + digest.hexdigest()


def _separated(rows: Sequence[bytes], separator: bytes) -> Iterator[bytes]:
    """The rows with a separator between them, in parts: one block of all would be hundreds of page faults."""
    for at in range(0, len(rows), TOGETHER):
        yield (separator if at else b"") + separator.join(rows[at : at + TOGETHER])
