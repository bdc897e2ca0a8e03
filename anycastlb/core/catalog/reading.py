"""One reading of a tree: which documents of each service count, those of now or the last good ones.

Pure. ``build`` makes a service of the documents that count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from anycastlb.core.catalog import decode
from anycastlb.core.catalog.build import Built, Rules, ServiceKeys, build
from anycastlb.core.catalog.decode import MalformedDocument, contained
from anycastlb.core.model import Catalog, Discover, Entry, Problem, Service


@dataclass
class Reading:
    """One reading of a tree: the services and defaults so far, with their problems."""

    previous: Catalog
    rules: Rules
    problems: list[Problem]
    discovers: dict[Discover, set[str]] = field(default_factory=lambda: defaultdict(set))
    services: dict[str, Service] = field(default_factory=dict)
    remarks: dict[str, tuple[Problem, ...]] = field(default_factory=dict)
    used: dict[str, Mapping[str, Entry]] = field(default_factory=dict)
    """Service name (empty for the defaults) -> the entries it was made of."""
    same_defaults: bool = False

    def __post_init__(self) -> None:
        self._before = {service.name: service for service in self.previous.services}
        self._good_before: dict[str, dict[str, Entry]] = defaultdict(dict)
        for key, entry in self.previous.good.items():
            if key.startswith("services/"):
                self._good_before[key.split("/")[1]][key] = entry

    def read_defaults(self, entry: Entry | None) -> None:
        """Take the defaults of the tree, else the last good ones."""
        last_good = self.previous.good.get("defaults")
        for candidate in (entry, last_good if entry else None):
            if candidate is None:
                continue
            try:
                read = contained(candidate.origin or "defaults", decode.document, "defaults", candidate)
                self.rules = replace(self.rules, defaults=read)
                self.used[""] = {"defaults": candidate}
                break
            except MalformedDocument as exc:
                self.problems += exc.problems
        self.same_defaults = self.used.get("", {}).get("defaults") == last_good

    def good(self) -> dict[str, Entry]:
        """The entries that the services and the defaults were made of."""
        return {key: entry for entries in self.used.values() for key, entry in entries.items()}

    def read_service(self, name: str, own: dict[str, Entry]) -> None:
        """Take a service from its keys, else as it last was good."""
        before = self._good_before.get(name, {})
        known = self._last(name)
        if own == before and self.same_defaults and known is not None and not self._moved(known.service):
            self._keep(name, replace(known, used=own))  # nothing about it changed
            return
        built = self._best(name, own, before)
        if built is None:
            self._keep_last_good(name)
            return
        wanted = built.service.backends_from
        asked = None if known is None else known.service.backends_from
        if wanted is not None and wanted not in self.rules.instances and known is not None and asked != wanted:
            self.discovers[wanted].add(name)
            self._keep_last_good(name)  # it would lose its backends until the new ones are known
            return
        self._keep(name, built)

    def _best(self, name: str, own: dict[str, Entry], before: dict[str, Entry]) -> Built | None:
        """The service from its documents of now; if its own is bad or gone, from the last good one with the backends'
        keys of now, whose drains count all the same. Where it is gone, nothing else is taken away."""
        key = f"services/{name}"
        try:
            return self._build(name, own, before)
        except MalformedDocument as exc:
            self.problems += exc.problems
        if key not in before or before[key] == own.get(key):
            return None
        with suppress(MalformedDocument):
            return self._build(name, {**({} if key in own else before), **own, key: before[key]}, before)
        return None

    def _last(self, name: str) -> Built | None:
        """The service as it is in force."""
        service = self._before.get(name)
        if service is None:
            return None
        return Built(service, self._good_before.get(name, {}), self.previous.remarks.get(name, ()))

    def _moved(self, service: Service) -> bool:
        """Have the instances behind it changed?"""
        wanted = service.backends_from
        return wanted is not None and self.rules.instances.get(wanted) != self.previous.instances.get(wanted)

    def _keep(self, name: str, built: Built) -> None:
        self.services[name], self.used[name], self.remarks[name] = built.service, built.used, built.remarks
        if built.service.backends_from is not None:
            self.discovers[built.service.backends_from].add(name)

    def _keep_last_good(self, name: str) -> None:
        """Keep the service of the last good documents, with the instances that are known now."""
        last = self._last(name)
        if last is None:
            return
        if self._moved(last.service):
            before = len(self.problems)
            with suppress(MalformedDocument):
                last = self._build(name, last.used, last.used)
            del self.problems[before:]  # these documents are stored no longer
        self._keep(name, last)

    def _build(self, name: str, own: Mapping[str, Entry], before: Mapping[str, Entry]) -> Built:
        """Raises nothing but ``MalformedDocument``."""
        return build(ServiceKeys(name, own, before), self.rules, self.problems)

    def settle_claims(self) -> None:
        """Two services must not claim one VIP, port and protocol: the holder keeps it, else the older one gets it."""
        held = {service.name: set(map(service.key, service.vips)) for service in self.previous.services}
        owners: dict[Any, str] = {}

        def age(name: str) -> tuple[bool, int, str]:
            service = self.services[name]
            holds = bool(held.get(name, set()) & set(map(service.key, service.vips)))
            return not holds, self.used[name][f"services/{name}"].created, name

        for name in sorted(self.services, key=age):
            service = self.services[name]
            rival = next((owners[k] for k in map(service.key, service.vips) if k in owners), None)
            if rival is None:
                owners.update(dict.fromkeys(map(service.key, service.vips), name))
                continue
            entry = self.used[name][f"services/{name}"]
            claim = next(str(k) for k in map(service.key, service.vips) if owners.get(k) == rival)
            what = f"expected a VIP, port and protocol of its own; {claim} belongs to service {rival}"
            self.problems.append(Problem(entry.origin or f"services/{name}", "vip", what))
            self._fall_back(name, owners)

    def _fall_back(self, name: str, owners: dict[Any, str]) -> None:
        before = self._before.get(name)
        del self.services[name], self.used[name]
        if before is None or any(key in owners for key in map(before.key, before.vips)):
            return
        self._keep_last_good(name)
        owners.update(dict.fromkeys(map(before.key, before.vips), name))
