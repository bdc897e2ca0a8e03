"""The catalog in force, and what is known of its source: published whenever one of them has changed.

It is never lost: it stays when the source is away, and it is handed to the keeper, who saves it. Nothing is read here,
and whether to believe a catalog is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from anycastlb.adapters.discovery.watch import Watches
from anycastlb.adapters.system.clock import Clock
from anycastlb.core.catalog.parse import troubled
from anycastlb.core.model import Catalog, Feed, Shrink
from anycastlb.engine.catalog_events import CatalogEvents
from anycastlb.engine.catalog_keeper import CatalogKeeper

Publish = Callable[[Catalog, Feed], None]


class CatalogInForce:
    """``publish`` is called on the loop."""

    def __init__(
        self, publish: Publish, events: CatalogEvents, keeper: CatalogKeeper, watches: Watches, clock: Clock
    ) -> None:
        self._publish_to, self._events, self._keeper, self._watches = publish, events, keeper, watches
        self._clock = clock.monotonic
        self.catalog = Catalog()
        """In force once ``feed.loaded``; before that the saved one, which a first read is measured against."""
        self.feed = Feed(since=self._clock())
        self.candidate: Catalog | None = None
        """The catalog that is held back."""
        self.start_by: float | None = None
        """When the saved catalog is put in force; None if there is none, or it is no longer needed."""
        self._published: tuple[Catalog, Feed] | None = None
        self._shown = (self.catalog, self.catalog)
        """The catalog in force, and as it was published: with what is wrong with its discoveries."""

    @property
    def settled(self) -> bool:
        """Is what the source last said in force?"""
        return self.feed.loaded and not self.feed.cached and self.candidate is None

    def next_due(self, now: float) -> float | None:
        """Seconds until something is due though the source says nothing; None if nothing will be."""
        times = (self.start_by, self.feed.held.until if self.feed.held else None)
        return min((time - now for time in times if time is not None and time > now), default=None)

    # ------------------------------------------------------------ catalogs

    def recall(self, saved: Catalog, start_by: float) -> None:
        """This was saved; it is used at that moment if the source has not answered by then."""
        self.catalog, self.start_by = saved, start_by
        self.watch()

    def use_saved(self) -> None:
        """Put the saved catalog in force."""
        self.start_by = None
        self.feed = replace(self.feed, loaded=True, cached=True)
        self.publish()
        text = f"{self._events.counts(self.catalog)}, as saved on disk"
        self._events.emit("applied", text, before="saved", level="warning")

    def apply(self, catalog: Catalog) -> None:
        """Put this catalog in force."""
        edited = _written(catalog) != _written(self.catalog)  # the watches report changes of instances
        news = edited or not self.feed.loaded or self.feed.cached or self.feed.held is not None
        self.catalog, self.candidate, self.start_by = catalog, None, None
        self.feed = replace(self.feed, loaded=True, cached=False, held=None)
        self.watch(catalog)
        self.publish()
        if news:
            self._events.emit("applied", self._events.counts(catalog))
        self.report_problems()
        self._keeper.remember(catalog)

    def hold(self, candidate: Catalog, kept: Catalog, held: Shrink) -> None:
        """Hold a candidate back. ``kept``: what of it comes into force nevertheless."""
        news = self.feed.held is None or self.feed.held.lost != held.lost
        obeyed = (kept.good, kept.drained) != (self.catalog.good, self.catalog.drained)
        self.catalog, self.candidate = kept, candidate
        self.feed = replace(self.feed, held=held)
        self.watch()
        self.publish()
        if obeyed:
            self._events.emit("applied", f"{self._events.counts(kept)}, without what is held")
        self.report_problems()
        if news:
            self._events.held(candidate, held, self._clock())
        self._keeper.remember(kept)

    def reparsed(self, catalog: Catalog) -> None:
        """It is the same catalog, with the instances of now."""
        self.catalog = catalog
        self._keeper.remember(catalog)

    # ------------------------------------------------------------ its source

    def connected(self, text: str) -> None:
        """The source answers."""
        if not self.feed.connected:
            self.feed = replace(self.feed, connected=True, since=self._clock(), error="")
            self._events.emit("connected", text, before="disconnected")

    def disconnected(self, error: str, now: float) -> None:
        """The source fails."""
        since = now if self.feed.connected else self.feed.since
        self.feed = replace(self.feed, connected=False, since=since, error=error)
        self.publish()

    # ------------------------------------------------------------ who follows it

    def watch(self, *more: Catalog) -> None:
        """Follow every discovery that the catalog in force asks for, the one that is held, and ``more``."""
        asking = (self.catalog, *more, *([self.candidate] if self.candidate else []))
        self._watches.want({wanted for catalog in asking for wanted in catalog.discovers})

    def publish(self) -> None:
        """Publish the catalog and the feed, if one of them has changed."""
        shown = troubled(self.catalog, self._watches.problems)
        if self._shown[0] is not self.catalog or self._shown[1] != shown:
            self._shown = (self.catalog, shown)
        now = (self._shown[1] if self.feed.loaded else Catalog(), self.feed)
        if now != self._published:
            self._published = now
            self._publish_to(*now)

    def report_problems(self) -> None:
        """Report what is wrong with what was read last."""
        self._events.problems(troubled(self.candidate or self.catalog, self._watches.problems))


def _written(catalog: Catalog) -> object:
    """What operators have written: the good documents, and the problems of the others."""
    return catalog.good, catalog.problems
