"""The laws of writing: nothing bad gets in, what was written is what is seen, and a dump is the whole."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from anycastlb.core.catalog.decode import MalformedDocument
from anycastlb.core.catalog.edit import (
    BackendTarget,
    DefaultsTarget,
    ServiceTarget,
    Target,
    TargetMissing,
    applied,
    export_documents,
    imported,
    merge_patch,
    validate,
)
from anycastlb.core.model import Edit, Entry, Tree
from tests.support.stored import MIXED, RULES, WEB, backends, order, read, tree

NAMES = some.sampled_from(["b1", "b2", "b3", "10.0.0.9:81"])
SERVICES = some.sampled_from(["web", "dns"])
BACKEND = some.fixed_dictionaries(
    {"address": some.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"])},
    optional={"weight": some.sampled_from([0, 5, "7", "heavy", None]), "port": some.sampled_from([80, "81", None])},
)
FIELDS = {
    "vip": some.sampled_from(["192.0.2.10", "192.0.2.11", ["192.0.2.10", "192.0.2.12"], "10.0.0.1", None]),
    "port": some.sampled_from([80, "81", -1, None]),
    "scheduler": some.sampled_from(["mh", "wrr", "none", None]),
    "check": some.sampled_from([{}, {"type": "http", "path": "/x"}, {"path": None}, {"type": "tcp"}, 3, None]),
}
SERVICE = some.fixed_dictionaries(
    {}, optional={**FIELDS, "backends": some.none() | some.dictionaries(NAMES, BACKEND | some.none(), max_size=3)}
)
WISHES = some.one_of(
    some.tuples(some.just("put"), some.builds(ServiceTarget, SERVICES), SERVICE),
    some.tuples(some.just("patch"), some.builds(ServiceTarget, SERVICES), SERVICE),
    some.tuples(some.just("delete"), some.builds(ServiceTarget, SERVICES), some.none()),
    some.tuples(some.sampled_from(["put", "patch"]), some.builds(BackendTarget, SERVICES, NAMES), BACKEND),
    some.tuples(some.just("delete"), some.builds(BackendTarget, SERVICES, NAMES), some.none()),
    some.tuples(some.sampled_from(["put", "patch"]), some.builds(DefaultsTarget), SERVICE),
    some.tuples(some.just("import"), some.booleans(), some.dictionaries(some.sampled_from(
        ["services/web", "services/dns", "services/web/backends/b1"]), SERVICE | BACKEND | some.none(), max_size=3)),
)  # fmt: skip
START = [
    MIXED,
    tree(),
    tree(services__dns={"vip": "192.0.2.11", "prot": 1}, services__web={**WEB, "backends": backends(1)}),
]


def make(tree: Tree, verb: str, place: Any, document: Any) -> tuple[Edit, ...]:
    if verb == "import":
        return imported(tree, document, place)
    return tuple(place.delete(tree) if verb == "delete" else getattr(place, verb)(tree, document))


def perform(tree: Tree, wish: tuple[str, Any, Any]) -> tuple[Tree, bool]:
    """As a node would: refused whole, or done."""
    try:
        made = make(tree, *wish)
    except (TargetMissing, MalformedDocument):
        return tree, False
    if validate(tree, made, RULES, read(tree)).problems:
        return tree, False
    return applied(tree, made), True


@given(some.sampled_from(START), some.lists(WISHES, max_size=6))
def test_no_sequence_of_writes_brings_a_new_problem(start: Tree, wishes: list[Any]) -> None:
    tree, known = start, set(read(start).problems)
    for wish in wishes:
        tree, _ = perform(tree, wish)
        now = set(read(tree).problems)
        assert now <= known
        known = now


@given(some.sampled_from(START), some.lists(WISHES, max_size=3), WISHES)
def test_what_was_put_or_patched_is_what_is_seen(start: Tree, wishes: list[Any], last: Any) -> None:
    tree = start
    for wish in wishes:
        tree, _ = perform(tree, wish)
    verb, place, document = last
    before = place.seen(tree) if isinstance(place, Target) else None
    was = order(tree, getattr(place, "name", ""))
    tree, done = perform(tree, last)
    if not done or verb not in ("put", "patch"):
        return
    seen = place.seen(tree)
    under = before.document if verb == "patch" and before else {}
    wanted = merge_patch(under, document)
    if isinstance(place, ServiceTarget):
        if verb == "put" and "backends" not in wanted and before and before.document and "backends" in before.document:
            wanted["backends"] = before.document["backends"]
        for name, backend in (wanted.get("backends") or {}).items():
            backend |= {
                k: v
                for k, v in seen.document["backends"][name].items()
                if k in ("address", "port") and k not in backend
            }
        now = order(tree, place.name)
        stayed = [name for name in was if name in now]
        assert [name for name in now if name in was] == stayed, "nobody's place is another's"
    assert seen.document == wanted
    assert not make(tree, verb, place, document), "a second time changes nothing"


@given(some.sampled_from(START), some.lists(WISHES, max_size=6))
def test_an_export_imported_into_nothing_is_the_same_catalog(start: Tree, wishes: list[Any]) -> None:
    tree = start
    for wish in wishes:
        tree, _ = perform(tree, wish)
    exported, unreadable = export_documents(tree)
    assert not unreadable
    made = imported(Tree(), exported, replace=True)
    one_by_one = {edit.key: Entry(edit.value or b"", age) for age, edit in enumerate(made, 1)}
    assert read(Tree(one_by_one)).services == read(tree).services
    assert not imported(tree, exported, replace=True)
