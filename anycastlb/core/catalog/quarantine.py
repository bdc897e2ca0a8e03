"""The gate around a whole reading of a catalog: what makes it fail stays as it was, and all others are read.

Reading contains the faults of one document (``decode.contained``). This is for all the rest of a reading, whatever it
is: the service or drain with which it fails is looked for and set aside. A service stays as it last was good; a drain
is an order, and is obeyed as far as it can be. If a reading fails without any of them, the tree cannot be read.

What was set aside is tried alone at each reading after that, and is looked for no more as long as it fails.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter
from typing import TypeVar

from anycastlb.core.culprits import culprits
from anycastlb.core.model import Catalog, Drain, Entry, Gateway, Problem, Service, Tree

T = TypeVar("T")
Read = Callable[[Tree], Catalog]
Aside = tuple[Collection[str], Exception]
"""What is set aside (``services/web``, ``drain/lb1``), and what was raised of it."""


def read_around(
    tree: Tree, previous: Catalog, read: Read, afresh: Read, aside: Aside | None = None
) -> tuple[Catalog, Aside | None]:
    """What ``read`` makes of a tree, without what it cannot read, which stays as it was in the ``previous`` catalog;
    and what that is. Raises what ``read`` raises if no service and no drain can be blamed for it.

    ``afresh`` reads the same without a memory of other trees; ``aside``: what was set aside at the last reading.
    """
    if aside is not None and _fails_alone(tree, afresh, aside):
        with suppress(Exception):  # else there is more to set aside
            return _without(tree, previous, read, aside), aside
    try:
        return read(tree), None
    except Exception as exc:
        aside = _culprits(tree, afresh), exc
        with suppress(Exception):
            return _without(tree, previous, read, aside), aside
        raise


def _fails_alone(tree: Tree, read: Read, aside: Aside) -> bool:
    """Does each of what was set aside fail, as it is now?"""
    subjects = _subjects(_narrowed(tree, aside[0]))
    return subjects.keys() == set(aside[0]) and not any(
        _works(read, _with(tree, subjects, [name])) for name in subjects
    )


def _culprits(tree: Tree, read: Read) -> frozenset[str]:
    subjects = _subjects(tree)
    return frozenset(culprits(list(subjects), lambda some: _works(read, _with(tree, subjects, some))))


def _without(tree: Tree, previous: Catalog, read: Read, aside: Aside) -> Catalog:
    names, exc = aside
    bad = _narrowed(tree, names)
    rest = {key: entry for key, entry in tree.entries.items() if key not in bad.entries}
    return _kept(read(replace(tree, entries=rest)), previous, _subjects(bad), exc)


def _narrowed(tree: Tree, names: Collection[str]) -> Tree:
    """The tree with nothing but these."""
    return replace(tree, entries={key: entry for key, entry in tree.entries.items() if _subject(key) in names})


def _subject(key: str) -> str:
    return "/".join(key.split("/", 2)[:2])


def _subjects(tree: Tree) -> Mapping[str, Mapping[str, Entry]]:
    """The entries by what they are about: ``services/web``, ``drain/lb1``. The defaults are about everything."""
    subjects: dict[str, dict[str, Entry]] = {}
    for key, entry in tree.entries.items():
        if key != "defaults":
            subjects.setdefault(_subject(key), {})[key] = entry
    return subjects


def _with(tree: Tree, subjects: Mapping[str, Mapping[str, Entry]], names: Iterable[str]) -> Tree:
    """The tree with nothing but these, and the defaults."""
    entries = {key: tree.entries[key] for key in ("defaults",) if key in tree.entries}
    for name in names:
        entries.update(subjects[name])
    return replace(tree, entries=entries)


def _works(read: Read, tree: Tree) -> bool:
    try:
        read(tree)
    except Exception:  # why is known from the reading of all of them
        return False
    return True


def _kept(catalog: Catalog, previous: Catalog, bad: Mapping[str, Mapping[str, Entry]], exc: Exception) -> Catalog:
    """The catalog with what could not be read as it was before."""
    text = f"not read, because of a fault of anycastlb: {type(exc).__name__}: {exc!s:.200}; please report it"
    problems = [
        Problem(next((e.origin for e in entries.values() if e.origin), subject), "", text)
        for subject, entries in bad.items()
    ]
    drained = [subject.removeprefix("drain/") for subject in bad if subject.startswith("drain/")]
    taken = {place for service in catalog.services for place in _places(service)}
    names = {subject.removeprefix("services/") for subject in bad if subject.startswith("services/")}
    kept = [one for one in previous.services if one.name in names and taken.isdisjoint(_places(one))]
    pools = [one for one in previous.pools if one.name in names]
    gateways = [one for one in previous.gateways if f"gateways/{one.name}" in bad and _free(one, taken)]
    routes = [one for one in previous.routes if f"routes/{one.name}" in bad]
    of_services = {one.name for one in (*kept, *pools)}
    lone = {*(f"gateways/{one.name}" for one in gateways), *(f"routes/{one.name}" for one in routes)}
    good = {key: entry for key, entry in previous.good.items() if key in lone or _is_of(key, of_services)}
    discovers = {one.backends_from: (one.name,) for one in (*kept, *pools) if one.backends_from is not None}
    return replace(
        catalog,
        services=_with_kept(catalog.services, kept),
        pools=_with_kept(catalog.pools, pools),
        gateways=_with_kept(catalog.gateways, gateways),
        routes=_with_kept(catalog.routes, routes),
        drained=catalog.drained | set(drained),
        drains={**dict.fromkeys(drained, Drain()), **catalog.drains},
        problems=(*catalog.problems, *problems),
        good={**catalog.good, **good},
        discovers={**discovers, **{wanted: (*discovers.get(wanted, ()), *rest)
                                   for wanted, rest in catalog.discovers.items()}},
        instances={**{w: previous.instances[w] for w in discovers if w in previous.instances}, **catalog.instances},
    )  # fmt: skip


def _with_kept(values: tuple[T, ...], kept: list[T]) -> tuple[T, ...]:
    return tuple(sorted((*values, *kept), key=attrgetter("name")))


def _free(gateway: Gateway, taken: Collection[tuple[object, ...]]) -> bool:
    return not any((key.address, key.protocol, key.port) in taken for key in gateway.claims())


def _places(service: Service) -> set[tuple[object, ...]]:
    """What no other service may claim."""
    return {(vip, service.protocol, service.port) for vip in service.vips}


def _is_of(key: str, names: Collection[str]) -> bool:
    parts = key.split("/")
    return parts[0] == "services" and parts[1] in names
