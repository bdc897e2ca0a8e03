"""How operators see the cluster: the views, the picture as golden files, the API's answers, the metrics.

``ANYCASTLB_GOLDEN=write`` writes the golden files anew, as in ``test_views``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import aiohttp

from anycastlb.adapters.cluster import status_document
from anycastlb.cli.render import cluster, style
from anycastlb.core.model import CatalogSummary, Cluster, Difference, Peer, Problem, Snapshot, VipSummary
from anycastlb.serving.metrics.cluster import cluster_metrics as figures
from anycastlb.serving.metrics.families import PREFIX
from anycastlb.serving.views.cluster import announcers, nodes_view
from anycastlb.serving.views.status import status_view
from tests.support import scene
from tests.support.golden import drawn, golden
from tests.support.serving import serving

OWN = status_document.summarise(scene.calm(), "2026-01-01T00:00:00.000Z")


def peer(name: str, alive: bool = True, ago: float = 7200.0, error: str = "", **status: Any) -> Peer:
    return Peer(name, alive, replace(OWN, node=name, **status), error, scene.NOW - ago)


CLOSED = {scene.WEB4: VipSummary(False, False, "0/3 backends up, needs 1")}
PEERS = {
    found.name: found
    for found in (
        peer("lb10"),
        peer("lb2"),
        peer("lb3", vips=CLOSED, catalog=CatalogSummary(4700, "0123456789abcdef", False)),
        peer("lb4", alive=False, ago=180.0),
        peer("lb5", alive=False, ago=40.0, stopping=True, vips=CLOSED),
        Peer("lb6", True, None, "expected a node's status: Invalid JSON: expected value", scene.NOW - 9),
        peer("lb7", drained=True, vips=CLOSED),
        peer("lb8", alive=False, ago=700.0),
        peer("lb9", ready=False, missing=("no catalog is loaded",), vips={}),
    )
}
CLUSTER = Cluster(
    follows=True,
    connected=True,
    since=scene.NOW - 7300,
    published=True,
    peers=PEERS,
    catalogs=Difference({OWN.catalog.hash: ("lb1", "lb2"), "0123456789abcdef": ("lb3",)}, scene.NOW - 60),
    tables={
        "web": Difference({"aaaaaaaaaaaaaaaa": ("lb1",), "bbbbbbbbbbbbbbbb": ("lb2", "lb10")}, scene.NOW - 5),
        "api": Difference({"aaaaaaaaaaaaaaaa": ("lb1",), "bbbbbbbbbbbbbbbb": ("lb2",)}, scene.NOW - 4.9),
    },
    problems=(Problem("nodes/lb1", "", "expected a name of its own"),),
)


def among(cluster: Cluster = CLUSTER, snapshot: Snapshot | None = None) -> Snapshot:
    snapshot = snapshot or scene.calm()
    return replace(snapshot, inputs=replace(snapshot.inputs, cluster=cluster))


def well(*names: str) -> Cluster:
    return replace(CLUSTER, peers={name: PEERS[name] for name in names}, catalogs=None, tables={}, problems=())


def test_status_among_other_nodes() -> None:
    golden("status-cluster", drawn(among()))


def test_status_of_a_cluster_that_is_well() -> None:
    golden("status-cluster-well", drawn(among(well("lb2", "lb10"))))


def test_status_while_consul_is_away() -> None:
    away = replace(well("lb2"), connected=False, since=scene.NOW - 65, error="Consul at http://127.0.0.1:8500: refused")
    golden("status-cluster-away", drawn(among(away)))


def test_a_node_that_can_know_of_no_other_says_so() -> None:
    alone = Cluster(alone="the catalog is a file, which knows of no other node")
    assert "cluster  this node alone: the catalog is a file" in drawn(among(alone))
    assert "cluster" not in drawn(among(Cluster()))
    assert "no other node is known" in drawn(among(well()))


def test_a_vip_that_nobody_announces() -> None:
    silent = among(replace(well("lb3")), scene.trouble())
    text = " ".join(drawn(silent).split())
    assert "192.0.2.11 closed for 12 s: 1/4 backends up, needs 2 · announced by no node" in text
    assert "its flows are draining · announced" not in text
    assert "· by this node alone" in text


def test_many_nodes_are_counted_and_those_in_trouble_come_first() -> None:
    many = {f"lb{n}": peer(f"lb{n}") for n in range(20, 50)} | {"lb4": PEERS["lb4"]}
    view = status_view(among(replace(CLUSTER, peers=many)), scene.NOW)
    text = style.plain(cluster.header(view["cluster"], 80))
    assert "31 of 32 nodes alive" in text
    assert "lb4   gone for" in text
    assert text.splitlines()[-1].strip() == "and 22 more"


def test_this_node_comes_first_and_is_as_it_is_now() -> None:
    view = nodes_view(among(), scene.NOW)
    first, *others = view["nodes"]
    assert (first["name"], first["self"], first["age_seconds"]) == ("lb1", True, 0.0)
    assert first["vips"] == {"192.0.2.10": {"announced": True, "open": True, "reason": "2/3 backends up"}}
    assert first["services"]["web"]["192.0.2.10"] == {"open": True, "up": 2, "total": 3, "down": ["web3"]}
    assert [node["name"] for node in others] == ["lb10", "lb2", "lb3", "lb4", "lb5", "lb6", "lb7", "lb9"]
    gone = others[3]
    assert (gone["alive"], gone["age_seconds"], gone["vips"]) == (False, 180.0, first["vips"])
    assert others[5]["error"].startswith("expected a node's status")
    json.dumps(view)


def test_only_what_has_lasted_is_called_a_difference() -> None:
    view = nodes_view(among(), scene.NOW)
    assert view["differs"] == [
        {"service": "web", "nodes": {"aaaaaaaaaaaaaaaa": ["lb1"], "bbbbbbbbbbbbbbbb": ["lb2", "lb10"]}}
    ]
    assert view["catalogs_differ"]["0123456789abcdef"] == ["lb3"]
    fresh = replace(CLUSTER, catalogs=Difference({"a": ("lb1",), "b": ("lb2",)}, scene.NOW - 1), tables={})
    view = nodes_view(among(fresh), scene.NOW)
    assert (view["differs"], view["catalogs_differ"]) == ([], {})


def test_who_announces_what() -> None:
    assert announcers(among()) == {scene.WEB4: ["lb1", "lb10", "lb2"]}
    told = status_view(among(), scene.NOW)
    assert told["cluster"]["announcers"] == {"192.0.2.10": ["lb1", "lb10", "lb2"]}
    assert {"key": "nodes/lb1", "path": "", "expected": "expected a name of its own", "line": 0} in told["problems"]


async def test_the_nodes_over_http() -> None:
    async with serving(among()) as served, aiohttp.ClientSession() as session:
        async with session.get(f"{served.url}/v1/nodes") as answer:
            assert answer.status == 200
            assert await answer.json() == nodes_view(among(), scene.NOW)
        async with session.get(f"{served.url}/v1/nodes/lb4") as answer:
            assert (await answer.json())["alive"] is False
        async with session.get(f"{served.url}/v1/nodes/lb99") as answer:
            assert answer.status == 404
            error = (await answer.json())["error"]
            assert error["what"] == "there is no node 'lb99'" and error["mend"]


def test_figures() -> None:
    found = {
        (told.family.name.removeprefix(PREFIX), labels): value
        for told in figures(among(), scene.NOW)
        for labels, value in told.samples
    }
    assert found["cluster_peers_alive", ()] == 6
    assert found["cluster_peers_gone", ()] == 3
    assert found["cluster_peers_unreadable", ()] == 1
    assert found["cluster_catalog_differs", ()] == 1
    assert found["vip_announcers", ("192.0.2.10",)] == 3
    assert found["table_differs", ("web",)] == 1
    assert list(figures(among(Cluster()), scene.NOW)) == []
