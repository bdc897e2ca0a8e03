"""R30: ELB's admin API as ELB's own Python client calls it, and its sample.

``ElbClient`` makes the calls of ``elb.py`` in github.com/projecteru2/elb (commit 1ba990df, lines 138 to 205), one by
one: a ``requests.Session`` that is kept, ``timeout=2``, no other header than that library's, JSON bodies also for
DELETE, none for ``dump``; everything but 200 is an error, and every answer has to be JSON. The sample is
``sample/fill_upstream_with_rules.py`` (commit 4ab95bc8) with its two mistakes put right: the client's method is
``set_upstream``, not ``add_upstream``, and a ``servername`` is a name, not a dict.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.core.model import Snapshot
from tests.support.http_tree import GATEWAY
from tests.support.serving import Served, served_beside


class RespError(Exception):
    """``ELBRespError``."""


class ElbClient:
    def __init__(self, base: str) -> None:
        self.base = base if base.startswith("http://") else f"http://{base}"
        self.session = requests.Session()

    def req(self, method: str, path: str, body: Any = None) -> Any:
        try:
            answer = self.session.request(
                method, url=f"{self.base}/__erulb__/{path}", params=None, json=body, timeout=2
            )
        except requests.RequestException as exc:
            raise RespError(exc) from exc
        if answer.status_code != 200:
            raise RespError(answer.content)
        return answer.json()


def ua(pattern: str, succ: str, fail: str) -> dict[str, Any]:
    return {"type": "ua", "args": {"succ": succ, "fail": fail, "pattern": pattern}}


def path(pattern: str, succ: str, fail: str) -> dict[str, Any]:
    """Without ``regex`` and ``rewrite``, which the client's ``PathRule.dump`` leaves out."""
    return {"type": "path", "args": {"succ": succ, "fail": fail, "pattern": pattern}}


def backend(name: Any) -> dict[str, Any]:
    return {"type": "backend", "args": {"servername": name}}


SAMPLE = {
    "init": "ua",
    "rules": {
        "ua": ua("test$", "backend1", "path"),
        "path": path("/path1", "backend2", "backend1"),
        "backend1": backend("up1"),
        "backend2": backend("up2"),
    },
}
OK = {"msg": "OK"}


@pytest.fixture
def client() -> Iterator[ElbClient]:
    edge = {**GATEWAY, "tls": {"certificates": ["shop"]}}
    served = Served(Snapshot(), store=MemorySource(**{"gateways/edge": json.dumps(edge)}))
    with served_beside(served) as url:
        client = ElbClient(url.removeprefix("http://"))
        yield client
        client.session.close()


def test_every_call_of_the_client_in_the_order_of_its_sample(client: ElbClient) -> None:
    assert client.req("GET", "upstream") == client.req("GET", "domain") == {}
    assert client.req("PUT", "domain", {"test.local": SAMPLE}) == OK
    assert client.req("PUT", "upstream", {"up1": {"127.0.0.1:5000": ""}}) == OK
    assert client.req("PUT", "upstream", {"up2": {"127.0.0.1:5001": ""}}) == OK
    assert client.req("PUT", "dump") == OK
    assert client.req("GET", "domain") == {"test.local": SAMPLE}
    upstreams = client.req("GET", "upstream")
    assert {name: [one["addr"] for one in servers] for name, servers in upstreams.items()} == {
        "up1": ["127.0.0.1:5000"],
        "up2": ["127.0.0.1:5001"],
    }
    assert set(upstreams["up1"][0]) == {"addr", "name", "weight", "max_fails", "fail_timeout"}
    assert client.req("DELETE", "domain", ["test.local"]) == OK
    assert client.req("DELETE", "upstream", ["up1", "up2", "nobody"]) == {"up1": True, "up2": True, "nobody": 404}
    assert client.req("GET", "upstream") == client.req("GET", "domain") == {}


def test_a_set_of_clients_writes_everything_to_each(client: ElbClient) -> None:
    """``ELBSet``: the same write to every instance, which share one catalog here."""
    other = ElbClient(client.base)
    for each in (client, other):
        assert each.req("PUT", "upstream", {"up1": {"127.0.0.1:5000": "weight=10 max_fails=2"}}) == OK
        assert each.req("PUT", "domain", {"test.local": {"init": "b", "rules": {"b": backend("up1")}}}) == OK
    assert other.req("GET", "upstream") == client.req("GET", "upstream")
    other.session.close()


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("domain", {"test.local": {"init": "b", "rules": {"b": backend({"up1": ""})}}}, b"servername"),
        ("domain", {"test.local": {"init": "x", "rules": {"b": backend("up1")}}}, b"init"),
        ("upstream", {"up1": {"localhost:5000": ""}}, b"no address"),
    ],
    ids=["the sample's dict", "no such rule", "a name"],
)
def test_what_cannot_be_is_an_error_of_the_client(client: ElbClient, name: str, body: Any, words: bytes) -> None:
    with pytest.raises(RespError) as failed:
        client.req("PUT", name, body)
    assert words in failed.value.args[0]
    assert client.req("GET", name) == {}
