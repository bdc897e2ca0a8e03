"""Says what edits would make of a tree: the catalog it would become, and the problems that must stop them.

Pure. A problem that was there before and belongs to other documents stops nobody: one bad document must not freeze the
catalog. A document that is written stops its own edit if it would not take effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import ValidationError

from anycastlb.core import fields
from anycastlb.core.catalog import decode
from anycastlb.core.catalog.check import CheckTypes, strange_check
from anycastlb.core.catalog.decode import MalformedDocument
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.catalog.schema import ServiceDocument
from anycastlb.core.model import Catalog, Edit, Entry, Gateway, HttpRoute, Network, Problem, Service, Tree

Named = TypeVar("Named", Service, Gateway, HttpRoute)
SAMPLE: Mapping[str, Any] = {"vip": "192.0.2.1", "port": 80}
"""A service under which the defaults are validated when they are written: any would do."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a node must know to read documents."""

    vip_ranges: tuple[Network, ...]
    fwmark_ranges: tuple[tuple[int, int], ...]
    check_types: CheckTypes
    certificates: frozenset[str] | None = None
    """The names of those that the node has for gateways; None if it serves none."""


@dataclass(frozen=True, slots=True)
class ValidatedEdits:
    """Edits of one tree with all that follows from them: what a commit, its events and its answer are made from."""

    before: Tree
    edits: tuple[Edit, ...]
    after: Tree
    catalog: Catalog
    """The catalog in ``after``; without edits, the one in force."""
    problems: tuple[Problem, ...] = ()
    """Why the edits must not be made; empty if they may."""


def applied(tree: Tree, edits: Iterable[Edit]) -> Tree:
    """The tree after the edits. New keys are the youngest, and all of one age: they are written together."""
    entries = dict(tree.entries)
    youngest = max((entry.created for entry in entries.values()), default=0) + 1
    for edit in edits:
        known = entries.get(edit.key)
        if edit.value is None:
            entries.pop(edit.key, None)
        else:
            entries[edit.key] = Entry(edit.value, known.created if known else youngest)
    return Tree(entries, tree.index)


def validate(tree: Tree, edits: Iterable[Edit], rules: Rules, in_force: Catalog) -> ValidatedEdits:
    """Validate edits of a tree. ``in_force`` is as in ``read_catalog``.

    The whole catalog is parsed once, for the tree after the edits. Only if that has problems in documents which the
    edits do not touch is the tree before them parsed as well, to see whether the problems are new.
    """
    edits = tuple(edits)
    if not edits:
        return ValidatedEdits(tree, (), tree, in_force)
    after = applied(tree, edits)
    catalog = read_catalog(after, rules, in_force)
    written = {edit.key for edit in edits if edit.value is not None}
    quarantined = {key for key in written if catalog.good.get(key) != after.entries[key]}
    stopping = [problem for problem in catalog.problems if problem.key in quarantined]
    if len(stopping) < len(catalog.problems):
        known = set(read_catalog(tree, rules, in_force).problems)
        stopping = [problem for problem in catalog.problems if problem not in known or problem.key in quarantined]
    if "defaults" in written:
        stopping += _problems_of_defaults(after.entries["defaults"], rules.check_types)
    return ValidatedEdits(tree, edits, after, catalog, tuple(dict.fromkeys(stopping)))


def read_catalog(tree: Tree, rules: Rules, in_force: Catalog) -> Catalog:
    """The catalog in a tree, each document named by its key whatever file it is in.

    ``in_force``: the catalog in force, whose services keep their VIPs and whose instances are the known ones.
    """

    def known(kind: str, values: Iterable[Named]) -> tuple[Named, ...]:
        return tuple(value for value in values if f"{kind}/{value.name}" in in_force.good)

    previous = replace(  # nothing can be kept whose documents are not known
        in_force,
        services=known("services", in_force.services),
        pools=known("services", in_force.pools),
        gateways=known("gateways", in_force.gateways),
        routes=known("routes", in_force.routes),
    )
    return parse_catalog(
        _by_key(tree),
        previous,
        rules.vip_ranges,
        rules.fwmark_ranges,
        rules.check_types,
        previous.instances,
        certificates=rules.certificates,
    )


def _by_key(tree: Tree) -> Tree:
    """The tree without the names of the files its documents come from."""
    entries = {key: replace(entry, origin="") if entry.origin else entry for key, entry in tree.entries.items()}
    return Tree(entries, tree.index)


def _problems_of_defaults(entry: Entry, check_types: CheckTypes) -> list[Problem]:
    """What is wrong in the defaults by themselves, even while no service uses them."""
    try:
        document = decode.document("defaults", entry)
        ServiceDocument.model_validate({**SAMPLE, **document})
    except MalformedDocument:
        return []  # the parser has reported it
    except ValidationError as exc:
        return list(fields.problems(exc, "defaults"))
    check = document.get("check")
    return list(strange_check("defaults", check, check_types)) if isinstance(check, dict) else []
