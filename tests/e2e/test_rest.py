"""The API of real nodes over a real Consul: a write on one node is the cluster's, and a lost race loses nothing."""

from __future__ import annotations

import json
import threading
from http.client import HTTPConnection
from typing import Any

from tests.lab.http import connect
from tests.lab.lab import Lab, document
from tests.lab.node import API_PORT, Node
from tests.lab.process import until
from tests.lab.topology import own, vip

ROUNDS = 40


def call(node: Node, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, str]:
    """Status, answer and ETag."""
    connection = HTTPConnection("127.0.0.1", API_PORT)
    connection.sock = connect(node.namespace, "127.0.0.1", API_PORT, timeout=300)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        sent["Content-Type"] = "application/json"
    try:
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        response = connection.getresponse()
        return response.status, json.loads(response.read()), response.getheader("ETag", "")
    finally:
        connection.close()


def stored(lab: Lab, key: str) -> Any:
    value = lab.consul.value(f"anycastlb/{key}")
    return None if value is None else json.loads(value)


def test_a_write_on_one_node_is_the_clusters(lab: Lab) -> None:
    wanted = document(vip(0))
    assert call(lab.lb1, "PUT", "/v1/services/web", wanted)[0] == 201
    assert stored(lab, "services/web") == wanted
    lab.settle(vip(0))
    assert set(lab.client.spread(60, vip(0))) == {"b1", "b2", "b3"}

    _, view, tag = call(lab.lb2, "GET", "/v1/services/web")
    assert view == wanted
    status, answer, newer = call(lab.lb2, "PATCH", "/v1/services/web", {"backends": {"b3": None}}, If_Match=tag)
    assert (status, answer["changed"], newer != tag) == (200, True, True)
    assert call(lab.lb1, "PATCH", "/v1/services/web", {"port": 81}, If_Match=tag)[0] == 412
    for node in lab.nodes.values():
        node.until(lambda node=node: f"{own('b3')}:80" not in node.ordered(), "b3 has left")  # type: ignore[misc]

    new = {"address": str(own("b3"))}
    assert call(lab.lb1, "PUT", "/v1/services/web/backends/b3", new)[0] == 201
    assert stored(lab, "services/web/backends/b3") == new
    lab.settle(vip(0))
    until(lambda: lab.lb1.ordered() == lab.lb2.ordered(), "both kernels list the same, in the same order")

    assert call(lab.lb2, "PUT", "/v1/services/clash", wanted)[0] == 422
    assert stored(lab, "services/clash") is None
    assert call(lab.lb1, "DELETE", "/v1/services/web")[0] == 200
    assert stored(lab, "services/web") is stored(lab, "services/web/backends/b3") is None


def test_a_drained_node_withdraws_and_returns(lab: Lab) -> None:
    lab.put("web", document(vip(0)))
    lab.settle(vip(0))
    assert call(lab.lb1, "POST", "/v1/nodes/lb2/drain", {"reason": "a test"})[0] == 200
    assert stored(lab, "drain/lb2")["reason"] == "a test"
    lab.lb2.until(lambda: not lab.lb2.status()["vips"][0]["announced"], "lb2 has withdrawn")
    assert call(lab.lb2, "POST", "/v1/nodes/lb2/undrain")[0] == 200
    lab.settle(vip(0))


def race(lab: Lab, turn: int, tag: str) -> dict[str, tuple[int, Any, str]]:
    """Each node's answer to its own writer; both begin at once."""
    answers: dict[str, tuple[int, Any, str]] = {}
    start = threading.Barrier(len(lab.nodes))

    def write(number: int, node: Node) -> None:
        change = {"announce": {"communities": [f"65001:{turn * 2 + number}"]}}
        start.wait()
        answers[node.name] = call(node, "PATCH", "/v1/services/web", change, If_Match=tag)

    writers = [threading.Thread(target=write, args=(number, node)) for number, node in enumerate(lab.nodes.values())]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return answers


def test_two_writers_race_and_nothing_is_lost(lab: Lab) -> None:
    """Both have read the same; both write at once, each through its own node: one wins, the other is told."""
    assert call(lab.lb1, "PUT", "/v1/services/web", document(vip(0)))[0] == 201
    seen: set[int] = set()
    for turn in range(ROUNDS):
        tag = call(lab.lb1, "GET", "/v1/services/web")[2]
        answers = race(lab, turn, tag)
        statuses = sorted(status for status, _, _ in answers.values())
        assert statuses[0] == 200 and statuses[1] in (409, 412), answers
        winner = next(view["document"] for status, view, _ in answers.values() if status == 200)
        assert stored(lab, "services/web") == winner, "exactly what the winner was told"
        seen |= set(statuses)
        if 409 in seen:
            break
    assert 409 in seen, "no two writes ever met"
