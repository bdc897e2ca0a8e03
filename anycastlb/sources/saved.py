"""The last good tree on disk, so that a node starts when its source is away.

One JSON file in ``state_dir``: version, identity of the source, checksum, entries. It is written beside its place,
synced and renamed over, so that a crash leaves the old file or the new one. A file that is not exactly what was
written is refused, never half used.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from anycastlb.model import Entry, SourceError, Tree

VERSION = 1
NAME = "catalog.json"


class SavedTree:
    """The saved tree of one source. ``identity`` says which (``consul anycastlb/``): another's tree is not ours."""

    def __init__(self, state_dir: str | Path, identity: str) -> None:
        self.path = Path(state_dir) / NAME
        self._identity = identity

    def load(self) -> Tree | None:
        """The saved tree; None if there is none. Raises ``SourceError`` for one that cannot be used."""
        try:
            document = json.loads(self.path.read_bytes())
            if document["version"] != VERSION:
                raise ValueError(f"version {document['version']!r}, expected {VERSION}")
            if document["source"] != self._identity:
                raise ValueError(f"it was read from {document['source']!r}, this node follows {self._identity!r}")
            if document["checksum"] != _checksum(document["index"], document["entries"]):
                raise ValueError("the checksum does not fit")
            return Tree({key: _entry(row) for key, row in document["entries"].items()}, int(document["index"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise SourceError(f"the saved catalog {self.path} cannot be used ({exc}); it will be replaced") from exc

    def save(self, tree: Tree) -> None:
        """Replace the file. Raises ``SourceError`` (a full disk), which leaves the old file as it was."""
        entries = {key: _row(entry) for key, entry in sorted(tree.entries.items())}
        document = {
            "version": VERSION,
            "source": self._identity,
            "index": tree.index,
            "checksum": _checksum(tree.index, entries),
            "entries": entries,
        }
        beside = self.path.with_name(f"{NAME}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(beside, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                    file.write(json.dumps(document, indent=1).encode())
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(self.path)
                _sync(self.path.parent)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as exc:
            raise SourceError(f"the catalog cannot be saved to {self.path}: {exc}; free or mend that disk") from exc


def _row(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"value": base64.b64encode(entry.value).decode(), "created": entry.created}
    return row | {"format": entry.format, "origin": entry.origin, "error": entry.error}


def _entry(row: dict[str, Any]) -> Entry:
    value = base64.b64decode(row["value"], validate=True)
    return Entry(value, int(row["created"]), row["format"], str(row["origin"]), str(row["error"]))


def _checksum(index: int, entries: dict[str, Any]) -> str:
    canonical = json.dumps([index, entries], sort_keys=True).encode()
    return "sha256:" + hashlib.sha256(canonical).hexdigest()


def _sync(folder: Path) -> None:
    """A rename lasts only once the directory is on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
