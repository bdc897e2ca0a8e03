"""Follow a source and the discoveries its catalog asks for: read, parse, put in force or hold back, again and again.

It decides nothing itself: ``parse_catalog`` says what a tree means, ``shrink.admit`` whether to believe a catalog that
has shrunk, and ``discovery.watch`` which instances to believe. It never loses the catalog in force: not when the source
is away, not when it reads garbage, not when the daemon restarts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from anycastlb.adapters.discovery.watch import Watches
from anycastlb.adapters.sources.cache import CatalogCache
from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.backoff import Backoff
from anycastlb.core.catalog.shrink import admit, lost_vips, without_loss
from anycastlb.core.model import Catalog, Feed, Shrink, SourceError, Tree
from anycastlb.engine.catalog_events import CatalogEvents
from anycastlb.engine.catalog_in_force import CatalogInForce
from anycastlb.engine.catalog_keeper import CatalogKeeper
from anycastlb.engine.catalog_parser import CatalogParser, CatalogParts
from anycastlb.engine.interruptible import Interruptible
from anycastlb.engine.observer import NOBODY, Observer
from anycastlb.settings import Settings

TOGETHER = 0.05
"""Seconds in which changes of instances are taken together."""
BACKOFF = Backoff(first=0.1, longest=5.0)
"""Between the attempts to reach a source that fails."""


class Follower:
    """``publish`` is called on the loop with the catalog in force and the feed, whenever one of them has changed."""

    def __init__(
        self,
        parts: CatalogParts,
        settings: Settings,
        publish: Callable[[Catalog, Feed], None],
        journal: Journal,
        clock: Clock = SYSTEM,
        observer: Observer = NOBODY,
    ) -> None:
        self._source, self._patience, self._limits = parts.source, parts.patience, settings.catalog
        self._clock, self._chance, self._offload = clock.monotonic, clock.chance, clock.offload
        self._observer = observer
        self._moved = asyncio.Event()
        """Instances, or what is wrong with a discovery, have changed."""
        self._saved = CatalogCache(settings.node.state_dir, identity(settings))
        self._events = CatalogEvents(journal, settings.catalog.source)
        self._keeper = CatalogKeeper(self._saved, self._unsaved, clock.offload)
        self._watches = Watches(parts.kinds, self._moved.set, journal, clock)
        self._parser = CatalogParser(settings.node, parts, self._watches, self._events, clock.offload)
        self._force = CatalogInForce(publish, self._events, self._keeper, self._watches, clock)
        self._turn = asyncio.Lock()
        """Held by whoever parses and applies: a new tree, or the last one with new instances."""
        self._tree: Tree | None = None
        """The last tree read, applied or held."""
        self._unsettled = False
        """With the instances of now that tree means something that only a fresh read can confirm."""
        self._failures = 0
        self._reread = True
        """The next read must be fresh."""
        self._confirmed = False
        """An operator lets the catalog that is held back through."""
        self._waiting = Interruptible()

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._contained(self._recall)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watches.run())
            group.create_task(self._follow_instances())
            group.create_task(self._keeper.run())
            while True:
                await self._contained(self._step)

    async def _contained(self, turn: Callable[[], Awaitable[None]]) -> None:
        """A fault of ours in following the catalog ends no node that serves: what is in force stays, the source counts
        as unread, for that reason, and is read again after a while."""
        try:
            await turn()
        except Exception as exc:
            try:
                await self._fail(SourceError(f"not read, because of a fault of anycastlb, please report: {exc!r:.300}"))
            except Exception:  # not even that can be told
                await asyncio.sleep(BACKOFF.longest)

    def confirm(self) -> bool:
        """Let the held catalog through at once, and the loss of instances. False if neither is held."""
        confirmed = self._watches.confirm()
        if self._force.candidate is None:
            return confirmed
        self._confirmed = True
        self._waiting.interrupt()
        return True

    def reread(self) -> None:
        """Read the source now, waiting for no change and no back-off."""
        self._reread = True
        self._waiting.interrupt()

    def refresh(self) -> None:
        """Parse the catalog once more: what documents are measured against has changed."""
        self._moved.set()

    # ------------------------------------------------------------ one turn

    async def _step(self) -> None:
        async with self._turn:
            after = await self._prepare()
        due = self._force.next_due(self._clock())
        try:
            tree = await self._waiting.run(self._source.read(after), due)
        except SourceError as exc:
            self._observer.observe_read("failed")
            await self._fail(exc)
            return
        if tree is not None:
            self._observer.observe_read("unchanged" if self._known(tree) else "changed")
            async with self._turn:
                await self._consider(tree, sure=after is None)
        elif after is None:
            self._reread = True  # woken before the fresh read was done

    async def _prepare(self) -> Tree | None:
        """Do what is due. Returns the tree whose change is to be waited for; None: read at once."""
        now, candidate = self._clock(), self._force.candidate
        if self._confirmed and candidate is not None:
            self._events.emit("confirmed", f"the held catalog {candidate.index} was confirmed")
            fresh = await self._parser.parse(self._tree, self._force.catalog) if self._tree else None
            self._force.apply(fresh or candidate)  # the candidate is from a while ago
        self._confirmed = False
        if self._force.start_by is not None and now >= self._force.start_by:
            self._use_saved()
        if (held := self._force.feed.held) and held.until is not None and now >= held.until:
            self._reread = True  # has it persisted? the answer must be fresh
        after, self._reread = None if self._reread else self._tree, False
        return after

    def _known(self, tree: Tree) -> bool:
        return self._tree is not None and tree.entries == self._tree.entries

    async def _consider(self, tree: Tree, sure: bool) -> None:
        """A tree was read. ``sure``: it is a fresh answer, not one that was waited for."""
        force = self._force
        force.connected(f"read {len(tree.entries)} keys, index {tree.index}")
        known = self._known(tree) and not self._unsettled and force.settled
        candidate = None if known else await self._parser.parse(tree, force.catalog)
        if candidate is None:
            self._tree = tree
            force.publish()
            return
        self._unsettled = False
        force.watch(candidate)
        if not force.feed.loaded and candidate.discovers.keys() - candidate.instances.keys():
            await self._watches.answered(self._patience)  # at start nobody may lose backends for want of an answer
            candidate = await self._parser.parse(tree, force.catalog) or candidate
        if not sure and lost_vips(force.catalog, candidate):
            self._reread = True  # a loss is believed only of a fresh read
            return
        self._tree = tree
        await self._judge(candidate, tree)

    async def _judge(self, candidate: Catalog, tree: Tree) -> None:
        """Put a candidate in force, or hold it back."""
        force, limits = self._force, self._limits
        held = admit(force.catalog, candidate, limits.max_shrink, limits.confirm, force.feed.held, self._clock())
        if held is None:
            force.apply(candidate)
            return
        if force.start_by is not None:
            self._use_saved()
        force.hold(candidate, await self._kept(candidate, held, tree), held)

    async def _kept(self, candidate: Catalog, held: Shrink, tree: Tree) -> Catalog:
        """The lost VIPs stay as they are, and everything else that the candidate says is obeyed."""
        current = self._force.catalog
        kept = await self._parser.parse(without_loss(tree, current, held.lost), current)
        if kept is None or lost_vips(current, kept):
            return replace(current, drained=candidate.drained, drains=candidate.drains)
        return kept

    async def _fail(self, error: SourceError) -> None:
        """The source could not be read: report it, and wait for the next attempt."""
        now, text, feed = self._clock(), str(error), self._force.feed
        if feed.connected or not self._failures or text != feed.error:
            before = "connected" if feed.connected else ""
            self._events.emit("disconnected", text, before=before, level="warning")
        await self._keeper.flush()  # a daemon that starts now has nothing else
        if feed.connected and now - feed.since > BACKOFF.longest:
            self._failures = 0  # it was well for a while: this is a new fault
        self._force.disconnected(text, now)
        delay = BACKOFF.delay(self._failures, self._chance())
        self._failures += 1
        self._reread = True
        due = self._force.next_due(self._clock())
        await self._waiting.run(asyncio.sleep(delay), due)

    # ------------------------------------------------------------ instances

    async def _follow_instances(self) -> None:
        while True:
            await self._moved.wait()
            await asyncio.sleep(TOGETHER)
            self._moved.clear()
            await self._contained(self._refresh)

    async def _refresh(self) -> None:
        """Parse once more what is in force, with the instances of now."""
        async with self._turn:
            await self._reparse()

    async def _reparse(self) -> None:
        force = self._force
        if not force.feed.loaded:
            return
        if force.feed.held or force.feed.cached:
            good = await self._parser.parse(Tree(force.catalog.good, force.catalog.index), force.catalog)
            force.reparsed(good or force.catalog)
        elif self._tree is not None and (candidate := await self._parser.parse(self._tree, force.catalog)) is not None:
            if lost_vips(force.catalog, candidate):
                self._unsettled = True  # a service got its first instances, and gave up a VIP for them
                self.reread()
                return
            force.apply(candidate)
        force.publish()
        force.report_problems()

    # ------------------------------------------------------------ the catalog on disk

    async def _recall(self) -> None:
        """Load the saved catalog; it is used if the source does not answer within ``patience``."""
        recalled = await self._offload(self._saved.load)
        for error in recalled.errors:
            self._events.emit("unusable", error, level="warning")
        self._watches.recall(recalled.instances)
        saved = await self._parser.parse(recalled.tree, Catalog()) if recalled.tree is not None else None
        if saved is not None:
            self._force.recall(saved, self._clock() + self._patience)

    def _use_saved(self) -> None:
        self._moved.set()  # it was parsed a while ago
        self._force.use_saved()

    def _unsaved(self, error: str) -> None:
        self._events.emit("unsaved", error, level="warning")


def identity(settings: Settings) -> str:
    """Which catalog these settings follow; the address of the server is not part of it."""
    if settings.catalog.source == "file":
        return f"file {settings.catalog.path}"
    consul = settings.consul
    return " ".join(filter(None, ("consul", consul.prefix, consul.datacenter, consul.namespace)))
