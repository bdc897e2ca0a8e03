"""What was read of a catalog before, so that the next reading costs what has changed.

A ``CatalogMemory`` belongs to one follower of one source and is used by one reading at a time. Nothing in it decides:
the catalog that is read with a memory equals the one that is read without (``tests/laws/test_catalog_laws``). It only
holds results together with the objects that they were made from, and compares those by identity.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from anycastlb.core.catalog.build import Built, Rules
from anycastlb.core.catalog.keys import NO_KEYS, Keys
from anycastlb.core.catalog.quarantine import Aside
from anycastlb.core.model import EMPTY, Catalog, Discover, Entry, Instance, Problem, Service, ServiceKey

CATALOGS = 3
"""Catalogs whose services are known: the one in force, the one that is held, and the next."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one service whose documents were not as they last were good."""

    own: Mapping[str, Entry]
    known: Built | None
    """The service as it was in force."""
    built: Built | None
    problems: tuple[Problem, ...]
    waits_for: Discover | None
    """The discovery whose first answer it waits for, so that it stays as it was."""


@dataclass(frozen=True, slots=True)
class Past:
    """A reading that has ended, as far as the next one can go on from it."""

    catalog: Catalog
    built: Mapping[str, Built]
    """Its services and pools by name, each with the entries that it was made of."""
    services: Mapping[str, Mapping[str, Entry]] = field(default_factory=lambda: EMPTY)
    """The keys of each service that it has read."""
    doubtful: Collection[str] = ()
    """The services that are not made of these very keys and of nothing else."""
    others: Mapping[str, Entry] = field(default_factory=lambda: EMPTY)
    """The entries of its catalog that are no service's."""


@dataclass
class Claims:
    """How many services claim each VIP, port and protocol."""

    services: dict[str, Service] = field(default_factory=dict)
    counts: dict[ServiceKey, int] = field(default_factory=dict)
    doubled: int = 0
    """How many of them more than one service claims."""

    def contested(self, built: Mapping[str, Built], changed: Iterable[str] | None) -> bool:
        """Does more than one of these services claim the same?

        ``changed``: the services that may not be those of the last call; None: any may be another.
        """
        for name in {*self.services, *built} if changed is None else changed:
            now, before = built[name].service if name in built else None, self.services.get(name)
            if now is before:
                continue
            if before is not None:
                self._count(before, -1)
                del self.services[name]
            if now is not None:
                self._count(now, 1)
                self.services[name] = now
        return self.doubled > 0

    def _count(self, service: Service, step: int) -> None:
        for claim in {service.key(vip) for vip in service.vips}:
            before = self.counts.get(claim, 0)
            self.counts[claim] = before + step
            self.doubled += (before + step > 1) - (before > 1)
            if not self.counts[claim]:
                del self.counts[claim]


class CatalogMemory:
    """Use it for the readings of one source, one after the other."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.keys: Keys = NO_KEYS
        """Of the tree that was read last."""
        self.claims = Claims()
        self._read: deque[Past] = deque(maxlen=CATALOGS)
        self._outcomes: dict[str, Outcome] = {}
        self._basis: tuple[Rules, Entry | None, Mapping[Discover, tuple[Instance, ...]]] | None = None
        """What the outcomes were made with besides the documents."""
        self.aside: Aside | None = None
        """What was set aside at the last reading, since it cannot be read."""

    @property
    def latest(self) -> Past | None:
        """The last reading."""
        return self._read[-1] if self._read else None

    def past(self, catalog: Catalog) -> Past | None:
        """The reading that has ended in this catalog, if it is one of the latest."""
        return next((past for past in self._read if past.catalog is catalog), None)

    def in_force(self, catalog: Catalog) -> Mapping[str, Built]:
        """The services of a catalog by name, each with the entries that it was made of."""
        if (past := self.past(catalog)) is not None:
            return past.built
        used: dict[str, dict[str, Entry]] = defaultdict(dict)
        for key, entry in catalog.good.items():
            if key.startswith("services/"):
                used[key.split("/")[1]][key] = entry
        return {
            service.name: Built(service, used.get(service.name, {}), catalog.remarks.get(service.name, ()))
            for service in (*catalog.services, *catalog.pools)
        }

    def prepare(self, rules: Rules, defaults: Entry | None, before: Mapping[Discover, tuple[Instance, ...]]) -> None:
        """Forget what was made with other rules, defaults or instances. ``before``: those of the catalog in force."""
        basis = rules, defaults, before
        if self._outcomes and basis != self._basis:
            self._outcomes.clear()
        self._basis = basis

    def recall(self, name: str, own: Mapping[str, Entry], known: Built | None) -> Outcome | None:
        """What became of the service when it was last read from these very objects."""
        outcome = self._outcomes.get(name)
        return outcome if outcome is not None and outcome.own is own and outcome.known is known else None

    def remember(self, name: str, outcome: Outcome) -> None:
        self._outcomes[name] = outcome

    def finish(self, past: Past, keys: Keys) -> None:
        """A reading of these keys has ended."""
        self.keys = keys
        self._read.append(past)
        self._outcomes = {
            name: outcome
            for name, outcome in self._outcomes.items()
            if outcome.own is keys.services.get(name) and not _in_force(outcome, past.built.get(name))
        }


def _in_force(outcome: Outcome, built: Built | None) -> bool:
    """Is the service as its documents say? Then the next reading does not ask for this outcome."""
    return built is not None and built is outcome.built and built.used is outcome.own
