"""Routes that ``validate`` is given without the whole catalog: what they refer to may be elsewhere.

A route by itself is judged as always, but a gateway or a pool that is not among the files is only noticed. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from anycastlb.core.catalog.http.reading import read_routes
from anycastlb.core.model import Catalog, HttpRoute, Problem, Tree


@dataclass(frozen=True, slots=True)
class LoneRoutes:
    problems: tuple[Problem, ...]
    notices: tuple[Problem, ...]


class _AnyName(Collection[str]):
    """Every name there may be."""

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def without_routes(tree: Tree) -> Tree:
    return replace(tree, entries={key: entry for key, entry in tree.entries.items() if not key.startswith("routes/")})


def lone_routes(tree: Tree, beside: Catalog) -> LoneRoutes:
    """``beside``: the catalog in the rest of the tree."""
    entries = {key.removeprefix("routes/"): entry for key, entry in tree.entries.items() if key.startswith("routes/")}
    documents, problems = read_routes(entries, Catalog(), _AnyName(), _AnyName())
    notices = [notice for kept in documents.kept.values() for notice in _strangers(kept.value, tree, beside)]
    return LoneRoutes(problems, tuple(notices))


def _strangers(route: HttpRoute, tree: Tree, beside: Catalog) -> Iterator[Problem]:
    key = f"routes/{route.name}"
    known = {service.name for service in (*beside.services, *beside.pools)}
    for what, names in (
        ("gateway", set(route.gateways) - {gateway.name for gateway in beside.gateways}),
        ("service", route.pools() - known),
    ):
        for name in sorted(names):
            yield Problem(tree.entries[key].origin or key, "", f"the {what} {name} is not among these files")
