"""Mutants of Consul's answers: a list of keys (also while an import is under way), of instances, a node's status."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from anycastlb.adapters.cluster import status_bytes, status_document
from anycastlb.adapters.cluster.status_bytes import UnreadableStatus
from anycastlb.adapters.consul.client import ConsulAnswer
from anycastlb.adapters.consul.key_list import KeyList
from anycastlb.adapters.discovery.consul import chosen
from anycastlb.adapters.sources import staging
from anycastlb.core.model import ConsulInstances, Snapshot, SourceError
from tests.fuzz.mutation import Mutator, may_raise

Answer: TypeAlias = tuple[str, bytes, int]
"""What it is of, its body, and its code."""
ITEM = {"LockIndex": 0, "Key": "anycastlb/services/web", "Flags": 0, "Value": "eyJ2aXAiOiAxfQ==", "CreateIndex": 5,
        "ModifyIndex": 9}  # fmt: skip
CHUNK = (("services/web", "9", 4), ("services/dns", "", None))
KEYS = ("services/web", "services/dns", "import/commit", "import/x/00000")
INSTANCE = {
    "Node": {"Node": "n1", "Address": "10.1.0.1", "CreateIndex": 7},
    "Service": {"ID": "web-1", "Service": "web", "Address": "", "Port": 8080, "Tags": ["a"], "CreateIndex": 8,
                "Weights": {"Passing": 10, "Warning": 1}},
    "Checks": [{"CheckID": "c", "Status": "passing"}],
}  # fmt: skip
AGAIN = 65536
"""Bytes up to which a list is read twice: the second time it is taken from what is remembered of the first."""
STATUS = json.loads(status_bytes.encode(status_document.summarise(Snapshot())))


def make(mutator: Mutator) -> Sequence[Answer]:
    return (
        ("keys", _keys(mutator), 200),
        ("instances", mutator.written(mutator.mutant([INSTANCE, INSTANCE])), mutator.chance.choice([200, 404, 500])),
        ("status", mutator.written(mutator.mutant(STATUS)), 200),
    )


def _keys(mutator: Mutator) -> bytes:
    chance = mutator.chance
    items: list[dict[str, Any]] = [{**ITEM, "Key": f"anycastlb/{key}"} for key in KEYS[: chance.choice([1, 2, 4])]]
    if len(items) == len(KEYS):
        state = {"id": "x", "state": "committed", "chunks": 1, "done": 0}
        items[2]["Value"] = _base64(json.dumps(mutator.mutant(state)))
        items[3]["Value"] = _base64(json.dumps(mutator.mutant(CHUNK)) + '\n{"a"')
    return mutator.written(mutator.mutant(items) if chance.random() < 0.7 else items).replace(b", ", b",")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode(errors="replace")).decode()


def judge(answers: Sequence[Answer]) -> None:
    for kind, body, code in answers:
        if kind == "keys":
            reader = KeyList("anycastlb/")
            for _ in range(2 if len(body) < AGAIN else 1):
                with may_raise(SourceError):
                    staging.in_force(reader.decode(body))
        elif kind == "instances":
            with may_raise(SourceError):
                text = body.decode(errors="replace")
                answer = ConsulAnswer("Consul at x: GET y", code, {}, text).json()
                chosen(ConsulInstances("web", "a" if len(body) % 2 else ""), answer, 3)
        else:
            with may_raise(UnreadableStatus):
                status_bytes.decode(body, "lb1")
