"""Documents of the HTTP tier in a real Consul: who gets a VIP and port that two ask for; and ELB's etcd, carried over,
and out again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from anycastlb.cli import main
from anycastlb.core.model import Address
from tests.lab.haproxy import NodeHaproxy, serving_gateways
from tests.lab.http import connect
from tests.lab.lab import CHECK, Lab, document
from tests.lab.process import GIVE_UP, until
from tests.lab.topology import own, vip
from tests.support.elb_dump import PREFIX, folder, leaf
from tests.support.http_tree import EXAMPLE
from tests.support.two_nodes import BOTH

PLAIN, HTTP = vip(0), vip(1)
BROWSER, HTTPIE = "Mozilla/5.0", "HTTPie/0.9.9"


@pytest.fixture
def haproxy(lab: Lab, require: Callable[[str], str]) -> Iterator[NodeHaproxy]:
    """``lb1`` serves gateways, and ``lb2`` does not."""
    with serving_gateways(lab, require("haproxy-12")) as haproxy:
        yield haproxy


def asked(lab: Lab, address: Address, host: str = "shop.example", path: str = "/", agent: str = BROWSER) -> str:
    """Who answered, or the status of another answer; empty if there is none."""
    try:
        with connect(lab.client.namespace, str(address), 80, GIVE_UP) as link:
            link.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: {agent}\r\n\r\n".encode())
            head, _, body = link.makefile("rb").read().decode().partition("\r\n\r\n")
    except OSError:
        return ""
    status = head.partition(" ")[2][:3]
    return body if status == "200" else status


def gateway(address: Address) -> dict[str, Any]:
    return {"vip": str(address), "port": 80, "protocol": "http", "drain": "200ms"}


def route(gateway: str) -> dict[str, Any]:
    return {"gateways": [gateway], "hostnames": ["*"], "rules": [{"backendRefs": [{"name": "pool"}]}]}


def test_a_vip_and_port_stays_with_who_had_it_first(lab: Lab, haproxy: NodeHaproxy) -> None:
    """R2: a gateway or a service; the other one waits, and both nodes say for whom."""
    lb1, put = lab.lb1, lab.consul.put

    def problems() -> dict[str, str]:
        told = {node: {one["key"]: one["expected"] for one in lab.nodes[node].status()["problems"]} for node in BOTH}
        assert len(told) == 2
        return told["lb1"] if told["lb1"] == told["lb2"] else {}

    pool = {"port": 80, "check": CHECK, "backends": {"b1": {"address": own("b1")}}, "drain": "200ms"}
    lab.put("pool", pool)
    lab.put("plain", document(PLAIN))
    put("anycastlb/gateways/web", gateway(HTTP))
    put("anycastlb/routes/all", route("web"))
    haproxy.start()
    lab.router.until(HTTP, {"lb1"})
    lab.router.until(PLAIN, BOTH)

    with lab.router.always(PLAIN), lab.router.always(HTTP):
        lab.put("late", document(HTTP))
        put("anycastlb/gateways/late", gateway(PLAIN))
        refused = {"services/late": "belongs to gateway web", "gateways/late": "belongs to service plain"}
        for again in (False, True):
            if again:
                lb1.hand_over()  # what is first is known from Consul, and not from who was read first
            until(lambda: all(words in problems().get(key, "") for key, words in refused.items()), "both wait")
            assert asked(lab, HTTP) == "b1" and f"tcp {HTTP}:80" not in lb1.ipvs()
            assert asked(lab, PLAIN) in ("b1", "b2", "b3") and f"{PLAIN}:80" not in haproxy.config.read_text()
    told = lb1.cli("gateway", "add", "other", "http", f"{PLAIN}:80", check=False)
    assert told.returncode != 0 and "belongs to service plain" in told.stderr

    lab.consul.delete("anycastlb/gateways/web")
    lab.remove("plain")
    put("anycastlb/routes/all", route("late"))
    for node in lab.nodes.values():
        node.until(
            lambda node=node: f"tcp {HTTP}:80" in node.ipvs() and f"tcp {PLAIN}:80" not in node.ipvs(),
            "the service moves",
        )
    lb1.until(lambda: f"{PLAIN}:80" in haproxy.config.read_text(), "the gateway moves")
    lab.router.until(PLAIN, {"lb1"})
    lab.router.until(HTTP, BOTH)
    until(lambda: asked(lab, PLAIN) == "b1", "the gateway serves")
    until(lambda: asked(lab, HTTP) in ("b1", "b2", "b3"), "the service serves")


def elb() -> str:
    """What etcd answers about an ELB whose upstreams are here."""
    rules = json.loads(json.dumps(PREFIX).replace("10.0.0.7", own("b3")))
    return json.dumps({"action": "get", "node": folder(
        "/ELB",
        folder("/ELB/rules", leaf("/ELB/rules/shop.example", json.dumps(EXAMPLE)),
               leaf("/ELB/rules/Static.example:8080", json.dumps(rules))),
        folder("/ELB/upstreams",
               folder("/ELB/upstreams/upstrimg1",
                      leaf(f"/ELB/upstreams/upstrimg1/{own('b1')}:80", "max_fails=2 weight=10")),
               folder("/ELB/upstreams/upstream2", leaf(f"/ELB/upstreams/upstream2/{own('b2')}:80", ""))),
    )})  # fmt: skip


def served(lab: Lab) -> list[str]:
    """What ELB's rules make of some requests."""
    return [
        asked(lab, HTTP, "shop.example", "/blog/x", HTTPIE),
        asked(lab, HTTP, "shop.example", "/blog/", HTTPIE),
        asked(lab, HTTP, "shop.example:80", "/blog/x"),
        asked(lab, HTTP, "static.example", "/static/1"),
        asked(lab, HTTP, "static.example", "/else"),
        asked(lab, HTTP, "other.example", "/"),
    ]


def test_elbs_etcd_is_carried_over_and_out_again(lab: Lab, haproxy: NodeHaproxy, tmp_path: Path) -> None:
    """R4: what is exported, and imported where nothing is, serves the same requests, and is exported as it was."""
    lb1, dump, whole = lab.lb1, tmp_path / "elb.json", tmp_path / "catalog.json"
    dump.write_text(elb())
    converted = CliRunner().invoke(main, ["convert", "--from", "elb", str(dump)])
    assert converted.exit_code == 2, "there are notes, which are not carried over"
    whole.write_text(converted.stdout)
    lb1.cli("gateway", "add", "web", "http", f"{HTTP}:80", "--set", "drain=200ms")
    lb1.cli("validate", str(whole))
    lb1.cli("import", str(whole))
    haproxy.start()
    lab.router.until(HTTP, {"lb1"})
    expected = ["b1", "b2", "b2", "b3", "503", "404"]
    until(lambda: served(lab) == expected, "ELB's rules are in force")
    exported = lb1.cli("export").stdout
    assert {key for key in json.loads(exported)["catalog"] if key.startswith(("routes/", "gateways/"))} == {
        "gateways/web", "routes/shop.example", "routes/static.example"
    }  # fmt: skip

    lab.empty()
    lab.router.until(HTTP, set())
    whole.write_text(exported)
    lb1.cli("import", str(whole))
    lab.router.until(HTTP, {"lb1"})
    until(lambda: served(lab) == expected, "all is in force again")
    assert lb1.cli("export").stdout == exported
