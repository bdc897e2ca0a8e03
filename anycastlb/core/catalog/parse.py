"""A raw key tree to a ``Catalog``: parse, merge, quarantine.

A bad document never stops another. A service whose documents are bad keeps the last good ones (``Catalog.good``); a
bad backend key keeps its own last good value, or is left out. Discovered instances become backend documents under
those that operators wrote, so that all that holds for a backend holds for them. Pure: no clock, no file, no Consul.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network
from operator import attrgetter
from typing import TypeVar

from anycastlb.core.catalog.build import Rules
from anycastlb.core.catalog.check import CheckTypes
from anycastlb.core.catalog.contradictions import Limits
from anycastlb.core.catalog.decode import MalformedDocument, contained
from anycastlb.core.catalog.discovery import Instances
from anycastlb.core.catalog.drain import parse_drain
from anycastlb.core.catalog.http.reading import Documents, gateway_claimants, read_gateways, read_routes
from anycastlb.core.catalog.keys import Keys, sorted_keys
from anycastlb.core.catalog.memory import CatalogMemory
from anycastlb.core.catalog.quarantine import read_around
from anycastlb.core.catalog.reading import Reading
from anycastlb.core.catalog.shrink import same_vips
from anycastlb.core.identity import same_objects
from anycastlb.core.model import (
    EMPTY,
    Catalog,
    Discover,
    Drain,
    Entry,
    Gateway,
    HttpRoute,
    Network,
    Problem,
    Service,
    Tree,
)

T = TypeVar("T")
ANYWHERE: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
"""Every address may be a VIP: for validating documents where no node's settings are known."""
ANY_MARK = ((1, 2**32 - 1),)
"""Every firewall mark may be a service, for the same purpose."""


def parse_catalog(
    tree: Tree,
    previous: Catalog,
    vip_ranges: tuple[Network, ...],
    fwmark_ranges: tuple[tuple[int, int], ...],
    check_types: CheckTypes,
    instances: Instances = EMPTY,
    memory: CatalogMemory | None = None,
    certificates: frozenset[str] | None = None,
) -> Catalog:
    """The catalog in a tree, falling back on ``previous`` document by document. Never raises for what is in it.

    A service that newly asks for a discovery stays as it was until ``instances`` has its first answer. With a
    ``memory`` of the readings before, the result is the same, and what has not changed is the same object.
    ``certificates``: the names of those that this node has for gateways; None if they are not to be looked at.
    """
    limits = Limits(vip_ranges=vip_ranges, fwmark_ranges=fwmark_ranges)
    rules = Rules(limits, check_types, instances, certificates=certificates)
    memory = memory or CatalogMemory()

    def afresh(some: Tree) -> Catalog:
        return _read(some, previous, rules, CatalogMemory())

    def read(some: Tree) -> Catalog:
        try:
            return _read(some, previous, rules, memory)
        except Exception:
            memory.clear()
            raise

    catalog, memory.aside = read_around(tree, previous, read, afresh, memory.aside)
    return catalog


def _read(tree: Tree, previous: Catalog, rules: Rules, memory: CatalogMemory) -> Catalog:
    keys = sorted_keys(tree, memory.keys)
    unknown = [keys.unknown[key] for key in sorted(keys.unknown)]
    reading = Reading(previous, rules, memory, unknown)
    reading.read_defaults(tree.entries.get("defaults"))
    reading.read_services(keys.services)
    gateways, problems = read_gateways(keys.gateways, previous, rules.limits, rules.certificates)
    reading.problems += problems
    gateways.settled(reading.settle_claims(gateway_claimants(gateways)))
    routes, problems = read_routes(keys.routes, previous, gateways.kept, reading.built)
    reading.problems += problems
    catalog, others = _catalog(tree, previous, keys, reading, gateways, routes)
    if same_vips(previous, catalog):
        catalog.share_vips(previous)
    memory.finish(reading.ended(catalog, keys.services, others), keys)
    return catalog


def _catalog(
    tree: Tree,
    previous: Catalog,
    keys: Keys,
    reading: Reading,
    gateways: Documents[Gateway],
    routes: Documents[HttpRoute],
) -> tuple[Catalog, Mapping[str, Entry]]:
    """The catalog, and those of its entries that are no service's."""
    leaving = {node: _drain(f"drain/{node}", entry) for node, entry in sorted(keys.drained.items())}
    services, pools, remarks = _services(previous, reading)
    problems = [
        *reading.problems,
        *(problem for _, problems in leaving.values() for problem in problems),
        *(problem for problems in remarks.values() for problem in problems),
    ]
    instances = reading.rules.instances
    drained = {f"drain/{node}": entry for node, entry in keys.drained.items()}
    good, others = reading.good({**gateways.good(), **routes.good(), **drained})
    catalog = Catalog(
        services=services,
        drained=frozenset(keys.drained),
        drains={node: drain for node, (drain, _) in leaving.items()},
        problems=tuple(dict.fromkeys(problems)),
        index=tree.index,
        good=good,
        remarks=remarks,
        discovers={wanted: tuple(sorted(names)) for wanted, names in reading.discovers.items()},
        instances={wanted: instances[wanted] for wanted in reading.discovers if wanted in instances},
        pools=pools,
        gateways=_held(previous.gateways, gateways.values()),
        routes=_held(previous.routes, routes.values()),
    )
    return catalog, others


def _services(
    previous: Catalog, reading: Reading
) -> tuple[tuple[Service, ...], tuple[Service, ...], Mapping[str, tuple[Problem, ...]]]:
    """The services, the pools, and the remarks about them, in the order of their names."""
    replaced = reading.replaced()
    if replaced is not None:
        names = {*(previous.remarks.keys() - replaced.keys()), *(name for name, one in replaced.items() if one.remarks)}
        remarks = {name: reading.built[name].remarks for name in sorted(names)}
        now = [one.service for one in replaced.values()]
        return (
            _with(previous.services, [service for service in now if service.vips]),
            _with(previous.pools, [service for service in now if not service.vips]),
            remarks,
        )
    built = [reading.built[name] for name in sorted(reading.built)]
    return (
        _held(previous.services, tuple([one.service for one in built if one.service.vips])),
        _held(previous.pools, tuple([one.service for one in built if not one.service.vips])),
        {one.service.name: one.remarks for one in built if one.remarks},
    )


def _with(before: tuple[Service, ...], replaced: Sequence[Service]) -> tuple[Service, ...]:
    """These services in the places of those of the same names."""
    if not replaced:
        return before
    rows, name = list(before), attrgetter("name")
    for service in replaced:
        rows[bisect_left(rows, service.name, key=name)] = service
    return _held(before, tuple(rows))


def _held(before: tuple[T, ...], now: tuple[T, ...]) -> tuple[T, ...]:
    """The very tuple of before if nothing in it has changed: who asks whether it has need not walk through it."""
    return before if same_objects(before, now) else now


def troubled(catalog: Catalog, troubles: Mapping[Discover, tuple[str, ...]]) -> Catalog:
    """The catalog with the troubles of its discoveries as problems of every service that asks for them."""
    problems = list(catalog.problems)
    for wanted, names in catalog.discovers.items():
        for name in names:
            key = f"services/{name}"
            origin = (catalog.good[key].origin if key in catalog.good else "") or key
            problems += [Problem(origin, "backends_from", text) for text in troubles.get(wanted, ())]
    return (
        catalog if len(problems) == len(catalog.problems) else replace(catalog, problems=tuple(dict.fromkeys(problems)))
    )


def _drain(key: str, entry: Entry) -> tuple[Drain, tuple[Problem, ...]]:
    try:
        return contained(entry.origin or key, parse_drain, key, entry)
    except MalformedDocument as exc:
        return Drain(), exc.problems
