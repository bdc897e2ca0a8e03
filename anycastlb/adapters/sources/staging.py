"""Let a write of more keys than one transaction holds come into force at one moment. Pure: bytes and values only.

The writer takes a *record* (one key, which exists once), puts the new documents beside the catalog in numbered
*chunks*, and then turns the record to ``committed``: this one small write is the moment. From then on whoever reads the
tree sees it *overlaid* with the chunks that have not yet been moved to their places. Each chunk is moved in one
transaction, which counts it as done in the record.

What the overlay shows is what the tree will be, order of age included; a key that somebody else has changed since is
theirs. docs/decisions/0005 has the whole protocol and its limits. It talks to no store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from anycastlb.core.model import Conflict, Edit, Entry, SourceError

BELOW = "import/"
RECORD = f"{BELOW}commit"
STAGED = "staged"
"""The version of what is in force but not yet in its place: no key ever has it, so no write can depend on it."""
LOCK = "locks/write"
"""Every write that was judged writes it, and expects the version that it had when the tree was read. So of two writes
that were judged by one tree only one succeeds, whichever keys they write and through whichever nodes."""
MAX_OPERATIONS = 63
"""Of a transaction's 64; one is the check or the count that goes with the edits."""
MAX_BYTES = 480 * 1024
"""Of the 512 KiB that Consul takes in one request; the rest is for that one operation."""
MAX_DOCUMENT = 350 * 1024
"""One document: a third is added to it on its way."""

Chunk: TypeAlias = tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class StagingRecord:
    """The state of a write that is under way."""

    id: str
    state: Literal["prepared", "committed"] = "prepared"
    chunks: int = 0
    sha256: str = ""
    """Of all chunks, in their order."""
    done: int = 0
    """Chunks that are in their places."""

    def text(self) -> bytes:
        fields = {"state": self.state, "chunks": self.chunks, "sha256": self.sha256, "done": self.done}
        return json.dumps({"id": self.id, **fields}).encode()


def checked(edits: Sequence[Edit]) -> None:
    """Raises ``SourceError`` unless each edit is of another key, and of one that may belong to a catalog.

    Raises ``Conflict`` for one that expects what is not yet in its place.
    """
    seen: set[str] = set()
    for edit in edits:
        if edit.expects == STAGED:
            raise lost(edit.key)
        if edit.key in seen:
            raise SourceError(
                f"{edit.key} is to be written twice at once; nothing was written; expected one edit a key"
            )
        seen.add(edit.key)
        parts = edit.key.split("/")
        if parts[0] in ("import", "nodes") or not all(part and part not in (".", "..") for part in parts):
            what = "expected a key of the catalog such as services/web; nothing was written"
            raise SourceError(f"{edit.key!r:.100}: {what}")
        if "\0" in edit.key or len(edit.value or b"") > MAX_DOCUMENT:
            limit = f"expected at most {MAX_DOCUMENT} bytes, not {len(edit.value or b'')}; nothing was written"
            raise SourceError(f"{edit.key!r:.100}: {limit}; give a service's backends keys of their own")


def lost(key: str) -> Conflict:
    if key == LOCK:
        return Conflict("another write came first, and nothing was written; read the catalog again and decide anew")
    return Conflict(f"{key} was changed meanwhile, and nothing was written; read it again and decide anew")


def unchanged(judged: Mapping[str, Entry], entries: Mapping[str, Entry]) -> None:
    """Raises ``Conflict`` unless every key is as it was in the tree in which the edits were judged."""
    for key in judged.keys() | entries.keys():
        before, now = judged.get(key), entries.get(key)
        if (before.version if before else "") != (now.version if now else ""):
            raise lost(key)


def locked(judged: Mapping[str, Entry], ticket: str) -> Edit:
    """The edit that makes a write depend on its being the next one after those that it was judged with.

    ``ticket`` is unique.
    """
    entry = judged.get(LOCK)
    return Edit(LOCK, json.dumps({"ticket": ticket}).encode(), entry.version if entry else "")


def settled(edits: Sequence[Edit], entries: Mapping[str, Entry]) -> Chunk:
    """The edits, each with the version that its key has. Raises ``Conflict`` if one expects another."""
    pinned = []
    for edit in edits:
        entry = entries.get(edit.key)
        version = entry.version if entry else ""
        if edit.expects not in (None, version):
            raise lost(edit.key)
        pinned.append(replace(edit, expects=version))
    return tuple(pinned)


def split(edits: Sequence[Edit], prefix: str) -> tuple[Chunk, ...]:
    """The edits in their order, in pieces that fit into one transaction each."""
    chunks: list[Chunk] = []
    piece: list[Edit] = []
    operations = size = 0
    for edit in edits:
        count, length = weight(edit, prefix)
        if piece and (operations + count > MAX_OPERATIONS or size + length > MAX_BYTES):
            chunks.append(tuple(piece))
            piece, operations, size = [], 0, 0
        piece.append(edit)
        operations, size = operations + count, size + length
    return (*chunks, tuple(piece)) if piece else tuple(chunks)


def weight(edit: Edit, prefix: str) -> tuple[int, int]:
    """Operations of a transaction, and bytes of its request. A deletion that depends on something takes two."""
    operations = 2 if edit.value is None and edit.expects is not None else 1
    return operations, operations * (100 + len(json.dumps(prefix + edit.key))) + (len(edit.value or b"") + 2) // 3 * 4


def pack(chunk: Chunk) -> bytes:
    """One line of JSON ([key, expected version, length of the value or null] each), then all values."""
    head = [[edit.key, edit.expects, None if edit.value is None else len(edit.value)] for edit in chunk]
    return b"\n".join((json.dumps(head).encode(), b"".join(edit.value or b"" for edit in chunk)))


def unpack(text: bytes) -> Chunk:
    head, _, values = text.partition(b"\n")
    edits, at = [], 0
    for key, expects, length in json.loads(head):
        edits.append(Edit(key, None if length is None else values[at : at + length], expects))
        at += length or 0
    return tuple(edits)


def checksum(chunks: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)).hexdigest()


def name(identity: str, number: int) -> str:
    """The key of a chunk."""
    return f"{BELOW}{identity}/{number:05d}"


def record(entries: Mapping[str, Entry]) -> StagingRecord | None:
    """The write under way in a tree read whole. Raises ``SourceError`` for a record that is none."""
    if (entry := entries.get(RECORD)) is None:
        return None
    try:
        document = json.loads(entry.value)
        current = StagingRecord(**document)
        numbers = current.chunks, current.done
        if current.state not in ("prepared", "committed") or not all(type(number) is int for number in numbers):
            raise ValueError(f"state {current.state!r:.20}")
        return current
    except (ValueError, TypeError) as exc:
        raise _damaged(f"{exc!r:.100}") from exc


def pending(entries: Mapping[str, Entry], current: StagingRecord) -> tuple[Chunk, ...]:
    """All chunks of the write. Raises ``SourceError`` if they are not what was staged."""
    try:
        texts = [entries[name(current.id, number)].value for number in range(current.chunks)]
        if checksum(texts) != current.sha256:
            raise ValueError("the checksum does not fit")
        return tuple(map(unpack, texts))
    except (KeyError, ValueError, TypeError) as exc:
        raise _damaged(f"{exc!r:.100}") from exc


def in_force(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The catalog, of all keys read at one moment: what is committed counts as if it were in its place.

    Raises ``SourceError`` if a committed write is damaged: half of it must not pass for a whole.
    """
    live = {key: entry for key, entry in entries.items() if not key.startswith(BELOW)}
    current = record(entries)
    if current is None or current.state != "committed":
        return live
    newest = max(entry.created for entry in (*live.values(), entries[RECORD]))
    for number, chunk in enumerate(pending(entries, current)[current.done :], 1):
        for edit in outstanding(chunk, live):
            if edit.value is None:
                del live[edit.key]
                continue
            before = live.get(edit.key)
            # each chunk will get an index of its own, above all that there are now
            live[edit.key] = Entry(edit.value, before.created if before else newest + number, version=STAGED)
    return live


def outstanding(chunk: Chunk, live: Mapping[str, Entry]) -> list[Edit]:
    """What of a committed chunk is still to be done: not what somebody else has changed since, nor what is gone."""
    rest = []
    for edit in chunk:
        entry = live.get(edit.key)
        if (entry.version if entry else "") == edit.expects and not (entry is None and edit.value is None):
            rest.append(edit)
    return rest


def _damaged(what: str) -> SourceError:
    return SourceError(
        f"the import under way is damaged ({what}), so the catalog is neither the old nor the new one; "
        f"delete the key {RECORD} and import again"
    )
