"""What etcd answers to ``GET /v2/keys/ELB?recursive=true`` for a small ELB."""

from __future__ import annotations

import json
from typing import Any

from tests.support.http_tree import EXAMPLE

PREFIX = {
    "init": "p",
    "rules": {
        "p": {"type": "path", "args": {"pattern": "/static", "succ": "s", "fail": "gone"}},
        "s": {"type": "backend", "args": {"servername": "10.0.0.7"}},
        "gone": {"type": "backend", "args": {"servername": "nobody"}},
    },
}


def leaf(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": value, "modifiedIndex": 7, "createdIndex": 7}


def folder(key: str, *nodes: dict[str, Any]) -> dict[str, Any]:
    return {"key": key, "dir": True, "nodes": list(nodes), "modifiedIndex": 7, "createdIndex": 7}


DUMP = json.dumps({
    "action": "get",
    "node": folder(
        "/ELB",
        folder(
            "/ELB/rules",
            leaf("/ELB/rules/127.0.0.1", json.dumps(EXAMPLE)),
            leaf("/ELB/rules/Static.example:8080", json.dumps(PREFIX)),
        ),
        folder(
            "/ELB/upstreams",
            folder(
                "/ELB/upstreams/upstrimg1",
                leaf("/ELB/upstreams/upstrimg1/127.0.0.1:8089", "max_fails=2 weight=10"),
                leaf("/ELB/upstreams/upstrimg1/127.0.0.1:8088", ""),
            ),
            folder(
                "/ELB/upstreams/upstream2",
                leaf("/ELB/upstreams/upstream2/[2001:db8::1]:80", "fail_timeout=30 backup"),
                leaf("/ELB/upstreams/upstream2/localhost:8088", "down"),
                leaf("/ELB/upstreams/upstream2/127.0.0.1:8090", "route=a max_conns=9"),
            ),
        ),
    ),
})  # fmt: skip
