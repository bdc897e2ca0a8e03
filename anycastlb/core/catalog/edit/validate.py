"""What edits would make of a tree: the catalog it would mean, and the problems that must stop them.

Pure. A problem that was there before and is of other documents stops nobody: one bad document must not freeze the
catalog. A written document stops its own edit if it would not be in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from anycastlb.core import fields
from anycastlb.core.catalog import decode
from anycastlb.core.catalog.decode import MalformedDocument
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.catalog.schema import ServiceDocument
from anycastlb.core.catalog.service import CheckTypes, strange_check
from anycastlb.core.model import Catalog, Edit, Entry, Network, Problem, Tree

SAMPLE: Mapping[str, Any] = {"vip": "192.0.2.1", "port": 80}
"""Whatever the defaults stand under."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a node needs to know to read documents."""

    vip_ranges: tuple[Network, ...]
    fwmark_ranges: tuple[tuple[int, int], ...]
    check_types: CheckTypes


@dataclass(frozen=True, slots=True)
class ValidatedEdits:
    catalog: Catalog
    """What the tree would mean."""
    problems: tuple[Problem, ...]
    """Why the edits must not be made; empty = they may."""


def applied(tree: Tree, edits: Iterable[Edit]) -> Tree:
    """The tree after the edits. New keys are the youngest, and of one age: they are written together."""
    entries = dict(tree.entries)
    youngest = max((entry.created for entry in entries.values()), default=0) + 1
    for edit in edits:
        known = entries.get(edit.key)
        if edit.value is None:
            entries.pop(edit.key, None)
        else:
            entries[edit.key] = Entry(edit.value, known.created if known else youngest)
    return Tree(entries, tree.index)


def validate(tree: Tree, edits: Sequence[Edit], rules: Rules, previous: Catalog) -> ValidatedEdits:
    """``previous``: the catalog in force, whose services keep their VIPs, and whose instances are the known ones."""
    known_of = tuple(one for one in previous.services if f"services/{one.name}" in previous.good)
    previous = replace(previous, services=known_of)  # nothing can be kept whose documents are not known
    before = _by_key(tree)
    after = applied(before, edits)
    now, then = (
        parse_catalog(found, previous, rules.vip_ranges, rules.fwmark_ranges, rules.check_types, previous.instances)
        for found in (before, after)
    )
    known = set(now.problems)
    written = {edit.key for edit in edits if edit.value is not None}
    quarantined = {key for key in written if then.good.get(key) != after.entries[key]}
    stopping = [problem for problem in then.problems if problem not in known or problem.key in quarantined]
    if "defaults" in written:
        stopping += _strange_defaults(after.entries["defaults"], rules.check_types)
    return ValidatedEdits(then, tuple(dict.fromkeys(stopping)))


def _by_key(tree: Tree) -> Tree:
    """With every document called by its key, whatever file it is in."""
    entries = {key: replace(entry, origin="") if entry.origin else entry for key, entry in tree.entries.items()}
    return Tree(entries, tree.index)


def _strange_defaults(entry: Entry, check_types: CheckTypes) -> list[Problem]:
    """What is wrong in the defaults by themselves, even while no service stands over them."""
    try:
        document = decode.document("defaults", entry)
        ServiceDocument.model_validate({**SAMPLE, **document})
    except MalformedDocument:
        return []  # the parser has told it
    except ValidationError as exc:
        return list(fields.problems(exc, "defaults"))
    check = document.get("check")
    return list(strange_check("defaults", check, check_types)) if isinstance(check, dict) else []
