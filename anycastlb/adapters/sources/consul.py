"""Follow the catalog in Consul's key-value store with blocking queries.

A blocking query waits for a change of each part of the tree that there is; while an import is under way, one waits for
its record, which comes into force before its keys are in their places (``staging``). Another one lists the names right
below the prefix, and so shows a part that is new, or gone: of a recursive delete from above, Consul tells the queries
below nothing until their time is up (measured with 1.8.7). Then the whole prefix is read in one request, so that every
tree is one consistent snapshot. The other nodes' status keys (``nodes/``) lie under the same prefix and change all the
time: they cause no read. A key that is missing must be gone, and not only hidden from our token. It writes nothing and
parses no document. The rules of blocking queries are kept in ``blocking_query``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from urllib.parse import quote

from anycastlb.adapters.consul.blocking_query import SPACING, BlockingQuery, number
from anycastlb.adapters.consul.client import Client, waiting
from anycastlb.adapters.consul.key_list import KeyList
from anycastlb.adapters.consul.waits import Begin, Waits
from anycastlb.adapters.sources import staging
from anycastlb.core.delta import delta
from anycastlb.core.model import Entry, SourceError, Tree
from anycastlb.settings import ConsulSettings

DEFAULTS, IMPORT = "defaults", staging.BELOW
PARTS = ("services/", "gateways/", "routes/", DEFAULTS, "drain/", IMPORT)
NODES = "nodes/"
READABLE = ("services/-", "drain/-", DEFAULTS, staging.RECORD)
"""Keys that a catalog need not have: whoever may read them may read every key of a catalog."""
MAX_LOOKS = 100
"""Lost keys that are asked for by themselves; policies hide whole prefixes."""


class ConsulSource:
    def __init__(self, settings: ConsulSettings) -> None:
        self._prefix = settings.prefix
        self._wait = waiting(settings)
        self._client = Client(settings)
        self._items = KeyList(settings.prefix, wanted)
        self._sees_all = False
        """Our token was seen to read the keys of every service."""
        self._held: frozenset[str] = frozenset()
        """The parts of which the last read has shown a key."""
        self._entries: Mapping[str, Entry] = {}
        """What the last read has shown."""
        self._listed: frozenset[str] = frozenset()
        """The parts that the last list of names has shown: also one that is nothing but a folder's own key, as Consul's
        page makes it."""
        self._waits, self._newest = Waits(), 0
        """The queries under way, and the index of the tree that they were begun or went on from."""
        self._tree = BlockingQuery(
            self._read_all,
            self._wait_for_news,
            same=lambda before, now: before.entries == now.entries,
            lost=lambda before, now: bool(_lost(before, now)),
        )

    @property
    def reads(self) -> int:
        """Whole trees read so far."""
        return self._tree.reads

    async def read(self, after: Tree | None) -> Tree:
        """See ``Source``. ``after`` must be of this source's own reading."""
        tree = await self._tree.read(after)
        if not self._sees_all:  # the first list has none before it that would show what is missing
            for key in READABLE:
                await self._client.request("GET", f"/v1/kv/{self._prefix}{key}")
            self._sees_all = True
        if after is not None:
            await self._confirm_loss(_lost(after, tree))
        return tree

    async def close(self) -> None:
        await self._waits.end()
        await self._client.close()

    async def _confirm_loss(self, lost: Sequence[str]) -> None:
        """Are these keys gone, or only hidden from our token? Raises ``SourceError`` if one is hidden.

        Before 1.11 Consul leaves hidden keys out of a list without a word, but refuses to answer for each by itself.
        """
        for key in lost[:MAX_LOOKS]:
            await self._client.request("GET", f"/v1/kv/{quote(self._prefix + key)}")

    async def _read_all(self, consistent: bool) -> Tree:
        whole = await read(self._client, self._items, self._prefix, consistent)
        if not delta(self._entries, whole.entries).aligned:
            self._held = parts_of(whole.entries)
        self._entries = whole.entries
        return replace(whole, entries=staging.in_force(whole.entries)) if IMPORT in self._held else whole

    async def _wait_for_news(self, seen: Tree) -> None:
        """Return when any part has news, or the queries' time is up. Raises ``SourceError``."""
        if seen.index < self._newest:  # it went backwards: with an index of before a query would hear of nothing
            await self._waits.end()
        self._newest = seen.index
        present, index = self._held | self._listed, seen.index
        waits: dict[Hashable, Begin] = {
            part: partial(self._wait_for_part, part, index) for part in present if part != IMPORT
        }
        if IMPORT in present:
            waits[IMPORT] = partial(self._wait_for_record, index)
        await self._waits.first({**waits, present: partial(self._wait_for_names, present, index)})

    async def _wait_for_part(self, part: str, index: int) -> None:
        """Return when anything of this part has changed, or the query's time is up."""
        folder = part[-1] == "/"
        await self._client.kv.get(
            self._prefix + part, index=str(index), wait=self._wait, keys=folder, separator="/" if folder else None
        )

    async def _wait_for_record(self, index: int) -> None:
        """Return when an import's record has been written.

        Consul has no index for what does not exist: it answers with that of the whole store and wakes us for keys
        near by. That the record is gone is no news either: what it named is then in its place.
        """
        deadline = time.monotonic() + SPACING
        while True:
            latest, item = await self._client.kv.get(self._prefix + staging.RECORD, index=str(index), wait=self._wait)
            if item or number(latest) <= index:
                return
            index = number(latest)
            await asyncio.sleep(deadline - time.monotonic())
            deadline = time.monotonic() + SPACING

    async def _wait_for_names(self, present: frozenset[str], index: int) -> None:
        """Return when a part is there that was not, one that was is gone whole, or the query's time is up."""
        while True:
            latest, names = await self._client.kv.get(
                self._prefix, index=str(index), wait=self._wait, keys=True, separator="/"
            )
            if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise SourceError(f"Consul answered a list that is not one of names: {names!r:.200}")
            self._listed = frozenset(PARTS).intersection(name.removeprefix(self._prefix) for name in names or ())
            if present != self._listed or number(latest) <= index:
                return
            index = number(latest)
            await asyncio.sleep(SPACING)


async def read(client: Client, items: KeyList, prefix: str, consistent: bool) -> Tree:
    """Every key below the prefix at one moment."""
    index, body = await client.list(prefix, consistent=consistent)
    entries = items.at_once(body)
    return Tree(await asyncio.to_thread(items.decode, body) if entries is None else entries, number(index))


def _lost(before: Tree, now: Tree) -> list[str]:
    """The keys that are not there any more, sorted."""
    return sorted(key for key in delta(before.entries, now.entries).keys if key not in now.entries)


def parts_of(keys: Iterable[str]) -> frozenset[str]:
    """The parts of a catalog that have a key among these. A key of a part begins with its name, up to the slash."""
    return frozenset(PARTS).intersection({key[: key.find("/") + 1] or key for key in keys})


def wanted(key: str) -> bool:
    """Is it for the catalog? Not a node's status, nor a folder (a key ending with ``/``) that Consul's web page made.

    What is no document of any kind is read too: a misspelt key should be named.
    """
    return not key.startswith(NODES) and not key.endswith("/")
