"""How a node that leaves is shown, and when ``drain --wait`` and ``undrain --wait`` have come to their end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from anycastlb.cli.commands.drain import _left, _returned
from anycastlb.core.model import (
    Drain,
    DrainRules,
    DrainSummary,
    NodeDrain,
    Peer,
    Policy,
    Reason,
    Snapshot,
    Status,
    Traffic,
    VipSummary,
)
from anycastlb.serving.views.cluster import node_view, nodes_view
from tests.support import scene
from tests.support.golden import drawn, golden
from tests.support.recording import error, recording
from tests.support.serving import inside

LEFT = {
    "stage": "withdrawn", "cause": "drained", "reason": "it waits", "since": "", "deadline": "2026-11-21T06:24:14.120Z",
    "asked": "now", "why": "", "by": "", "connections": 7, "packets_per_second": 2.5, "eta_seconds": 8.0,
}  # fmt: skip


def leaving(leave: NodeDrain, drained: frozenset[str] = frozenset({"lb1"}), **told: Any) -> Snapshot:
    calm = scene.calm()
    catalog = replace(calm.inputs.catalog, drained=drained, drains={"lb1": Drain("new disks", "ann", "then")})
    inputs = replace(
        calm.inputs, catalog=catalog, policy=Policy("lb1", drain_rules=DrainRules(max_drained=1)), wall=1.7e9, **told
    )
    memory = replace(calm.decision.memory, node_drain=leave)
    return replace(calm, inputs=inputs, decision=replace(calm.decision, memory=memory))


def withdrawn() -> NodeDrain:
    samples = tuple(Traffic(scene.NOW - 5 + n, 1000 - 100 * (5 - n), 812) for n in range(5))
    why = Reason("withdrawn", "its routes are withdrawn")
    return NodeDrain(
        "withdrawn",
        "drained",
        scene.NOW - 10,
        scene.NOW + 50,
        why,
        samples=samples,
    )


def test_the_picture_of_a_node_that_leaves() -> None:
    golden("status-draining", drawn(leaving(withdrawn(), frozenset({"lb1", "lb2"}))))


def test_a_node_tells_of_itself_what_only_it_knows() -> None:
    snapshot = leaving(withdrawn())
    view = node_view(snapshot, scene.NOW, "lb1")
    assert view is not None and view["drained"]
    drain = view["drain"]
    assert (drain["stage"], drain["why"], drain["by"], drain["asked"]) == ("withdrawn", "new disks", "ann", "then")
    assert (drain["connections"], drain["packets_per_second"], drain["eta_seconds"]) == (812, 100.0, 50.0)
    assert nodes_view(snapshot, scene.NOW)["budget"] == {"max_drained": 1, "drained": ["lb1"], "exceeded": False}


def test_of_others_it_tells_what_they_published() -> None:
    told = DrainSummary("graceful", "drained", "a reason", "2026-11-21T06:22:04.000Z", "", "then")
    snapshot = leaving(withdrawn())
    cluster = replace(
        snapshot.inputs.cluster, follows=True, peers={"lb2": Peer("lb2", True, Status("lb2", leave=told))}
    )
    view = node_view(replace(snapshot, inputs=replace(snapshot.inputs, cluster=cluster)), scene.NOW, "lb2")
    assert view is not None and view["drain"]["stage"] == "graceful" and view["drain"]["connections"] is None


@pytest.mark.parametrize(
    ("view", "over", "words"),
    [
        ({"drain": None}, False, "not heard of it yet"),
        ({"drain": {**LEFT, "asked": "earlier", "stage": "drained"}}, False, "not heard of it yet"),
        ({"drain": LEFT}, False, "2.5 packets/s · 7 connections · about 8 s more · until 2026-11-21T06:24:14.120Z"),
        ({"drain": {**LEFT, "stage": "waiting", "reason": "b1 is leaving"}}, False, "b1 is leaving"),
        ({"drain": {**LEFT, "stage": "drained"}}, True, "drained · it waits"),
        ({"drain": {**LEFT, "stage": "drained"}, "alive": False}, False, "gone"),
        ({"drain": None, "error": "it is garbage"}, False, "garbage"),
    ],
)
def test_when_a_node_is_drained(view: dict[str, Any], over: bool, words: str) -> None:
    found = _left({"name": "lb1", "alive": True, "error": "", "drained": True, **view}, "now")
    assert found.over is over and words in str(found)


def vip(announced: bool, open_: bool = True, reason: str = "") -> dict[str, Any]:
    return {"announced": announced, "open": open_, "reason": reason}


def node(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "alive": True, "error": "", "drained": False, "drain": None, "ready": True, "missing": [],
            "vips": {}, **more}  # fmt: skip


@pytest.mark.parametrize(
    ("mine", "theirs", "over", "words"),
    [
        ({"vips": {"a": vip(True)}}, {"a": vip(True)}, True, "announces 1 of 1 VIPs"),
        ({"vips": {"a": vip(True)}, "drained": True}, {}, False, "drained still"),
        ({"vips": {"a": vip(False, reason="3/3 backends up")}}, {}, False, "a: 3/3 backends up"),
        ({"vips": {"a": vip(False, False, "hold_up: opens in 3 s")}}, {"a": vip(True)}, False, "opens in 3 s"),
        ({"vips": {"a": vip(True), "b": vip(False, False)}}, {"b": vip(False)}, True, "1 of 1"),
        ({"vips": {"b": vip(False, False)}}, {"b": vip(False)}, False, "none of its VIPs can be served"),
        ({"vips": {}}, {"a": vip(True)}, False, "announces 0 of 1 VIPs"),
        ({"vips": {"a": vip(True)}, "ready": False, "missing": ["x"]}, {}, False, "not ready: x"),
        ({"vips": {}}, {}, True, "announces 0 of 0 VIPs"),
        ({"alive": False}, {}, False, "gone"),
    ],
)
def test_when_a_node_is_back(mine: dict[str, Any], theirs: dict[str, Any], over: bool, words: str) -> None:
    view = node("lb1", **mine)
    found = _returned(view, [view, node("lb2", vips=theirs), node("lb3", vips={"z": vip(True)}, alive=False)])
    assert found.over is over and words in str(found)


async def test_the_commands_follow_to_the_end_and_say_why_not() -> None:
    drained = node("lb1", drained=True, drain={**LEFT, "stage": "drained"})
    answers: dict[str, Any] = {
        "POST /v1/nodes/lb1/drain": (200, {"changed": True, "document": {"since": "now"}}),
        "GET /v1/nodes": (200, {"nodes": [drained]}),
    }
    async with recording(answers) as at:
        code, out, err = await inside("drain", "lb1", "--wait", "--api", at.url)
        assert (code, out) == (0, "node lb1: drained: it leaves the routes\n") and "node lb1: drained" in err
        at.answers["GET /v1/nodes"] = 200, {"nodes": [node("lb1", drained=True, drain=LEFT)]}
        code, _, err = await inside("drain", "lb1", "--wait", "--timeout", "0", "--api", at.url)
        assert code == 1 and "not within 0 s; it goes on: withdrawn" in err
        code, _, err = await inside("undrain", "lb1", "--wait", "--timeout", "0", "--api", at.url)
        assert code == 1 and "drained still" in err
        told = error("lb2 is drained already", expected="fewer than 1 drained node", mend="undrain lb2 first")
        at.answers["POST /v1/nodes/lb1/drain"] = 409, told
        code, _, err = await inside("drain", "lb1", "--wait", "--api", at.url)
        assert code == 1 and "lb2 is drained already" in err and "undrain lb2 first" in err
        await inside("drain", "lb1", "--force", "--deadline", "5m", "--reason", "disks", "--api", at.url)
        assert at.written[-1][2] == {"reason": "disks", "deadline": "5m", "force": True}


def test_a_vip_nobody_else_announces() -> None:
    """What the API looks at: the others as they are known, without those that leave."""
    from anycastlb.core.decision.drain_peers import last_announced

    def peer(name: str, **told: Any) -> Peer:
        return Peer(name, told.pop("alive", True), Status(name, vips={scene.WEB4: VipSummary(True, True)}, **told))

    cluster = replace(scene.calm().inputs.cluster, follows=True)
    for others, alone in (
        ([], True), ([peer("lb2")], False), ([peer("lb2", alive=False)], True), ([peer("lb2", stopping=True)], True),
        ([peer("lb2", drained=True)], True),
        ([peer("lb2", drained=True, leave=DrainSummary("waiting", "drained", "", ""))], False),
        ([peer("lb2", drained=True), peer("lb3")], False),
    ):  # fmt: skip
        found = last_announced(replace(cluster, peers={one.name: one for one in others}), [scene.WEB4])
        assert found == ([scene.WEB4] if alone else [])
