"""The nodes of a real cluster know of each other, and say where they differ.

What happens when one of them, or Consul, goes away is told in virtual time (``tests/scenario/test_cluster_stories.py``)
and proven with a real Consul (``tests/contract/test_registries.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.topology import own
from tests.support.two_nodes import VIP, nodes, serve, together

WHOLE = {"open": True, "up": 3, "total": 3, "down": []}


@pytest.fixture
def lab(lab: Lab) -> Iterator[Lab]:
    """Both nodes know of each other, and nothing of what a test did to them is left."""
    together(lab)
    yield lab


def cluster(node: Node) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(node.http("/v1/nodes")[1])
    return answer


def alike(node: Node) -> bool:
    """Does it know of both nodes that they announce the VIP with every backend, and have the same catalog and table?

    What a node knows of the other may for a moment be of a catalog before, in which the VIP was announced as well.
    """
    views = nodes(node).values()
    return (
        all(view["vips"].get(str(VIP), {}).get("announced") for view in views)
        and all(view["services"].get("web", {}).get(str(VIP)) == WHOLE for view in views)
        and all({session["state"] for session in view["sessions"]} == {"up"} for view in views)
        and len({view["catalog"]["hash"] for view in views} - {""}) == 1
        and len({view["digests"].get("web") for view in views}) == 1
    )


def test_each_node_shows_what_both_announce(lab: Lab) -> None:
    serve(lab)
    for node, other in ((lab.lb1, lab.lb2), (lab.lb2, lab.lb1)):
        node.until(lambda node=node: alike(node), "it knows what the other announces, by the same catalog")
        assert list(nodes(node)) == [node.name, other.name], "this node first"
        assert json.loads(node.http(f"/v1/nodes/{other.name}")[1])["name"] == other.name
        shown = node.cli("status").stdout
        assert "2 of 2 nodes alive" in shown
        assert f"also by {other.name}" in shown
        assert node.metrics()["anycastlb_cluster_peers_alive"] == 1
        assert node.metrics()[f'anycastlb_vip_announcers{{vip="{VIP}"}}'] == 2
    status, body = lab.lb1.http("/v1/nodes/lb9")
    assert status == 404 and json.loads(body)["error"]["what"] == "there is no node 'lb9'"


def test_a_table_that_somebody_turned_is_named_until_it_is_mended(lab: Lab) -> None:
    """Equal catalogs, and one node sees a backend dead that the other sees alive: their tables differ, and it shows."""
    serve(lab)
    lab.lb1.namespace.run("ip", "route", "add", "blackhole", f"{own('b3')}/32")
    try:
        lab.lb1.until(lambda: cluster(lab.lb1)["differs"], "the difference is told")
        (told,) = cluster(lab.lb1)["differs"]
        assert told["service"] == "web"
        assert sorted(map(sorted, told["nodes"].values())) == [["lb1"], ["lb2"]]
        assert "DIFFER web" in lab.lb1.cli("status").stdout
        lab.lb2.until(
            lambda: nodes(lab.lb2)["lb1"]["services"]["web"][str(VIP)]["down"] == ["b3"], "the other node knows why"
        )
    finally:
        lab.lb1.namespace.run("ip", "route", "del", "blackhole", f"{own('b3')}/32")
    for node in lab.nodes.values():
        node.until(lambda node=node: not cluster(node)["differs"], "the tables are one again")
