"""Keep the registry in Consul: one key a node below ``nodes/``, each held by a session with a time to live.

The session belongs to no health check of Consul's: a node whose local agent restarts has not gone. It deletes its keys
when it ends, and leaves no lock-delay behind, which would keep the node's next process from its own key. Keys are
followed by the rules of ``consul.blocking_query``, with a pause between reads: no decision needs them within a second
(docs/decisions/0009).
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from anycastlb.adapters.cluster import Denied, Membership, Posted
from anycastlb.adapters.consul.blocking_query import BlockingQuery, number
from anycastlb.adapters.consul.client import Client
from anycastlb.adapters.consul.faults import Forbidden
from anycastlb.core.model import SourceError
from anycastlb.settings import ConsulSettings

NODES = "nodes/"
TTL = 10.0
"""Seconds; the shortest that Consul takes. It ends a session at twice that."""
LONGEST_WAIT = 15
"""Seconds of one blocking query. Consul does not wake it for a recursive delete of a prefix above."""
TOO_LARGE = 413
DISTANCE = 0.25
"""Seconds in which changes of several nodes are read together."""


class ConsulRegistry:
    def __init__(self, settings: ConsulSettings, ttl: float = TTL) -> None:
        self.ttl = ttl
        self._client = Client(settings)
        self._below = settings.prefix + NODES
        self._wait = f"{round(min(settings.wait, LONGEST_WAIT) * 1000)}ms"
        self._roll = BlockingQuery(
            self._look,
            self._wait_for_news,
            same=lambda before, now: before.entries == now.entries,
            lost=lambda before, now: bool(before.entries.keys() - now.entries.keys()),
        )

    async def read(self, after: Membership | None) -> Membership:
        return await self._roll.read(after)

    async def begin(self, node: str) -> str:
        wanted = {
            "Name": f"anycastlb {node}",
            "TTL": f"{round(self.ttl)}s",
            "Behavior": "delete",
            "LockDelay": "0s",
            "Checks": [],
            "NodeChecks": [],
        }
        answer = await self._put("/v1/session/create", json.dumps(wanted).encode())
        if not isinstance(answer, dict) or not isinstance(answer.get("ID"), str):
            raise SourceError(f"Consul answered {answer!r:.100} instead of a session")
        return str(answer["ID"])

    async def renew(self, session: str) -> bool:
        return await self._put(f"/v1/session/renew/{session}") is not None

    async def write(self, node: str, value: bytes, session: str) -> bool:
        return await self._put(f"/v1/kv/{self._below}{node}", value, ("acquire", session)) is True

    async def end(self, session: str) -> None:
        await self._put(f"/v1/session/destroy/{session}")

    async def close(self) -> None:
        await self._client.close()

    async def _look(self, consistent: bool) -> Membership:
        mode = "consistent" if consistent else None
        index, items = await self._client.kv.get(self._below, recurse=True, consistency=mode)
        try:
            entries = {item["Key"].removeprefix(self._below): _posted(item) for item in items or ()}
        except (KeyError, TypeError, AttributeError) as exc:
            raise SourceError(f"Consul answered a list that is not one of keys: {exc!r:.200}") from exc
        return Membership(
            {name: posted for name, posted in entries.items() if not name.endswith("/") and name}, number(index)
        )

    async def _wait_for_news(self, seen: Membership) -> None:
        names = {self._below + name for name in seen.entries}
        while True:
            index, keys = await self._client.kv.get(self._below, index=str(seen.index), wait=self._wait, keys=True)
            await asyncio.sleep(DISTANCE)
            present = {str(key) for key in keys if not str(key).endswith("/")} if isinstance(keys, list) else None
            if number(index) != seen.index or present != names:
                return  # else its time was up: all statuses together may be large, and are as they were

    async def _put(self, path: str, body: bytes = b"", *params: tuple[str, str]) -> Any:
        """The answer as JSON; None for what does not exist. Raises ``SourceError``."""
        try:
            answer = await self._client.request("PUT", path, body, params)
            if answer.status == TOO_LARGE:
                raise Denied(too_large(len(body), answer.text.strip()))
            return answer.json()
        except Forbidden as exc:
            raise Denied(
                "Consul's ACLs refuse this node's status; expected a token (consul.token_file) with the policy "
                f'session_prefix "" {{ policy = "write" }} key_prefix "{self._below}" {{ policy = "write" }}'
            ) from exc


def too_large(size: int, why: str) -> str:
    return (
        f"Consul refuses this node's status of {size} bytes as too large ({why:.200}), so other nodes do not see it; "
        "expected a kv_max_value_size of 524288 or more, or fewer VIPs in one cluster (docs/OPERATIONS.md, Size)"
    )


def _posted(item: dict[str, Any]) -> Posted:
    value = item["Value"]
    if isinstance(value, str):
        value = base64.b64decode(value)
    return Posted(value or b"", item.get("Session") or "")
