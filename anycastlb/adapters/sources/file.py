"""Follow the catalog in a directory: the same tree as in Consul, as files.

``services/web.json`` is the key ``services/web``, ``services/web/backends/web1`` (plain form, or with an extension)
the key ``services/web/backends/web1``. It parses nothing, writes nothing and follows what happens to the directory:
replaced, renamed over, a symbolic link that turns elsewhere. inotify is only for speed: the directory is looked at
every ``POLL`` seconds anyway, since notifications do not cross every file system and every symbolic link.

One bad file stops no other: a file that cannot be read, or that says again what another says, becomes an entry with
an ``error``. A directory that cannot be read is a ``SourceError``: half a catalog must not pass for a whole one.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from watchfiles import awatch

from anycastlb.adapters.sources import file_journal
from anycastlb.adapters.sources.file_journal import FileChange
from anycastlb.core.catalog.bounds import MAX_BYTES
from anycastlb.core.model import Entry, SourceError, Tree

POLL = 1.0
"""Seconds between looks when nothing was notified."""
SETTLE = 0.05
"""Seconds a changed directory must stay as it is before it is believed: files are written in pieces."""
TRIES = 5
"""Looks that a writer may spoil before it is kept out for one."""
SUFFIXES: dict[str, Literal["json", "toml", "yaml"]] = {
    ".json": "json",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
}
YOUNG = 2_000_000_000
"""Nanoseconds: a file changed this recently may change again without a new time stamp, so it is read every time."""
UNREADABLE = b"\0"
"""Parses in no format: an entry with an error never passes for an empty document."""
Stamp = tuple[int, int, int, int] | None


class FileSource:
    def __init__(self, path: str | Path) -> None:
        self._root = Path(path)
        self._index = 0
        self._seen: dict[str, tuple[Stamp, Entry]] = {}
        """File -> its stamp and what was in it: an unchanged file is not read again."""
        self._watch: AsyncGenerator[Any, None] | None = None
        self._watched: tuple[int, int] | None = None

    async def read(self, after: Tree | None) -> Tree:
        tree = await asyncio.to_thread(self.look)
        if after is None:
            return tree
        while tree.entries == after.entries:
            await self._wait()
            tree = await asyncio.to_thread(self.look)
            if tree.entries != after.entries:
                tree = await self._settled(tree)
        return tree

    async def close(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.aclose()

    # ------------------------------------------------------------ waiting

    async def _settled(self, tree: Tree) -> Tree:
        """The tree once two looks agree; a file written without end does not hold it up for ever."""
        for _ in range(20):
            await asyncio.sleep(SETTLE)
            again = await asyncio.to_thread(self.look)
            if again.entries == tree.entries:
                break
            tree = again
        return again

    async def _wait(self) -> None:
        """Until something may have changed: notified, or ``POLL`` seconds are over."""
        try:
            identity = _identity(self._root)
            if self._watch is None or identity != self._watched:
                await self.close()
                self._watched = identity
                self._watch = awatch(
                    self._root.resolve(),
                    watch_filter=None,
                    debounce=200,
                    step=50,  # milliseconds from one wake-up of its thread to the next
                    rust_timeout=int(POLL * 1000),
                    yield_on_timeout=True,
                    ignore_permission_denied=True,
                )
            await anext(self._watch)
        except (OSError, RuntimeError, StopAsyncIteration):
            # The directory is gone, or the system's inotify watches are used up: what is left is the slow look.
            await self.close()
            await asyncio.sleep(POLL)
        except asyncio.CancelledError:
            await self.close()
            raise

    # ------------------------------------------------------------ looking (in a thread)

    def look(self) -> Tree:
        """The tree as it is, before or after a write by ``FileStore`` and never between. Blocks."""
        if not self._root.is_dir():
            raise SourceError(f"{self._root} is no directory; create it, or set catalog.path to one that exists")
        for _ in range(TRIES):
            journal = file_journal.read(self._root)
            tree = self._scan({change.name: change for change in journal.changes})
            if file_journal.read(self._root) == journal:
                return tree
        try:
            with file_journal.alone(self._root):
                return self._scan({change.name: change for change in file_journal.read(self._root).changes})
        except OSError as exc:
            raise SourceError(f"{exc}; expected a pause in the writes to {self._root}") from exc

    def _scan(self, changes: Mapping[str, FileChange]) -> Tree:
        """What is there, and what the journal says will be."""
        seen: dict[str, tuple[Stamp, Entry]] = {}
        entries: dict[str, Entry] = {}
        coming = {name for name, change in changes.items() if change.after is not None}
        outside: set[str] = set()
        try:
            for name in sorted({*_files(self._root, outside), *coming}, key=_precedence):
                file = _link_out(name) if name in outside else self._file(name)
                if (change := changes.get(name)) and (file[1].version if file else "") == change.before:
                    file = _coming(change)
                if file is None:
                    continue
                seen[name] = file
                key, entry = key_of(_shown(name)), file[1]
                if key in entries:
                    first = entries[key].origin
                    error = f"expected one document for {key}, but {first} is there too and is used; remove one of them"
                    key, entry = entry.origin, replace(entry, value=UNREADABLE, error=error)
                entries[key] = entry
        except OSError as exc:
            raise SourceError(f"{exc}; expected a directory tree that this user may read") from exc
        self._seen = seen
        self._index += 1
        return Tree(entries, self._index)

    def _file(self, name: str) -> tuple[Stamp, Entry] | None:
        """The file's stamp and entry; None if it went away, or is neither a file nor a link to one."""
        path = self._root / name
        kind = SUFFIXES.get(Path(name).suffix, "json")
        try:
            status = path.stat()
            settled = time.time_ns() - status.st_mtime_ns > YOUNG
            stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns) if settled else None
            if not stat.S_ISREG(status.st_mode):
                return None
            before = self._seen.get(name)
            if before and stamp and before[0] == stamp:
                return before
            content = file_journal.ordinary(path, MAX_BYTES)
            return stamp, Entry(content, format=kind, origin=_shown(name), version=file_journal.version(content))
        except OSError as exc:
            if isinstance(exc, FileNotFoundError) and not path.is_symlink():
                return None
            return _unreadable(name, f"expected a file that can be read: {exc.strerror or exc}")


def _unreadable(name: str, error: str) -> tuple[Stamp, Entry]:
    kind = SUFFIXES.get(Path(name).suffix, "json")
    version = file_journal.UNREADABLE
    return None, Entry(UNREADABLE, format=kind, origin=_shown(name), error=error, version=version)


def _link_out(name: str) -> tuple[Stamp, Entry]:
    return _unreadable(name, "expected a file that can be read: this symbolic link leads out of the catalog")


def _coming(change: FileChange) -> tuple[Stamp, Entry] | None:
    """A file as the journal has it."""
    if change.after is None:
        return None
    kind = SUFFIXES.get(Path(change.name).suffix, "json")
    return None, Entry(change.after, format=kind, origin=change.name, version=file_journal.version(change.after))


def _files(root: Path, outside: set[str]) -> Iterator[str]:
    """The documents, as paths below the root; without what editors and copiers leave lying about. Links that lead out
    are put into ``outside`` too. Raises ``SourceError`` if the folder of a kind of documents is one."""
    with os.scandir(root) as listing:
        tops = [entry for entry in listing if not litter(entry.name)]
    for top in tops:
        document, folder = key_of(top.name) == "defaults", top.name in file_journal.PLACES
        if (document or folder) and top.is_symlink() and file_journal.leads_out(root, Path(top.path)):
            if folder:
                raise SourceError(
                    f"{top.path} is a symbolic link that leads out of the catalog; expected a directory: "
                    "let catalog.path itself be the link"
                )
            outside.add(top.name)
            yield top.name
        elif not top.is_dir():
            if document:
                yield top.name
        elif folder:
            yield from _below(root, top.name, 3 if top.name == "services" else 1, outside)


def _below(root: Path, folder: str, depth: int, outside: set[str]) -> Iterator[str]:
    with os.scandir(root / folder) as listing:
        entries = [entry for entry in listing if not litter(entry.name)]
    for entry in entries:
        name = f"{folder}/{entry.name}"
        if entry.is_symlink() and file_journal.leads_out(root, Path(entry.path)):
            outside.add(name)
            yield name
        elif not entry.is_dir():
            yield name
        elif depth > 1:
            yield from _below(root, name, depth - 1, outside)


LEFT_BEHIND = (
    "~", ".swp", ".swo", ".swn", ".swx", ".tmp", ".lock", ".part", ".bak", ".orig", ".rej", ".old", ".save",
    ".dpkg-new", ".dpkg-old", ".dpkg-dist", ".dpkg-tmp", ".dpkg-bak", ".ucf-new", ".ucf-old", ".ucf-dist",
    ".rpmnew", ".rpmsave", ".rpmorig", ".pacnew", ".pacsave",
)  # fmt: skip


def litter(name: str) -> bool:
    """Is it one of the names that editors, copiers and package managers leave, and no document?

    What goes on after the ending of a document is a copy of one: ``web.json.1``.
    """
    return name.startswith((".", "#")) or name.endswith(LEFT_BEHIND) or any(f"{end}." in name for end in SUFFIXES)


def _shown(name: str) -> str:
    """A name that can be printed: bytes that are no UTF-8 become question marks, which no key may hold."""
    return os.fsencode(name).decode(errors="replace")


def key_of(name: str) -> str:
    """``services/web.yaml`` -> ``services/web``; a name in ``drain/`` is a node's and keeps its dots."""
    path = Path(name)
    if path.suffix in SUFFIXES and path.parts[0] != "drain":
        return name.removesuffix(path.suffix)
    return name


def _precedence(name: str) -> tuple[str, int]:
    """Of two files for one key the first in this order is used: .json, .toml, .yaml, .yml, none."""
    return key_of(name), [*SUFFIXES, Path(name).suffix].index(Path(name).suffix)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
