"""The gate around a whole reading of a catalog: what makes it fail stays as it was, and all others are read.

Reading contains the faults of one document (``decode.contained``). This is for all the rest of a reading, whatever it
is: the service or drain with which it fails is looked for and set aside. A service stays as it last was good; a drain
is an order, and is obeyed as far as it can be. If a reading fails without any of them, the tree cannot be read.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from anycastlb.core.culprits import culprits
from anycastlb.core.model import Catalog, Drain, Entry, Problem, Service, Tree

Read = Callable[[Tree], Catalog]


def read_around(tree: Tree, previous: Catalog, read: Read, exc: Exception) -> Catalog:
    """What ``read`` makes of a tree, of which it has raised ``exc``; which it raises again if none can be blamed."""
    subjects = _subjects(tree)
    bad = culprits(list(subjects), lambda some: _works(read, _with(tree, subjects, some)))
    try:
        catalog = read(_with(tree, subjects, [name for name in subjects if name not in bad]))
    except Exception:
        raise exc from None
    return _kept(catalog, previous, {name: subjects[name] for name in bad}, exc)


def _subjects(tree: Tree) -> Mapping[str, Mapping[str, Entry]]:
    """The entries by what they are about: ``services/web``, ``drain/lb1``. The defaults are about everything."""
    subjects: dict[str, dict[str, Entry]] = {}
    for key, entry in tree.entries.items():
        if key != "defaults":
            subjects.setdefault("/".join(key.split("/")[:2]), {})[key] = entry
    return subjects


def _with(tree: Tree, subjects: Mapping[str, Mapping[str, Entry]], names: Iterable[str]) -> Tree:
    """The tree with nothing but these, and the defaults."""
    entries = {key: entry for key, entry in tree.entries.items() if key == "defaults"}
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
    good = {key: entry for key, entry in previous.good.items() if _is_of(key, {one.name for one in kept})}
    discovers = {one.backends_from: (one.name,) for one in kept if one.backends_from is not None}
    return replace(
        catalog,
        services=tuple(sorted((*catalog.services, *kept), key=lambda one: one.name)),
        drained=catalog.drained | set(drained),
        drains={**dict.fromkeys(drained, Drain()), **catalog.drains},
        problems=(*catalog.problems, *problems),
        good={**catalog.good, **good},
        discovers={**discovers, **{wanted: (*discovers.get(wanted, ()), *rest)
                                   for wanted, rest in catalog.discovers.items()}},
        instances={**{w: previous.instances[w] for w in discovers if w in previous.instances}, **catalog.instances},
    )  # fmt: skip


def _places(service: Service) -> set[tuple[object, ...]]:
    """What no other service may claim."""
    return {(vip, service.protocol, service.port) for vip in service.vips}


def _is_of(key: str, names: Collection[str]) -> bool:
    parts = key.split("/")
    return parts[0] == "services" and parts[1] in names
