"""Follow a source and the discoveries its catalog asks for: read, parse, hold, remember on disk, publish.

It decides nothing itself: ``parse_catalog`` says what a tree means, ``shrink.admit`` whether to believe a catalog that
has shrunk, and ``discovery.watch`` which instances to believe. It never loses the catalog in force: not when the source
is away, not when it reads garbage, not when the daemon restarts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from anycastlb.adapters.discovery.memory import nowhere
from anycastlb.adapters.discovery.watch import Kinds, Watches
from anycastlb.adapters.sources import Source
from anycastlb.adapters.sources.cache import CatalogCache
from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.backoff import Backoff
from anycastlb.core.catalog.check import CheckTypes
from anycastlb.core.catalog.memory import CatalogMemory
from anycastlb.core.catalog.parse import parse_catalog, troubled
from anycastlb.core.catalog.shrink import admit, lost_vips, without_loss
from anycastlb.core.events import Event, Level
from anycastlb.core.model import Catalog, Feed, Problem, Shrink, SourceError, Tree
from anycastlb.engine.catalog_keeper import CatalogKeeper
from anycastlb.engine.observer import NOBODY, Observer
from anycastlb.settings import Settings

T = TypeVar("T")
TOGETHER = 0.05
"""Seconds in which changes of instances are taken together."""
BACKOFF = Backoff(first=0.1, longest=5.0)
"""Between the attempts to reach a source that fails."""
MAX_SHOWN = 50
"""Events about new problems of one read; the catalog itself holds all problems."""


@dataclass(frozen=True)
class CatalogParts:
    """Where a catalog is read, and what is needed to understand it."""

    source: Source
    check_types: CheckTypes
    kinds: Kinds = nowhere
    """How the discoveries that it asks for are made."""
    patience: float = 2.0
    """Seconds that the source gets at start before the saved catalog is used instead of it, and that the discoveries
    get before the catalog is used without them."""


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
        self._source, self._check_types, self._patience = parts.source, parts.check_types, parts.patience
        self._settings = settings
        self._publish_to = publish
        self._journal = journal
        self._clock, self._chance, self._offload = clock.monotonic, clock.chance, clock.offload
        self._observer = observer
        self._name = settings.catalog.source
        self._saved = CatalogCache(settings.node.state_dir, identity(settings))
        self._keeper = CatalogKeeper(self._saved, self._unsaved, clock.offload)
        self._moved = asyncio.Event()
        """Instances, or what is wrong with a discovery, have changed."""
        self._watches = Watches(parts.kinds, self._moved.set, journal, clock)
        self._memory = CatalogMemory()
        self._turn = asyncio.Lock()
        """Held by whoever parses and applies: a new tree, or the last one with new instances."""

        self._catalog = Catalog()
        """In force once ``feed.loaded``; before that the saved one, which a first read is measured against."""
        self._feed = Feed(since=self._clock())
        self._published: tuple[Catalog, Feed] | None = None
        self._shown = (self._catalog, self._catalog)
        """The catalog in force, and as it was published: with what is wrong with its discoveries."""
        self._tree: Tree | None = None
        """The last tree read, applied or held."""
        self._unsettled = False
        """With the instances of now that tree means something that only a fresh read can confirm."""
        self._candidate: Catalog | None = None
        """The catalog that is held back."""
        self._start_by: float | None = None
        """When the saved catalog is put in force; None if there is none, or it is no longer needed."""
        self._failures = 0
        self._reported: frozenset[Problem] = frozenset()
        self._reread = True
        self._confirmed = False
        self._alarm: asyncio.Timeout | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._recall()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watches.run())
            group.create_task(self._follow_instances())
            group.create_task(self._keeper.run())
            while True:
                await self._step()

    def confirm(self) -> bool:
        """Let the held catalog through at once, and the loss of instances. False if neither is held."""
        confirmed = self._watches.confirm()
        if self._candidate is None:
            return confirmed
        self._confirmed = True
        self._wake()
        return True

    def reread(self) -> None:
        """Read the source now, waiting for no change and no back-off."""
        self._reread = True
        self._wake()

    # ------------------------------------------------------------ one turn

    async def _step(self) -> None:
        async with self._turn:
            after = await self._prepare()
        try:
            tree = await self._interruptibly(self._source.read(after))
        except SourceError as exc:
            self._observer.observe_read("failed")
            await self._fail(exc)
            return
        if tree is not None:
            self._observer.observe_read(
                "unchanged" if self._tree is not None and tree.entries == self._tree.entries else "changed"
            )
            async with self._turn:
                await self._consider(tree, sure=after is None)
        elif after is None:
            self._reread = True  # woken before the fresh read was done

    async def _prepare(self) -> Tree | None:
        """Do what is due. Returns the tree whose change is to be waited for; None: read at once."""
        now = self._clock()
        if self._confirmed and self._candidate is not None:
            self._emit("confirmed", f"the held catalog {self._candidate.index} was confirmed")
            fresh = await self._parsed(self._tree, self._catalog) if self._tree else None  # it is from a while ago
            await self._apply(fresh or self._candidate)
        self._confirmed = False
        if self._start_by is not None and now >= self._start_by:
            self._use_saved()
        if (held := self._feed.held) and held.until is not None and now >= held.until:
            self._reread = True  # has it persisted? the answer must be fresh
        after, self._reread = None if self._reread else self._tree, False
        return after

    async def _consider(self, tree: Tree, sure: bool) -> None:
        if not self._feed.connected:
            self._feed = replace(self._feed, connected=True, since=self._clock(), error="")
            self._emit("connected", f"read {len(tree.entries)} keys, index {tree.index}", before="disconnected")
        known = self._tree is not None and tree.entries == self._tree.entries and not self._unsettled
        if known and self._feed.loaded and not self._feed.cached and self._candidate is None:
            self._tree = tree
            self._publish()
            return
        candidate = await self._parsed(tree, self._catalog)
        if candidate is None:
            self._tree = tree
            self._publish()
            return
        self._unsettled = False
        self._watch(candidate)
        if not self._feed.loaded and candidate.discovers.keys() - candidate.instances.keys():
            await self._watches.answered(self._patience)  # at start nobody may lose backends for want of an answer
            candidate = await self._parsed(tree, self._catalog) or candidate
        if not sure and lost_vips(self._catalog, candidate):
            self._reread = True  # a loss is believed only of a fresh read
            return
        self._tree = tree
        await self._judge(candidate, tree)

    async def _judge(self, candidate: Catalog, tree: Tree) -> None:
        limits = self._settings.catalog
        held = admit(self._catalog, candidate, limits.max_shrink, limits.confirm, self._feed.held, self._clock())
        if held is None:
            await self._apply(candidate)
        else:
            await self._hold(candidate, held, tree)

    async def _apply(self, catalog: Catalog) -> None:
        edited = _written(catalog) != _written(self._catalog)  # the watches report changes of instances
        news = edited or not self._feed.loaded or self._feed.cached or self._feed.held is not None
        self._catalog, self._candidate, self._start_by = catalog, None, None
        self._feed = replace(self._feed, loaded=True, cached=False, held=None)
        self._watch(catalog)
        self._publish()
        if news:
            self._emit("applied", _counts(catalog))
        self._report_problems()
        self._keeper.remember(catalog)

    async def _hold(self, candidate: Catalog, held: Shrink, tree: Tree) -> None:
        """Keep the lost VIPs, and obey everything else that the candidate says."""
        if self._start_by is not None:
            self._use_saved()
        news = self._feed.held is None or self._feed.held.lost != held.lost
        kept = await self._parsed(without_loss(tree, self._catalog, held.lost), self._catalog)
        if kept is None or lost_vips(self._catalog, kept):
            kept = replace(self._catalog, drained=candidate.drained, drains=candidate.drains)
        obeyed = (kept.good, kept.drained) != (self._catalog.good, self._catalog.drained)
        self._catalog, self._candidate = kept, candidate
        self._feed = replace(self._feed, held=held)
        self._watch()
        self._publish()
        if obeyed:
            self._emit("applied", f"{_counts(kept)}, without what is held")
        self._report_problems()
        if news:
            when = "until it is confirmed" if held.until is None else f"for {held.until - self._clock():.0f} s"
            self._emit(
                "held",
                f"catalog {candidate.index} lost {len(held.lost)} of {held.of} VIPs, more than "
                f"catalog.max_shrink allows: held {when}; let it through with: anycastlb confirm",
                level="warning",
            )
        self._keeper.remember(kept)

    async def _fail(self, error: SourceError) -> None:
        now, text = self._clock(), str(error)
        if self._feed.connected or not self._failures or text != self._feed.error:
            before = "connected" if self._feed.connected else ""
            self._emit("disconnected", text, before=before, level="warning")
        await self._keeper.flush()  # a daemon that starts now has nothing else
        if self._feed.connected:
            if now - self._feed.since > BACKOFF.longest:
                self._failures = 0  # it was well for a while: this is a new fault
            self._feed = replace(self._feed, connected=False, since=now)
        self._feed = replace(self._feed, error=text)
        self._publish()
        delay = BACKOFF.delay(self._failures, self._chance())
        self._failures += 1
        self._reread = True
        await self._interruptibly(asyncio.sleep(delay))

    # ------------------------------------------------------------ instances

    def _watch(self, *more: Catalog) -> None:
        """Follow every discovery that the catalog in force asks for, the one that is held, and ``more``."""
        asking = (self._catalog, *more, *([self._candidate] if self._candidate else []))
        self._watches.want({wanted for catalog in asking for wanted in catalog.discovers})

    async def _follow_instances(self) -> None:
        while True:
            await self._moved.wait()
            await asyncio.sleep(TOGETHER)
            self._moved.clear()
            async with self._turn:
                await self._refresh()

    async def _refresh(self) -> None:
        """Parse once more what is in force, with the instances of now."""
        if not self._feed.loaded:
            return
        if self._feed.held or self._feed.cached:
            good = await self._parsed(Tree(self._catalog.good, self._catalog.index), self._catalog)
            self._catalog = good or self._catalog
            self._keeper.remember(self._catalog)
        elif self._tree is not None and (candidate := await self._parsed(self._tree, self._catalog)) is not None:
            if lost_vips(self._catalog, candidate):
                self._unsettled = True  # a service got its first instances, and gave up a VIP for them
                self.reread()
                return
            await self._apply(candidate)
        self._publish()
        self._report_problems()

    # ------------------------------------------------------------ waiting

    async def _interruptibly(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Run ``work``. Returns None if it was broken off, because something is due or ``_wake`` was called."""
        now = self._clock()
        held = self._feed.held
        times = (self._start_by, held.until if held else None)
        delay = min((time - now for time in times if time is not None and time > now), default=None)
        try:
            async with asyncio.timeout(delay) as alarm:
                self._alarm = alarm
                return await work
        except TimeoutError:
            if not alarm.expired():
                raise
            return None
        finally:
            self._alarm = None

    def _wake(self) -> None:
        if self._alarm is not None and not self._alarm.expired():
            self._alarm.reschedule(asyncio.get_running_loop().time())

    # ------------------------------------------------------------ parsing and remembering

    async def _parsed(self, tree: Tree, previous: Catalog) -> Catalog | None:
        node = self._settings.node
        try:
            return await self._offload(
                parse_catalog,
                tree,
                previous,
                node.vip_ranges,
                node.fwmark_ranges,
                self._check_types,
                self._watches.instances,
                self._memory,
            )
        except Exception as exc:  # a fault of ours in a parser must not stop a node that serves
            self._emit("unparsed", f"catalog {tree.index} is ignored, please report: {exc!r:.500}", level="error")
            return None

    async def _recall(self) -> None:
        """Load the saved catalog; it is used if the source does not answer within ``patience``."""
        recalled = await self._offload(self._saved.load)
        for error in recalled.errors:
            self._emit("unusable", error, level="warning")
        self._watches.recall(recalled.instances)
        saved = await self._parsed(recalled.tree, Catalog()) if recalled.tree is not None else None
        if saved is not None:
            self._catalog = saved
            self._start_by = self._clock() + self._patience
            self._watch()

    def _use_saved(self) -> None:
        self._start_by = None
        self._feed = replace(self._feed, loaded=True, cached=True)
        self._moved.set()  # it was parsed a while ago
        self._publish()
        self._emit("applied", f"{_counts(self._catalog)}, as saved on disk", before="saved", level="warning")

    def _unsaved(self, error: str) -> None:
        self._emit("unsaved", error, level="warning")

    # ------------------------------------------------------------ publishing

    def _publish(self) -> None:
        shown = troubled(self._catalog, self._watches.problems)
        if self._shown[0] is not self._catalog or self._shown[1] != shown:
            self._shown = (self._catalog, shown)
        now = (self._shown[1] if self._feed.loaded else Catalog(), self._feed)
        if now != self._published:
            self._published = now
            self._publish_to(*now)

    def _emit(self, after: str, reason: str, before: str = "", level: Level = "info", subject: str = "") -> None:
        self._journal.emit(Event("catalog", subject or self._name, reason, before, after, level))

    def _report_problems(self) -> None:
        """Emit an event for each new problem of what was read last, once, and for each that is solved."""
        read = troubled(self._candidate or self._catalog, self._watches.problems).problems
        problems = frozenset(read)
        new = [problem for problem in read if problem not in self._reported]
        for problem in new[:MAX_SHOWN]:
            self._emit("problem", _reason(problem), level="warning", subject=problem.key)
        if len(new) > MAX_SHOWN:
            self._emit("problem", f"and {len(new) - MAX_SHOWN} more", level="warning")
        for problem in sorted(self._reported - problems, key=str)[:MAX_SHOWN]:
            self._emit("solved", _reason(problem), before="problem", subject=problem.key)
        self._reported = problems


def identity(settings: Settings) -> str:
    """Which catalog these settings follow; the address of the server is not part of it."""
    if settings.catalog.source == "file":
        return f"file {settings.catalog.path}"
    consul = settings.consul
    return " ".join(filter(None, ("consul", consul.prefix, consul.datacenter, consul.namespace)))


def _written(catalog: Catalog) -> object:
    """What operators have written: the good documents, and the problems of the others."""
    return catalog.good, catalog.problems


def _counts(catalog: Catalog) -> str:
    backends = sum(len(service.backends) for service in catalog.services)
    return (
        f"index {catalog.index}: {len(catalog.services)} services, {len(catalog.vips)} VIPs, {backends} backends, "
        f"{len(catalog.drained)} drained nodes, {len(catalog.problems)} problems"
    )


def _reason(problem: Problem) -> str:
    return f"{problem.path}: {problem.expected}" if problem.path else problem.expected
