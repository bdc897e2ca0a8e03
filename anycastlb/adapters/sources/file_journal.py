"""Record what a write to a directory of files will do, in one file; renaming it into place is the moment of the write.

While the journal names files, whoever reads the directory sees those as the journal says, and whoever writes next
finishes them first. A file that somebody else has changed since is theirs. Between writes the journal names the last
one only, so that a reader who sees two journals around one look knows that it may have seen a mix.

Each file is written beside its place, synced and renamed over. It knows no catalog.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from anycastlb.core.catalog.bounds import MAX_BYTES
from anycastlb.core.model import SourceError

NAME = ".anycastlb.journal"
LOCK = ".anycastlb.lock"
LOCK_MODE = 0o660
"""Whoever can open the lock can hold it, and with it every write."""
PLACES = ("services", "gateways", "routes", "drain", "locks")
"""The folders that hold documents."""
MAX_JOURNAL = 64 * 1024 * 1024
"""Bytes of the journal."""
FEW = 8
"""Files that are synced one by one; each takes its turn of the disk."""
TIMEOUT = 30.0
"""Seconds to wait for another writer."""
UNREADABLE = "unreadable"
"""The version of what is there but cannot be read."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file."""

    name: str
    """Its path below the root."""
    before: str
    """The version it must have; empty: it must not be there."""
    after: bytes | None
    """None: it goes."""


@dataclass(frozen=True, slots=True)
class FileJournal:
    id: str = ""
    changes: tuple[FileChange, ...] = ()
    """Empty: all is in its place."""


def version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def read(root: Path) -> FileJournal:
    """Raises ``SourceError`` if it is there and cannot be understood: the files may be half of something."""
    path = root / NAME
    try:
        document = json.loads(ordinary(path, MAX_JOURNAL, os.O_NOFOLLOW))
        changes = tuple(FileChange(_inside(name), before, _bytes(after)) for name, before, after in document["changes"])
        if changes and document.get("root") != _identity(root):
            raise ValueError("it was written for another directory, and copied")
        return FileJournal(str(document["id"]), changes)
    except FileNotFoundError:
        return FileJournal()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise SourceError(
            f"{path}: {exc!s:.300}; expected what anycastlb wrote; remove it if it cannot be mended"
        ) from exc


def write(root: Path, journal: FileJournal) -> None:
    """Raises ``OSError``, which leaves the old one."""
    changes = [(change.name, change.before, _text(change.after)) for change in journal.changes]
    document = {"id": journal.id, "changes": changes, **({"root": _identity(root)} if changes else {})}
    content = json.dumps(document).encode()
    if len(content) > MAX_JOURNAL:
        raise OSError(errno.EFBIG, f"expected a write of at most {MAX_JOURNAL} bytes, not {len(content)}")
    put(root / NAME, content)
    sync(root)


def _inside(name: str) -> str:
    """The name, if it is a document's place below the root: a journal that somebody laid there may say anything.

    Raises ``ValueError``.
    """
    parts = name.split("/")
    placed = parts[0] in PLACES or (len(parts) == 1 and name.startswith("defaults."))
    name.encode()
    if placed and all(part and not part.startswith(".") and "\0" not in part for part in parts):
        return name
    raise ValueError(f"{name!r:.200} is no place for a document")


def outside(root: Path, changes: Iterable[FileChange]) -> frozenset[Path]:
    """The folders of these changes that a symbolic link leads to somewhere else than below the root."""
    folders = {(root / change.name).parent for change in changes}
    return frozenset(folder for folder in folders if leads_out(root, folder))


def leads_out(root: Path, path: Path) -> bool:
    """Is it by a symbolic link somewhere else than below the root? Whoever writes a catalog may write links too, and
    has the rights of the daemon neither to read nor to write."""
    return not path.resolve().is_relative_to(root.resolve())


def ordinary(path: Path, limit: int, flags: int = 0) -> bytes:
    """What is in a file. Anything else may have no end, or nobody at its other end. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "expected a file", str(path))
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"expected at most {limit} bytes", str(path))
    return content


def _identity(root: Path) -> list[int]:
    """What a copy of the directory has not: device and inode."""
    status = root.stat()
    return [status.st_dev, status.st_ino]


def finish(root: Path, journal: FileJournal) -> None:
    """Do what is still to be done, and say so in the journal. Raises ``OSError``; then it can be called again.

    All new files are written before the first is renamed, so that the disk is waited for once.
    """
    folders, elsewhere = {root}, outside(root, journal.changes)
    ready: list[tuple[FileChange, Path]] = []
    for change in journal.changes:
        path = root / change.name
        if path.parent not in elsewhere and now(root, path) == change.before:  # else it is done, or somebody else's
            folders |= make(path.parent)
            ready.append((change, path if change.after is None else _beside(path, change.after)))
    _written([beside for change, beside in ready if change.after is not None])
    for change, beside in ready:
        path = root / change.name
        folders.add(path.parent)
        if now(root, path) != change.before:
            if change.after is not None:
                beside.unlink()
        elif change.after is not None:
            beside.replace(path)
        else:
            path.unlink(missing_ok=True)
            folders |= _prune(root, path.parent)
    for folder in folders:
        with suppress(FileNotFoundError):
            sync(folder)
    write(root, FileJournal(journal.id))


def now(root: Path, path: Path) -> str:
    """The version of a file as it is."""
    try:
        if path.is_symlink() and leads_out(root, path):
            return UNREADABLE
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return ""
        return version(ordinary(path, MAX_BYTES))
    except FileNotFoundError:
        return UNREADABLE if path.is_symlink() else ""
    except OSError:
        return UNREADABLE


def put(path: Path, content: bytes) -> None:
    """Replace a file whole. Raises ``OSError``."""
    beside = _beside(path, content)
    _written([beside])
    beside.replace(path)


def _beside(path: Path, content: bytes) -> Path:
    """A file with that content, and with the mode and the owner of the one whose place it will take."""
    beside = path.with_name(f".{version(os.fsencode(path.name))[:16]}.anycastlb.tmp")
    beside.unlink(missing_ok=True)
    with beside.open("xb") as file:
        file.write(content)
        with suppress(OSError):
            old = path.lstat()
            if not stat.S_ISREG(old.st_mode):
                return beside
            os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
            os.fchown(file.fileno(), old.st_uid, old.st_gid)
    return beside


def _written(files: Sequence[Path]) -> None:
    """Wait until they are on the disk; many of them with one call for all that the file system holds."""
    if len(files) > FEW:
        folders = {file.parent.stat().st_dev: file.parent for file in files}
        if all(_call(folder, _syncfs) for folder in folders.values()):
            return
    for file in files:
        _call(file, os.fsync)


def _call(path: Path, function: Callable[[int], object]) -> bool:
    """Whether the function of a descriptor was content: it returned nothing, or 0."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return not function(descriptor)
    finally:
        os.close(descriptor)


def _syncfs(descriptor: int) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syncfs(descriptor))


def sync(folder: Path) -> None:
    """A rename lasts only once the directory is on the disk too."""
    _call(folder, os.fsync)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Nobody else writes meanwhile, in this process or another. Ends with the process. Blocks. Raises ``OSError``."""
    path = root / LOCK
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, LOCK_MODE)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "expected the lock to be a file; remove what is there", str(path))
        with suppress(PermissionError):  # of another user's lock
            os.fchmod(descriptor, LOCK_MODE)
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if time.monotonic() > end:
                    raise OSError(exc.errno, f"another process has held {path} for {TIMEOUT:g} s") from exc
                time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


def make(folder: Path) -> set[Path]:
    """Make the folder; those that have a new entry."""
    changed = set()
    above = folder
    while not above.is_dir():
        above = above.parent
        changed.add(above)
    folder.mkdir(parents=True, exist_ok=True)
    return changed


def _prune(root: Path, folder: Path) -> set[Path]:
    """Remove the folders that have become empty; those that have lost an entry. The first level stays."""
    changed = set()
    while folder != root and folder.parent != root:
        try:
            folder.rmdir()
        except OSError:
            break
        folder = folder.parent
        changed.add(folder)
    return changed


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()
