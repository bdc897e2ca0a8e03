"""Write the catalog in a directory: every document is replaced whole, all of them at one moment (``file_journal``).

A document stays in its file if that is JSON, or the plain form. One in TOML or YAML is replaced by a ``.json``: what is
written is JSON, and a file is what its name says. One writer at a time has the directory; people with editors do not
ask for it, so what they have changed is looked at again right before it would be replaced.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from anycastlb.adapters.sources import file_journal, staging
from anycastlb.adapters.sources.file import SUFFIXES, FileSource, key_of, litter
from anycastlb.adapters.sources.file_journal import FileChange, FileJournal
from anycastlb.core.model import Edit, Entry, SourceError, Tree

LONGEST = 200
"""Bytes of a name: a file system takes 255."""


class FileStore:
    def __init__(self, path: str | Path) -> None:
        self._root = Path(path)
        self._source = FileSource(path)

    async def load(self) -> Tree:
        return await self._source.read(None)

    async def commit(self, edits: Sequence[Edit], judged: Tree | None = None) -> None:
        """See ``Store``. What people change with an editor counts as a judged write here.

        A commit that is cancelled is made all the same: a thread has it.
        """
        staging.checked(edits)
        if edits:
            await asyncio.to_thread(self._commit, edits, judged)

    async def close(self) -> None:
        await self._source.close()

    # ------------------------------------------------------------ in a thread

    def _commit(self, edits: Sequence[Edit], judged: Tree | None) -> None:
        try:
            if not self._root.is_dir():
                raise SourceError(f"{self._root} is no directory; create it, or set catalog.path to one that exists")
            with file_journal.alone(self._root):
                before = file_journal.read(self._root)
                if before.changes:
                    file_journal.finish(self._root, before)
                entries = FileSource(self._root).look().entries
                settled = staging.settled(edits, entries)
                if judged is not None:
                    staging.unchanged(judged.entries, entries)
                changes = tuple(change for edit in settled for change in _changes(edit, entries))
                if changes:
                    self._enforce(FileJournal(uuid.uuid4().hex, changes))
        except OSError as exc:
            raise SourceError(f"{exc}; nothing was written; expected a directory that this user may write") from exc

    def _enforce(self, wanted: FileJournal) -> None:
        """Raises ``OSError`` if nothing was written. What fails later is the next writer's to do: it is in force."""
        for folder in file_journal.outside(self._root, wanted.changes):
            raise OSError(f"{folder} is reached by a symbolic link that leads out of the catalog")
        for change in wanted.changes:
            if change.after is not None:
                _writable(self._root / change.name)
        try:
            file_journal.write(self._root, wanted)
        except OSError:
            if file_journal.read(self._root) != wanted:
                raise
        with suppress(OSError):
            file_journal.finish(self._root, wanted)


def _changes(edit: Edit, entries: Mapping[str, Entry]) -> list[FileChange]:
    """What becomes of which files. Raises ``SourceError`` for a key that cannot be a file's."""
    entry = entries.get(edit.key)
    if edit.value is None:
        return [
            FileChange(other.origin, other.version, None)
            for other in entries.values()
            if key_of(other.origin) == edit.key
        ]
    if entry and not entry.error and entry.value == edit.value:
        return []
    if entry and _kept(entry.origin):
        return [FileChange(entry.origin, entry.version, edit.value)]
    name = edit.key if edit.key.startswith("drain/") else f"{edit.key}.json"
    _fits(name)
    new = FileChange(name, "", edit.value)
    return [new, FileChange(entry.origin, entry.version, None)] if entry else [new]


def _kept(origin: str) -> bool:
    return origin.startswith("drain/") or SUFFIXES.get(Path(origin).suffix, "json") == "json"


def _fits(name: str) -> None:
    parts = name.split("/")
    places = dict.fromkeys(file_journal.PLACES, (2, 2)) | {"services": (2, 4)}
    deep = places.get(parts[0], (1, 1) if name == "defaults.json" else (0, 0))
    if not deep[0] <= len(parts) <= deep[1]:
        raise SourceError(f"{name} is no place for a document; nothing was written; expected one such as services/web")
    for part in parts:
        if litter(part) or len(part.encode(errors="surrogatepass")) > LONGEST or "\ufffd" in part:
            raise SourceError(
                f"{part!r:.300} cannot be a file's name here; nothing was written; expected at most {LONGEST} bytes, "
                "without a dot or # in front, and without the endings of editors' copies"
            )


def _writable(path: Path) -> None:
    """Check every precondition first, so that a failure leaves nothing half written. Raises ``OSError``."""
    file_journal.make(path.parent)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; expected a file, or nothing")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{path.parent} may not be written")
