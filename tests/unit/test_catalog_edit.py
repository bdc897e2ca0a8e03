"""A wanted change to edits: what is stored stays where it is and in its order, and nothing bad gets in."""

from __future__ import annotations

import pytest

from anycastlb.core.catalog.decode import MalformedDocument
from anycastlb.core.catalog.edit import (
    BackendTarget,
    DefaultsTarget,
    ServiceTarget,
    Target,
    TargetMissing,
    applied,
    drain,
    imported,
    validate,
)
from anycastlb.core.model import Edit, Tree
from tests.support.stored import MIXED, RULES, WEB, backends, order, read, tree


def after(tree: Tree, made: tuple[Edit, ...]) -> Tree:
    assert not validate(tree, made, RULES, read(tree)).problems
    return applied(tree, made)


def verbs(made: tuple[Edit, ...]) -> dict[str, str]:
    return {edit.key: "delete" if edit.value is None else "write" for edit in made}


def test_a_document_is_seen_with_its_keyed_backends() -> None:
    seen = ServiceTarget("web").seen(MIXED)
    assert seen and list(seen.document["backends"]) == ["b2", "b1", "b9", "b3"] == order(MIXED)
    assert seen.document["backends"]["b3"] == {"address": "10.0.0.3", "weight": "7"}


def test_a_new_backend_moves_no_other() -> None:
    for made in (
        ServiceTarget("web").patch(MIXED, {"backends": backends(4)}),
        BackendTarget("web", "b4").put(MIXED, backends(4)["b4"]),
    ):
        assert verbs(made) == {"services/web/backends/b4": "write"}
        assert order(after(MIXED, made)) == ["b2", "b1", "b9", "b3", "b4"]
    inline = tree(services__web={**WEB, "backends": backends(2, 1)})
    made = ServiceTarget("web").patch(inline, {"backends": backends(0)})
    assert verbs(made) == {"services/web": "write"}
    assert order(after(inline, made)) == ["b2", "b1", "b0"]


def test_a_put_keeps_the_order_that_is_stored() -> None:
    wanted = {**WEB, "backends": backends(1, 2, 3, 9)}
    wanted["backends"]["b3"]["weight"] = "7"
    assert ServiceTarget("web").put(MIXED, wanted) == ()
    made = ServiceTarget("web").put(MIXED, {**WEB, "backends": backends(1, 3, 5)})
    assert verbs(made) == {
        "services/web": "write",
        "services/web/backends/b3": "write",
        "services/web/backends/b5": "write",
        "services/web/backends/b9": "delete",
    }
    assert order(after(MIXED, made)) == ["b1", "b3", "b5"]


def test_a_put_without_backends_leaves_them() -> None:
    made = ServiceTarget("web").put(MIXED, {**WEB, "port": 81})
    assert verbs(made) == {"services/web": "write"}
    assert order(after(MIXED, made)) == order(MIXED)
    assert order(after(MIXED, ServiceTarget("web").put(MIXED, {**WEB, "backends": {}}))) == []


def test_a_backend_is_changed_where_it_is_stored() -> None:
    assert verbs(BackendTarget("web", "b1").patch(MIXED, {"weight": 3})) == {"services/web": "write"}
    assert verbs(BackendTarget("web", "b3").patch(MIXED, {"weight": 3})) == {"services/web/backends/b3": "write"}
    assert verbs(BackendTarget("web", "b1").delete(MIXED)) == {"services/web": "write"}
    assert verbs(BackendTarget("web", "b3").delete(MIXED)) == {"services/web/backends/b3": "delete"}
    both = tree(services__web={**WEB, "backends": backends(1)}, services__web__backends__b1={"weight": 7})
    made = BackendTarget("web", "b1").put(both, {"address": "10.0.0.1", "weight": 8})
    assert verbs(made) == {"services/web/backends/b1": "write"}
    reset = BackendTarget("web", "b1").put(both, {"address": "10.0.0.2"})
    seen = BackendTarget("web", "b1").seen(after(both, reset))
    assert seen and seen.document == {"address": "10.0.0.2"}
    gone = after(both, BackendTarget("web", "b1").delete(both))
    assert BackendTarget("web", "b1").seen(gone) is None


def test_null_resets() -> None:
    base = tree(
        services__web={**WEB, "scheduler": "wrr", "check": {"type": "http", "path": "/x"}, "backends": backends(1)}
    )
    patch = {"scheduler": None, "check": {"path": None}, "backends": {"b1": None}}
    seen = ServiceTarget("web").seen(after(base, ServiceTarget("web").patch(base, patch)))
    assert seen and seen.document == {**WEB, "check": {"type": "http"}, "backends": {}}


def test_every_edit_expects_what_was_read() -> None:
    made = (
        *ServiceTarget("web").delete(MIXED),
        *ServiceTarget("new").put(MIXED, WEB),
        *drain(MIXED, "lb1", {}, "t1"),
    )
    assert {edit.key: edit.expects for edit in made} == {
        "services/web": "v1",
        "services/web/backends/b9": "v2",
        "services/web/backends/b3": "v3",
        "services/new": "",
        "drain/lb1": "",
        "locks/drain": "",
    }


@pytest.mark.parametrize(
    "place",
    [ServiceTarget("no"), BackendTarget("no", "b1"), BackendTarget("web", "no"), BackendTarget("web", "i", True)],
)
def test_what_is_not_there_cannot_be_deleted(place: Target) -> None:
    with pytest.raises(TargetMissing) as caught:
        place.delete(MIXED)
    assert caught.value.fix


def test_a_discovered_backend_can_be_said_more_about() -> None:
    place = BackendTarget("web", "i1", discovered=True)
    assert verbs(place.patch(MIXED, {"drain": True})) == {"services/web/backends/i1": "write"}
    assert place.patch(MIXED, {"drain": None}) == ()


def test_a_broken_document_can_be_replaced_deleted_and_not_patched() -> None:
    broken = tree(services__web=b"{", services__web__backends__b1=backends(1)["b1"])
    place = ServiceTarget("web")
    seen = place.seen(broken)
    assert seen and seen.document is None and seen.problems
    with pytest.raises(MalformedDocument):
        place.patch(broken, {"port": 81})
    assert order(after(broken, place.put(broken, WEB))) == ["b1"]
    assert not applied(broken, place.delete(broken)).entries


def problems(tree: Tree, made: tuple[Edit, ...]) -> list[str]:
    return [str(problem) for problem in validate(tree, made, RULES, read(tree)).problems]


def test_problems_of_others_block_no_write() -> None:
    found = tree(services__bad={"vip": "192.0.2.11", "prot": 1}, services__web={**WEB, "backends": backends(1)})
    assert not problems(found, ServiceTarget("web").patch(found, {"port": 81}))
    assert not problems(found, ServiceTarget("bad").put(found, {"vip": "192.0.2.11", "port": 1}))
    assert not problems(found, ServiceTarget("bad").delete(found))
    (still,) = problems(found, ServiceTarget("bad").put(found, {"vip": "192.0.2.11", "port": 1, "prot": 1}))
    assert "prot" in still


def test_problems_anywhere_block_the_write_that_causes_them() -> None:
    found = tree(services__web={**WEB, "backends": backends(1)}, services__dns={"vip": "192.0.2.11", "port": 53})
    assert "belongs to service web" in problems(found, ServiceTarget("new").put(found, WEB))[0]
    assert any("services/dns" in told for told in problems(found, DefaultsTarget().put(found, {"prot": 1})))
    assert "protcol" in problems(tree(), DefaultsTarget().put(tree(), {"protcol": "tcp"}))[0]
    assert "address" in problems(found, BackendTarget("web", "b2").put(found, {"weight": 1}))[0]
    assert "same" in problems(found, BackendTarget("web", "b2").put(found, backends(1)["b1"]))[0]


def test_an_import_takes_documents_only() -> None:
    for key in ("drain/lb1", "nodes/lb1", "services/web/", "services", "services/web/b", "", "services/a b"):
        with pytest.raises(MalformedDocument):
            imported(MIXED, {key: {}}, replace=False)
    made = imported(MIXED, {"services/web": {**WEB, "backends": backends(2, 1)}, "defaults": None}, replace=False)
    assert made == ()
    assert verbs(imported(MIXED, {"services/web": WEB}, replace=True)) == {
        "services/web": "write",
        "services/web/backends/b9": "delete",
        "services/web/backends/b3": "delete",
    }
