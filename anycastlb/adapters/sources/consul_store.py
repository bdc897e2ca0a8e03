"""Write the catalog in Consul's key-value store: by compare-and-set, all keys at one moment.

A write that was judged by a tree also writes a key that all such writes share, and expects its version of that tree.
What fits goes in one transaction. More is staged and comes into force by one small one (``staging`` has the rules,
docs/decisions/0005 the reasons). Every transaction depends on no other large write being under way; one whose writer
stands still is finished if it was committed, else removed. Of an answer that was lost the error says that it is not
known what was written; nothing is repeated then.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from anycastlb.adapters.consul.client import Client
from anycastlb.adapters.consul.faults import NOTHING, Unconfirmed
from anycastlb.adapters.consul.key_list import KeyList
from anycastlb.adapters.consul.transaction import Operation, TransactionRefused, operation, operations, transact
from anycastlb.adapters.sources import staging
from anycastlb.adapters.sources.consul import read, wanted
from anycastlb.adapters.sources.staging import Chunk, StagingRecord
from anycastlb.core.model import Conflict, Edit, Entry, SourceError, Tree
from anycastlb.settings import ConsulSettings

GRACE = 1.0
"""Seconds that another's write may stand still before it is finished, or removed. Nothing depends on its length."""
PAUSE = 0.05
"""Seconds between looks at another's write."""
TURNS = 20
"""How often a write without expectations is begun anew because somebody was quicker."""


class ConsulStore:
    def __init__(self, settings: ConsulSettings) -> None:
        self._prefix = settings.prefix
        self._client = Client(settings)
        self._record = settings.prefix + staging.RECORD

    async def load(self) -> Tree:
        tree = await self._look()
        if _busy(tree):
            with suppress(SourceError):  # a token that may only read; what is staged is read all the same
                tree = await self._settled()
        return Tree(staging.in_force(tree.entries), tree.index)

    async def commit(self, edits: Sequence[Edit], judged: Tree | None = None) -> None:
        if edits and judged is not None:
            edits = [*edits, staging.locked(judged.entries, uuid.uuid4().hex)]
        staging.checked(edits)
        weights = [staging.weight(edit, self._prefix) for edit in edits]
        small = sum(count for count, _ in weights) <= staging.MAX_OPERATIONS
        small = small and sum(size for _, size in weights) <= staging.MAX_BYTES
        if edits:
            await (self._at_once(edits) if small else self._in_stages(edits))

    async def close(self) -> None:
        await self._client.close()

    # ------------------------------------------------------------ what fits into one transaction

    async def _at_once(self, edits: Sequence[Edit]) -> None:
        changes = [(edit.key, change) for edit in edits for change in operations(edit, self._prefix + edit.key)]
        alone = operation("check-not-exists", self._record)
        while True:
            try:
                await self._transact([alone, *(change for _, change in changes)])
                return
            except TransactionRefused as exc:
                if 0 not in exc.operations:
                    raise staging.lost(changes[exc.operations[0] - 1][0]) from exc
            await self._settle()  # a large write is under way

    # ------------------------------------------------------------ what does not

    async def _in_stages(self, edits: Sequence[Edit]) -> None:
        for _ in range(TURNS):
            entries = (await self._settled()).entries
            chunks = staging.split(staging.settled(edits, entries), self._prefix)
            record = StagingRecord(uuid.uuid4().hex)
            try:
                index = await self._put(record, 0)
                record = await self._stage(record, index, chunks)
            except (TransactionRefused, Conflict):
                continue  # another large write was quicker, or a key was changed: ``settled`` judges that
            except Unconfirmed as exc:
                raise SourceError(f"{exc.what}; {NOTHING}") from exc  # nothing counts before ``_enforce``
            await self._finish(record, await self._enforce(record, index), chunks, entries)
            return
        raise Conflict("other writers were quicker every time, and nothing was written; try again")

    async def _stage(self, record: StagingRecord, index: int, chunks: Sequence[Chunk]) -> StagingRecord:
        """Put the chunks aside and see that every key is as expected; the record to put in force.

        Raises ``TransactionRefused`` if another writer took us for dead and removed the record, else ``Conflict`` or
        ``SourceError``.
        """
        texts = [staging.pack(chunk) for chunk in chunks]
        ours = operation("check-index", self._record, index=index)
        try:
            for number, text in enumerate(texts):
                name = self._prefix + staging.name(record.id, number)
                await self._transact([ours, operation("cas", name, text, 0)])
            try:
                entries = (await self._look()).entries
            except SourceError as exc:
                raise SourceError(f"{exc}; {NOTHING}") from exc
            for chunk in chunks:
                staging.settled(chunk, entries)
            committed = replace(record, state="committed", chunks=len(texts), sha256=staging.checksum(texts))
            staging.pending(entries, committed)
            return committed
        except SourceError:
            await self._withdraw(index)
            raise

    async def _enforce(self, record: StagingRecord, index: int) -> int:
        """The moment itself. The record's new index."""
        try:
            return await self._put(record, index)
        except TransactionRefused as exc:
            lost_turn = f"another writer took this import for dead since it stood still for {GRACE:g} s"
            raise Conflict(f"{lost_turn}, and nothing was written; import again") from exc
        except SourceError as exc:
            if await self._withdraw(index) and isinstance(exc, Unconfirmed):  # then the missing answer was a no
                raise SourceError(f"{exc.what}; {NOTHING}") from exc
            raise

    async def _finish(
        self, record: StagingRecord, index: int, chunks: Sequence[Chunk], entries: Mapping[str, Entry]
    ) -> None:
        """Move to their places what is in force already. Whatever fails now is the next writer's to do."""
        with suppress(SourceError):
            try:
                await self._place(record, index, chunks, entries)
            except TransactionRefused:
                await self._help(record.id)

    # ------------------------------------------------------------ a write under way, ours or another's

    async def _settled(self) -> Tree:
        """The tree once no large write is under way. One that stands still is helped. Raises ``SourceError``."""
        while True:
            tree = await self._look()
            if not _busy(tree):
                return tree
            await self._settle()

    async def _settle(self) -> None:
        seen: object = None
        since = 0.0
        while True:
            record = (await read(self._client, KeyList(self._record), self._record, consistent=True)).entries.get("")
            below = self._prefix + staging.BELOW
            progress = await self._client.kv.get(below, keys=True, consistency="consistent")
            if not progress[1]:
                return
            if record is None:
                await self._sweep()
            elif seen != (seen := (record.version, progress)):
                since = time.monotonic()
            elif time.monotonic() - since > GRACE:
                current = staging.record({staging.RECORD: record})
                await self._help(current.id if current else "")
            await asyncio.sleep(PAUSE)

    async def _help(self, identity: str) -> None:
        """Finish that write if it is in force, else remove it."""
        while True:
            entries = (await self._look()).entries
            record = staging.record(entries)
            if record is None or record.id != identity:
                return
            index = int(entries[staging.RECORD].version)
            try:
                if record.state == "committed":
                    await self._place(record, index, staging.pending(entries, record), entries)
                else:
                    await self._remove(index)
            except TransactionRefused:
                await asyncio.sleep(PAUSE)  # somebody else moved it on, or changed a key: look again

    async def _place(
        self, record: StagingRecord, index: int, chunks: Sequence[Chunk], entries: Mapping[str, Entry]
    ) -> None:
        """Move each chunk to its place, from the first that is not there.

        Raises ``TransactionRefused`` if a key or the record was changed meanwhile.
        """
        for number in range(record.done, record.chunks):
            moves = staging.outstanding(chunks[number], entries)
            changes = [change for edit in moves for change in operations(edit, self._prefix + edit.key)]
            record = replace(record, done=number + 1)
            index = await self._put(record, index, changes)
        await self._remove(index)

    async def _put(self, record: StagingRecord, index: int, changes: Sequence[Operation] = ()) -> int:
        """Write the record over the one of that index; its new index."""
        indexes = await self._transact([operation("cas", self._record, record.text(), index), *changes])
        try:
            return indexes[self._record]
        except KeyError:
            raise Unconfirmed(f"Consul gave no index for {self._record}") from None

    async def _remove(self, index: int) -> None:
        """The record of that index and all that is staged."""
        ours = operation("check-index", self._record, index=index)
        await self._transact([ours, operation("delete-tree", self._prefix + staging.BELOW)])

    async def _sweep(self) -> None:
        """What a writer left that never came to its record, or lost it."""
        alone = operation("check-not-exists", self._record)
        with suppress(TransactionRefused):
            await self._transact([alone, operation("delete-tree", self._prefix + staging.BELOW)])

    async def _withdraw(self, index: int) -> bool:
        """Whether the record of that index was there and is removed."""
        try:
            await self._remove(index)
        except SourceError:
            return False  # the next writer does it
        return True

    async def _transact(self, wanted: Sequence[Operation]) -> dict[str, int]:
        return await transact(self._client, wanted)

    async def _look(self) -> Tree:
        return await read(self._client, KeyList(self._prefix, wanted), self._prefix, consistent=True)


def _busy(tree: Tree) -> bool:
    return any(key.startswith(staging.BELOW) for key in tree.entries)
