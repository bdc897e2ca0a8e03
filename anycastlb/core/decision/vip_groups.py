"""Which VIPs can only be decided together.

All services of a VIP share its gate, and all VIPs of a firewall mark share one IPVS service. Everything else about
a VIP is its own: what does not concern any VIP of a group changes nothing about the group. A group whose services have
not changed is the same object in the next decision.

Pure. Decision record: docs/decisions/0014-incremental-brain.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import compress
from operator import is_not
from typing import Any, TypeAlias

from anycastlb.core.delta import Edited
from anycastlb.core.model import EMPTY, Address, Check, DestinationKey, ForwardPath, Service, ServiceKey

Place: TypeAlias = tuple[Service, Address]
"""One service on one VIP."""


@dataclass(frozen=True, slots=True, eq=False)
class VipGroup:
    """VIPs that are decided together, and the services on them. It is compared by identity."""

    places: tuple[Place, ...]
    """In the catalog's order."""
    vips: tuple[Address, ...]
    staffed: frozenset[ServiceKey]
    """The services that have backends, drained ones included."""
    checks: tuple[Check, ...]
    """The checks of its backends."""
    paths: tuple[ForwardPath, ...]
    """The ways to its backends that checks take through IPVS."""

    @classmethod
    def of(cls, places: Iterable[Place]) -> VipGroup:
        places = tuple(places)
        members = [(service, vip, backend) for service, vip in places for backend in service.members(vip)]
        paths = (service.via(vip, backend) for service, vip, backend in members if backend.through)
        return cls(
            places,
            tuple(dict.fromkeys(vip for _, vip in places)),
            frozenset(service.key(vip) for service, vip in places if service.members(vip)),
            tuple(service.check(vip, backend) for service, vip, backend in members),
            tuple(path for path in paths if path is not None),
        )

    def wants(self, key: DestinationKey) -> bool:
        """Does the catalog name this backend, drained or not?"""
        return any(
            (backend.address, backend.port) == (key.address, key.port)
            for service, vip in self.places
            if service.key(vip) == key.service
            for backend in service.members(vip)
        )


@dataclass(frozen=True, slots=True)
class Grouping:
    """The groups of one catalog, by their first VIP and in the catalog's order."""

    groups: Mapping[Address, VipGroup] = field(default_factory=lambda: EMPTY)
    read: tuple[Service, ...] = ()
    """The services as they were read."""
    services: tuple[Service, ...] = ()
    """The services that the groups are made of: one that was read anew and is equal is still the old object."""
    united: Mapping[Address, Address] = field(default_factory=lambda: EMPTY)
    """The first VIP of a group that a firewall mark unites, by each other VIP of it."""
    marks: Mapping[ServiceKey, Address] = field(default_factory=lambda: EMPTY)
    """The first VIP of the group of each firewall mark."""
    places: Mapping[Address, int] = field(default_factory=lambda: EMPTY)
    """The place of each group in their order."""

    @property
    def vips(self) -> int:
        """How many VIPs the catalog has."""
        return len(self.groups) + len(self.united)

    @property
    def paths(self) -> tuple[ForwardPath, ...]:
        """Every way to a backend that a check takes through IPVS, each once."""
        return tuple(dict.fromkeys(path for group in self.groups.values() if group.paths for path in group.paths))

    def name_of(self, key: Any) -> Address | None:
        """By which VIP the group of a row's key is known; None if there is no such group."""
        if isinstance(key, DestinationKey):
            key = key.service
        if isinstance(key, ServiceKey):
            key = self.marks.get(key) if key.protocol == "fwmark" else key.address
        name = self.united.get(key, key) if self.united else key
        return name if name in self.groups else None

    def in_order(self, names: Iterable[Address | None]) -> tuple[Address, ...]:
        """Those of these names that groups have, in the order of the groups."""
        return tuple(
            sorted((name for name in names if name is not None and name in self.places), key=self.places.__getitem__)
        )

    def group_of(self, key: Any) -> VipGroup | None:
        name = self.name_of(key)
        return None if name is None else self.groups[name]


NO_GROUPS = Grouping()


def group_vips(services: tuple[Service, ...], before: Grouping = NO_GROUPS) -> Grouping:
    """The groups of these services; those of which nothing has changed are the ones from ``before``."""
    if services is before.read:
        return before
    if len(services) == len(before.services):
        kept, edited = _known(services, before)
        if all(_stands_alike(old, new) for old, new in edited):
            return replace(before, groups=_edited(before, edited), read=services, services=kept)
        services, read = kept, services
    else:
        known = {service.name: service for service in before.services}
        kept = tuple(known[s.name] if s.name in known and known[s.name] == s else s for s in services)
        services, read = kept, services
    united, marks = _united(services)
    places: dict[Address, list[Place]] = {}
    for service in services:
        for vip in service.vips:
            places.setdefault(united.get(vip, vip), []).append((service, vip))
    groups = {name: _kept(before.groups.get(name), of_group) for name, of_group in places.items()}
    return Grouping(groups, read, services, united, marks, {name: place for place, name in enumerate(groups)})


def _known(
    services: tuple[Service, ...], before: Grouping
) -> tuple[tuple[Service, ...], list[tuple[Service, Service]]]:
    """These services, as many as before, of the old objects as far as they are equal; and what was edited into what."""
    kept, edited = list(before.services), []
    for place in compress(range(len(services)), map(is_not, services, before.read)):
        old, new = before.services[place], services[place]
        if new is not old and new != old:
            kept[place] = new
            edited.append((old, new))
    return tuple(kept), edited


def _stands_alike(old: Service, new: Service) -> bool:
    """Do both stand on the same VIPs under the same keys?"""
    return (old.vips, old.protocol, old.port) == (new.vips, new.protocol, new.port)


def _edited(before: Grouping, edited: Iterable[tuple[Service, Service]]) -> Mapping[Address, VipGroup]:
    """The groups of a catalog in which only these services were edited, and none of them has moved."""
    successors = {id(old): new for old, new in edited}
    if not successors:
        return before.groups
    names = {before.united.get(vip, vip) for new in successors.values() for vip in new.vips}
    return Edited(
        before.groups,
        {name: VipGroup.of((successors.get(id(s), s), vip) for s, vip in before.groups[name].places) for name in names},
    )


def _kept(before: VipGroup | None, places: list[Place]) -> VipGroup:
    known = before.places if before else ()
    alike = len(known) == len(places) and all(a is b and v == w for (a, v), (b, w) in zip(known, places, strict=True))
    return before if before and alike else VipGroup.of(places)


def _united(services: Iterable[Service]) -> tuple[dict[Address, Address], dict[ServiceKey, Address]]:
    """Which VIPs the firewall marks unite: of every VIP and every mark the first VIP of its group."""
    firsts: dict[Address, Address] = {}

    def first(vip: Address) -> Address:
        while (before := firsts.get(vip, vip)) != vip:
            vip = before
        return vip

    marks: dict[ServiceKey, Address] = {}
    for service in services:
        for vip in service.vips if service.protocol == "fwmark" else ():
            of_mark, of_vip = first(marks.setdefault(service.key(vip), vip)), first(vip)
            if of_vip != of_mark:
                firsts[of_vip] = of_mark
    return {vip: first(vip) for vip in firsts}, {key: first(vip) for key, vip in marks.items()}
