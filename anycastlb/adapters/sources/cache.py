"""Keep the last good catalog and the last discovered instances on disk, so that a node starts without its source.

Two JSON files in ``state_dir``: version, identity of the source, checksum, content. Each is written beside its place,
synced and renamed over, so that a crash leaves the old file or the new one. A file that is not exactly what was
written is refused, never half used.

A small change of the catalog is not worth a whole file: it is a line of its own in a third file, which names the
checksum of what it changes, and has one. So a line counts only where it was written: one that a crash has cut off, that
another process wrote, or that follows either, changes nothing, and what was saved before it stands.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from anycastlb.adapters.system.atomic_file import append, write_atomic
from anycastlb.core.delta import delta
from anycastlb.core.model import ConsulInstances, Discover, DnsInstances, Entry, Instance, SourceError, Tree

VERSION = 1
NAME = "catalog.json"
CHANGES = "catalog.changes"
INSTANCES = "instances.json"
MANY, SMALL = 100, 4
"""Entries of a change that has a line of its own, at most; and all such lines take at most this part of the whole."""
TOGETHER = 50
"""Entries that are written and hashed at once."""
BAD = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a damaged file can raise."""
Instances: TypeAlias = Mapping[Discover, tuple[Instance, ...]]


@dataclass(frozen=True, slots=True)
class OnDisk:
    """What this process has written last."""

    entries: Mapping[str, Entry]
    checksum: str
    """Of the whole file, or of the last line of the changes."""
    room: int
    """Bytes that further changes may take."""


class SavedTree:
    """The saved tree of one source. ``identity`` says which (``consul anycastlb/``): another's tree is not ours."""

    def __init__(self, state_dir: str | Path, identity: str) -> None:
        self.path, self._changes = Path(state_dir) / NAME, Path(state_dir) / CHANGES
        self._identity = identity
        self._on_disk: OnDisk | None = None
        """None where that is not known: the next save writes the whole."""

    def load(self) -> Tree | None:
        """The saved tree; None if there is none. Raises ``SourceError`` for one that cannot be used."""
        try:
            document = _read(self.path, self._identity)
            if document["checksum"] != _checksum(document["index"], document["entries"]):
                raise ValueError("the checksum does not fit")
            tree = Tree({key: _entry(row) for key, row in document["entries"].items()}, int(document["index"]))
            return self._changed(tree, str(document["checksum"]))
        except FileNotFoundError:
            return None
        except BAD as exc:
            raise SourceError(f"the saved catalog {self.path} cannot be used ({exc}); it will be replaced") from exc

    def save(self, tree: Tree) -> None:
        """Make it so. Raises ``SourceError`` (a full disk), which leaves what was saved before as it was."""
        before, self._on_disk = self._on_disk, None
        if before is not None and self.path.exists() and (change := _change(before, tree)) is not None:
            checksum, line = change
            try:
                append(self._changes, line)
            except OSError as exc:
                raise _unsaved(self._changes, exc) from exc
            self._on_disk = OnDisk(tree.entries, checksum, before.room - len(line))
            return
        rows = [_line(key, tree.entries[key]) for key in sorted(tree.entries)]
        checksum = _digest(chain([b"[%d, {" % tree.index], _separated(rows, b", "), [b"}]"]))
        head = {"version": VERSION, "source": self._identity, "index": tree.index, "checksum": checksum}
        begin = json.dumps(head).encode()[:-1] + b', "entries": {\n'
        _replace(self.path, chain([begin], _separated(rows, b",\n"), [b"\n}}"]))
        with suppress(OSError):
            self._changes.unlink()  # they are of another whole, and say nothing any more
        self._on_disk = OnDisk(tree.entries, checksum, sum(map(len, rows)) // SMALL)

    def _changed(self, tree: Tree, checksum: str) -> Tree:
        """The tree with the changes that were saved since. ``checksum``: of the whole."""
        try:
            lines = self._changes.read_bytes().split(b"\n")[:-1]
        except OSError:
            return tree
        entries, index = dict(tree.entries), tree.index
        for line in lines:
            with suppress(*BAD):
                row = json.loads(line)
                number, change = int(row["index"]), row["change"]
                if row["checksum"] == _checksum(number, change) and change["after"] == checksum:
                    edited, gone = {key: _entry(entry) for key, entry in change["entries"].items()}, set(change["gone"])
                    entries.update(edited)
                    for key in gone & entries.keys():
                        del entries[key]
                    index, checksum = number, str(row["checksum"])
        return Tree(entries, index)


def _change(before: OnDisk, tree: Tree) -> tuple[str, bytes] | None:
    """The checksum of a change and its line; None if it is too large for one."""
    keys = delta(before.entries, tree.entries).keys
    if len(keys) > MANY:
        return None
    now = {key: tree.entries[key] for key in keys if key in tree.entries}
    edited = {key: _row(entry) for key, entry in now.items() if before.entries.get(key) != entry}
    gone = [key for key in keys if key not in now]
    change = {"after": before.checksum, "entries": edited, "gone": gone}
    checksum = _checksum(tree.index, change)
    line = json.dumps({"index": tree.index, "checksum": checksum, "change": change}).encode() + b"\n"
    return (checksum, line) if len(line) <= before.room else None


def _line(key: str, entry: Entry) -> bytes:
    """An entry in the whole file, as the checksum wants it."""
    return f"{json.dumps(key)}: {json.dumps(_row(entry), sort_keys=True)}".encode()


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
        raise _unsaved(path, exc) from exc


def _unsaved(path: Path, exc: OSError) -> SourceError:
    return SourceError(f"the catalog cannot be saved to {path}: {exc}; free or mend that disk")


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
