"""What of the other nodes holds up a planned drain."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from anycastlb.core.decision.drain_peers import has_peers, last_announced, trouble
from anycastlb.core.model import (
    Catalog,
    Cluster,
    Difference,
    Drain,
    DrainRules,
    DrainSummary,
    Entry,
    Inputs,
    Peer,
    Policy,
    Reason,
    SessionSummary,
    Status,
    VipSummary,
)

VIP, OTHER, V6 = ip_address("192.0.2.1"), ip_address("192.0.2.2"), ip_address("2001:db8::1")
UP = VipSummary(announced=True, open=True)
ANNOUNCING = Status("lb2", vips={VIP: UP, OTHER: UP, V6: UP})
DIFFERENT = Difference({"a": ("lb3", "lb1"), "b": ("lb2",)}, 0.0)


def cluster(*statuses: Status | None, **fields: object) -> Cluster:
    """Other nodes that live: lb2, lb3, ..."""
    peers = {f"lb{number}": Peer(f"lb{number}", True, status) for number, status in enumerate(statuses, 2)}
    return Cluster(follows=True, connected=True, peers=peers, **fields)  # type: ignore[arg-type]


def leaving(stage: str) -> DrainSummary:
    return DrainSummary(stage, "drained", "", "")


@pytest.mark.parametrize(
    ("status", "announced"),
    [
        (ANNOUNCING, [VIP, OTHER, V6]),
        (None, []),
        (replace(ANNOUNCING, stopping=True), []),
        (replace(ANNOUNCING, drained=True), []),
        (replace(ANNOUNCING, drained=True, leave=leaving("graceful")), []),
        (replace(ANNOUNCING, drained=True, leave=leaving("waiting")), [VIP, OTHER, V6]),  # it may have to wait long
        (replace(ANNOUNCING, vips={VIP: replace(UP, announced=False), V6: UP}), [V6]),
        (replace(ANNOUNCING, sessions=(SessionSummary("192.0.2.254", "down"),)), [V6]),
    ],
)
def test_who_stays_and_announces(status: Status | None, announced: list[object]) -> None:
    alone = last_announced(cluster(status), [VIP, OTHER, V6])
    assert [vip for vip in (VIP, OTHER, V6) if vip not in alone] == announced


def test_who_is_gone_unreadable_or_the_node_in_question_announces_nothing() -> None:
    for peer in (Peer("lb2", False, ANNOUNCING), Peer("lb2", True, ANNOUNCING, "garbage")):
        assert last_announced(Cluster(peers={"lb2": peer}), [VIP]) == [VIP]
    assert last_announced(cluster(ANNOUNCING), [VIP], "lb2") == [VIP]
    assert last_announced(cluster(ANNOUNCING, replace(ANNOUNCING, node="lb3")), [VIP], "lb2") == []


def test_another_node_is_one_that_lives() -> None:
    assert has_peers(Inputs(cluster=cluster(None)))
    assert has_peers(Inputs(cluster=Cluster(peers={"lb2": Peer("lb2", False), "lb3": Peer("lb3", True)})))
    assert not has_peers(Inputs(cluster=Cluster(peers={"lb2": Peer("lb2", False)})))


def asked(known: Cluster, drained: dict[str, int] | None = None, force: bool = False, limit: int = 0) -> Inputs:
    """The inputs of lb1. ``drained``: which nodes are drained, with the index of their documents."""
    drained = drained or {"lb1": 9}
    good = {f"drain/{node}": Entry(b"", created=index) for node, index in drained.items() if index}
    catalog = Catalog(drained=frozenset(drained), drains={"lb1": Drain(force=force)}, good=good)
    return Inputs(Policy("lb1", drain_rules=DrainRules(max_drained=limit)), catalog, cluster=known)


def test_nothing_holds_up_a_node_whose_peers_announce_what_it_does() -> None:
    assert trouble(asked(cluster(ANNOUNCING)), [VIP, V6]) is None
    assert trouble(asked(Cluster()), [VIP]) is None  # there is no registry


def test_what_holds_it_up() -> None:
    away = replace(cluster(ANNOUNCING), connected=False)
    assert trouble(asked(away), [VIP]) == Reason("peers_unknown", "the other nodes are not known now")
    catalogs = cluster(ANNOUNCING, catalogs=DIFFERENT, tables={"web": DIFFERENT})
    assert trouble(asked(catalogs), [VIP]) == Reason("catalogs_differ", "the nodes have different catalogs in force")
    tables = cluster(ANNOUNCING, tables={"web": DIFFERENT, "dns": DIFFERENT})
    assert trouble(asked(tables), [VIP]) == Reason(
        "tables_differ", "the tables of dns differ between lb1, lb2, lb3", "dns"
    )


def test_the_last_announcer_waits_unless_it_is_forced() -> None:
    alone = cluster(replace(ANNOUNCING, vips={}))
    assert trouble(asked(alone), [VIP]) == Reason(
        "last_announcer", "no other node that stays announces 192.0.2.1", "192.0.2.1"
    )
    both = trouble(asked(alone), [VIP, OTHER])
    assert both is not None and both.text == "no other node that stays announces 192.0.2.1 and 1 more"
    several = trouble(asked(alone), [VIP, OTHER, V6])
    assert several is not None and several.text == "no other node that stays announces 192.0.2.1 and 2 more"
    assert trouble(asked(alone, force=True), [VIP]) is None


@pytest.mark.parametrize(
    ("drained", "limit", "named"),
    [
        ({"lb1": 9, "lb2": 5}, 1, "lb2 is"),
        ({"lb1": 9, "lb2": 5}, 2, None),
        ({"lb1": 9, "lb2": 5}, 0, None),  # any number
        ({"lb1": 5, "lb2": 9}, 1, None),  # this node was the first
        ({"lb1": 9, "lb7": 5}, 1, None),  # no node of that name exists
        ({"lb1": 9, "lb3": 7, "lb2": 5}, 2, "lb2, lb3 are"),
        ({"lb1": 9, "lb2": 7, "lb3": 5}, 2, "lb3, lb2 are"),  # by age
        ({"lb1": 0, "lb2": 0}, 1, None),  # files have no age: by name
        ({"lb1": 9, "lb3": 0, "lb2": 0}, 2, "lb2, lb3 are"),
        ({"lb1": 9, **{f"lb{n}": n for n in range(2, 7)}}, 1, "lb2, lb3, lb4, lb5, lb6 are"),
        ({"lb1": 9, **{f"lb{n}": n for n in range(2, 8)}}, 1, "lb2, lb3, lb4, lb5, lb6 and more are"),
    ],
)
def test_the_budget_belongs_to_who_was_drained_first(drained: dict[str, int], limit: int, named: str | None) -> None:
    known = cluster(*[replace(ANNOUNCING, node=f"lb{number}") for number in range(2, 8)])
    known = replace(
        known, peers={name: peer for name, peer in known.peers.items() if len(drained) > 6 or name != "lb7"}
    )
    reason = trouble(asked(known, drained, limit=limit), [VIP])
    if named is None:
        assert reason is None
    else:
        text = f"{named} drained too, and at most {limit} may be at once"
        assert reason == Reason("drain_budget", text)
        assert trouble(asked(known, drained, force=True, limit=limit), [VIP]) is None
