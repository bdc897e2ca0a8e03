"""Follow the catalog in Consul's key-value store with blocking queries.

Four blocking queries wait for a change, one for each part of the tree that is the catalog, and one for the record of an
import, which comes into force before its keys are in their places (``staging``); then the whole prefix is read in one
request, so that every tree is one consistent snapshot. The other nodes' status keys (``nodes/``) lie
under the same prefix and change all the time: they cause no read. A fifth query lists the names right below the
prefix: of a recursive delete from above, Consul tells the queries below nothing until their time is up (measured with
1.8.7). A key that is missing must be gone, and not only hidden from our token. It writes nothing and parses no
document. The rules of blocking queries are kept in ``blocking_query``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Hashable, Sequence
from functools import partial
from urllib.parse import quote

from anycastlb.adapters.consul.blocking_query import SPACING, BlockingQuery, number
from anycastlb.adapters.consul.client import Client, waiting
from anycastlb.adapters.consul.key_list import KeyList
from anycastlb.adapters.consul.waits import Begin, Waits
from anycastlb.adapters.sources import staging
from anycastlb.core.model import SourceError, Tree
from anycastlb.settings import ConsulSettings

SERVICES, DEFAULTS, DRAIN, IMPORT = PARTS = ("services/", "defaults", "drain/", staging.RECORD)
NODES = "nodes/"
NOBODY = "services/-"
"""A key that no catalog has: whoever may read it may read those of every service."""
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
        self._waits, self._newest = Waits(), 0
        """The queries under way, and the index of the tree that they were begun or went on from."""
        self._tree = BlockingQuery(
            self._read_all,
            self._wait_for_news,
            same=lambda before, now: before.entries == now.entries,
            lost=lambda before, now: bool(before.entries.keys() - now.entries.keys()),
        )

    @property
    def reads(self) -> int:
        """Whole trees read so far."""
        return self._tree.reads

    async def read(self, after: Tree | None) -> Tree:
        """See ``Source``. ``after`` must be of this source's own reading."""
        tree = await self._tree.read(after)
        if not self._sees_all:  # the first list has none before it that would show what is missing
            await self._client.request("GET", f"/v1/kv/{self._prefix}{NOBODY}")
            self._sees_all = True
        if after is not None:
            await self._confirm_loss(sorted(after.entries.keys() - tree.entries.keys()))
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
        return Tree(staging.in_force(whole.entries), whole.index)

    async def _wait_for_news(self, seen: Tree) -> None:
        """Return when any part has news, or the queries' time is up. Raises ``SourceError``."""
        if seen.index < self._newest:  # it went backwards: with an index of before a query would hear of nothing
            await self._waits.end()
        self._newest = seen.index
        held = frozenset(part for part in PARTS if _holds(seen, part))
        waits: dict[Hashable, Begin] = {
            (part, part in held): partial(self._wait_for_part, part, part in held, seen.index) for part in PARTS
        }
        await self._waits.first({**waits, held: partial(self._wait_for_loss, held, seen.index)})

    async def _wait_for_part(self, part: str, held: bool, index: int) -> None:
        """One blocking query, repeated for as long as it brings no news.

        Consul has no index for what does not exist: it answers with that of the whole store and wakes us for keys
        near by. So nothing, where there was nothing, is no news. That an import's record is gone is none either: what
        it named is then in its place.
        """
        empty = part == IMPORT or not held
        deadline = time.monotonic() + SPACING
        while True:
            latest, items = await self._client.kv.get(
                self._prefix + part,
                index=str(index),
                wait=self._wait,
                keys=part[-1] == "/",
                separator="/" if part[-1] == "/" else None,
            )
            if items or not empty or number(latest) <= index:
                return
            index = number(latest)
            await asyncio.sleep(deadline - time.monotonic())
            deadline = time.monotonic() + SPACING

    async def _wait_for_loss(self, held: Collection[str], index: int) -> None:
        """Return when a part of the tree that was there is gone whole."""
        present = {self._prefix + part for part in held}
        while True:
            latest, names = await self._client.kv.get(
                self._prefix, index=str(index), wait=self._wait, keys=True, separator="/"
            )
            if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise SourceError(f"Consul answered a list that is not one of names: {names!r:.200}")
            if present - set(names or ()) or number(latest) < index:
                return
            index = number(latest)
            await asyncio.sleep(SPACING)


async def read(client: Client, items: KeyList, prefix: str, consistent: bool) -> Tree:
    """Every key below the prefix at one moment."""
    index, body = await client.list(prefix, consistent=consistent)
    return Tree(await asyncio.to_thread(items.decode, body), number(index))


def _holds(tree: Tree, part: str) -> bool:
    return part in tree.entries if part[-1] != "/" else any(key.startswith(part) for key in tree.entries)


def wanted(key: str) -> bool:
    """Is it for the catalog? Not a node's status, nor a folder (a key ending with ``/``) that Consul's web page made.

    What is neither service, default nor drain is read too: a misspelt key should be named.
    """
    return not key.startswith(NODES) and not key.endswith("/")
