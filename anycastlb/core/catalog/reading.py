"""One reading of a tree: which documents of each service count, those of now or the last good ones.

Pure, but for the ``CatalogMemory`` that it is given: what is read from the same objects as before is not read again,
and is the same object. ``build`` makes a service of the documents that count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from anycastlb.core.catalog import decode
from anycastlb.core.catalog.build import Built, Rules, ServiceKeys, build
from anycastlb.core.catalog.claims import Claimant, settle
from anycastlb.core.catalog.decode import MalformedDocument, contained
from anycastlb.core.catalog.http.gateway import every_port, gateway_mark
from anycastlb.core.catalog.memory import CatalogMemory, Outcome, Past
from anycastlb.core.delta import Edited, delta
from anycastlb.core.model import EMPTY, Catalog, Discover, Entry, Problem, Service, ServiceKey

CLAIMS = "expected a VIP, port and protocol of its own; {} belongs to {}"


class Reading:
    """One reading of a tree: the services and defaults so far, with their problems."""

    def __init__(self, previous: Catalog, rules: Rules, memory: CatalogMemory, problems: list[Problem]) -> None:
        self.rules = rules
        self.problems = problems
        self.built: dict[str, Built] = {}
        self.discovers: dict[Discover, set[str]] = defaultdict(set)
        self._previous, self._memory = previous, memory
        self._before = memory.in_force(previous)
        """The services of the catalog in force."""
        self._past: Past | None = None
        """The reading that has ended in the catalog in force, if this one goes on from it."""
        self._reread: set[str] = set()
        """The services about which anything may not be as it was then."""
        self._defaults: Mapping[str, Entry] = EMPTY
        """The entry of the defaults that count, if there are any."""
        self._same_defaults = False

    def read_defaults(self, entry: Entry | None) -> None:
        """Take the defaults of the tree, else the last good ones."""
        last_good = self._previous.good.get("defaults")
        for candidate in (entry, last_good if entry else None):
            if candidate is None:
                continue
            try:
                read = contained(candidate.origin or "defaults", decode.document, "defaults", candidate)
                self.rules = replace(self.rules, defaults=read)
                self._defaults = {"defaults": candidate}
                break
            except MalformedDocument as exc:
                self.problems += exc.problems
        self._same_defaults = self._defaults.get("defaults") == last_good
        self._memory.prepare(self.rules, self._defaults.get("defaults"), self._previous.instances)

    def read_services(self, services: Mapping[str, Mapping[str, Entry]]) -> None:
        """Take every service. Nearly all are as they were, and nothing is done for those."""
        past = self._memory.past(self._previous) if self._same_defaults else None
        if past is None:
            self._reread = set(services)
        else:
            self._past, self.built = past, dict(past.built)
            self._reread = {*delta(past.services, services).keys, *past.doubtful}
            for name in self._reread:
                self.built.pop(name, None)
        for name in sorted(self._reread & services.keys()):
            self.read_service(name, services[name])

    def replaced(self) -> Mapping[str, Built] | None:
        """Those services that take the place of older ones in the catalog in force; None if there are others besides,
        or that cannot be told."""
        past = self._past
        if past is None:
            return None
        replaced: dict[str, Built] = {}
        for name in sorted(self._reread):
            before, now = past.built.get(name), self.built.get(name)
            if before is now:
                continue
            if before is None or now is None or bool(before.service.vips) != bool(now.service.vips):
                return None
            replaced[name] = now
        return replaced

    def good(self, documents: Mapping[str, Entry]) -> tuple[Mapping[str, Entry], Mapping[str, Entry]]:
        """The entries that all was made of, and those of them that are no service's.

        ``documents``: those of gateways, routes and drains.
        """
        others = {**self._defaults, **documents}
        past, replaced = self._past, self.replaced()
        if (
            past is not None
            and replaced is not None
            and past.others.keys() == others.keys()
            and all(past.built[name].used.keys() == now.used.keys() for name, now in replaced.items())
        ):
            good = past.catalog.good
            rows = {key: entry for now in replaced.values() for key, entry in now.used.items()} | others
            edited = {key: entry for key, entry in rows.items() if good[key] is not entry}
            return (Edited(good, edited) if edited else good), others
        good = dict(self._defaults)
        for built in self.built.values():
            good.update(built.used)
        return {**good, **documents}, others

    def ended(self, catalog: Catalog, services: Mapping[str, Mapping[str, Entry]], others: Mapping[str, Entry]) -> Past:
        """What the next reading can go on from. ``services``: the keys of each; ``others``: see ``good``."""
        doubtful = {
            name
            for name in self._reread
            if (name in services or name in self.built) and not self._is_plain(services.get(name), self.built.get(name))
        }
        return Past(catalog, self.built, services, doubtful, others)

    @staticmethod
    def _is_plain(own: Mapping[str, Entry] | None, built: Built | None) -> bool:
        """Is it made of these very entries, and of nothing else?"""
        return built is not None and built.used is own and built.service.backends_from is None

    def read_service(self, name: str, own: Mapping[str, Entry]) -> None:
        """Take a service from its keys, else as it last was good."""
        known = self._before.get(name)
        if known is not None and self._unchanged(own, known):
            self._keep(name, known if own is known.used else replace(known, used=own))
            return
        outcome = self._memory.recall(name, own, known)
        if outcome is None:
            outcome = self._outcome(name, own, known)
            self._memory.remember(name, outcome)
        self.problems += outcome.problems
        if outcome.waits_for is not None:
            self.discovers[outcome.waits_for].add(name)
        if outcome.built is not None:
            self._keep(name, outcome.built)

    def _unchanged(self, own: Mapping[str, Entry], known: Built) -> bool:
        return (own is known.used or own == known.used) and self._same_defaults and not self._moved(known.service)

    def _outcome(self, name: str, own: Mapping[str, Entry], known: Built | None) -> Outcome:
        """What becomes of a service about which something is not as it was."""
        problems: list[Problem] = []
        built = self._best(name, own, known.used if known else {}, problems)
        waits_for: Discover | None = None
        if built is not None and known is not None:
            wanted = built.service.backends_from
            if wanted not in (None, known.service.backends_from) and wanted not in self.rules.instances:
                built, waits_for = None, wanted  # it would lose its backends until the new ones are known
        if built is not None:
            built = _same_objects(built, own, known)
        return Outcome(own, known, built or self._last_good(name, known), tuple(problems), waits_for)

    def _best(
        self, name: str, own: Mapping[str, Entry], before: Mapping[str, Entry], problems: list[Problem]
    ) -> Built | None:
        """The service from its documents of now; if its own is bad or gone, from the last good one with the backends'
        keys of now, whose drains count all the same. Where it is gone, nothing else is taken away."""
        key = f"services/{name}"
        try:
            return self._build(name, own, before, problems)
        except MalformedDocument as exc:
            problems += exc.problems
        if key not in before or before[key] == own.get(key):
            return None
        with suppress(MalformedDocument):
            kept = {} if key in own else before
            return self._build(name, {**kept, **own, key: before[key]}, before, problems)
        return None

    def _moved(self, service: Service) -> bool:
        """Have the instances behind it changed?"""
        wanted = service.backends_from
        if wanted is None:
            return False
        now, before = self.rules.instances.get(wanted), self._previous.instances.get(wanted)
        return now is not before and now != before

    def _keep(self, name: str, built: Built) -> None:
        self.built[name] = built
        if built.service.backends_from is not None:
            self.discovers[built.service.backends_from].add(name)

    def _last_good(self, name: str, last: Built | None) -> Built | None:
        """The service of the last good documents, with the instances that are known now."""
        if last is None or not self._moved(last.service):
            return last
        with suppress(MalformedDocument):
            built = self._build(name, last.used, last.used, [])  # these documents are stored no longer
            return _same_objects(built, last.used, last)
        return last

    def _build(
        self, name: str, own: Mapping[str, Entry], before: Mapping[str, Entry], problems: list[Problem]
    ) -> Built:
        """Raises nothing but ``MalformedDocument``."""
        keys = ServiceKeys(name, own, before)
        built, known = build(keys, self.rules, problems), self._before.get(name)
        if known is not None and known.service.vips and not built.service.vips:
            expected = "missing; expected the VIP that the service has; to make a pool of it, delete it first"
            raise MalformedDocument(Problem(keys.origin, "vip", expected))
        return built

    def settle_claims(self, gateways: Sequence[Claimant] = ()) -> Mapping[str, bool]:
        """Two services must not claim one VIP, port and protocol: the holder keeps it, else the older one gets it.

        So it is with a gateway. Returns the gateways that get none, and whether their last good versions can stay.
        """
        goes_on = self._past is not None and self._past is self._memory.latest
        contested = self._memory.claims.contested(self.built, self._reread if goes_on else None)
        claimed = [claim for gateway in gateways for claim in gateway.claims]
        needed = {*claimed, *(bar for gateway in gateways for bar in gateway.bars)}
        if not contested and len(set(claimed)) == len(claimed) and self._memory.claims.counts.keys().isdisjoint(needed):
            return {}
        settled = settle([*map(self._claimant, self.built), *gateways], "vip", CLAIMS)
        self.problems += settled.problems
        for key, stays in settled.losers.items():
            kind, _, name = key.partition("/")
            if kind == "services":
                self._reread.add(name)
                self._fall_back(name, stays)
        return settled.losers

    def _claimant(self, name: str) -> Claimant:
        built, before = self.built[name], self._before.get(name)
        entry, key = built.used[f"services/{name}"], f"services/{name}"
        return Claimant(
            key=key,
            origin=entry.origin or key,
            created=entry.created,
            claims=_claims(built.service),
            held=_claims(before.service) if before else (),
            bars=tuple(gateway_mark(key.address) for key in _claims(built.service) if key == every_port(key.address)),
        )

    def _fall_back(self, name: str, stays: bool) -> None:
        before = self._before.get(name)
        del self.built[name]
        if stays and (kept := self._last_good(name, before)) is not None:
            self._keep(name, kept)


def _claims(service: Service) -> tuple[ServiceKey, ...]:
    return tuple(map(service.key, service.vips))


def _same_objects(built: Built, own: Mapping[str, Entry], known: Built | None) -> Built:
    """The service made of objects that are there already, where they are equal."""
    service = known.service if known is not None and known.service == built.service else built.service
    return replace(built, service=service, used=own if built.used == own else built.used)
