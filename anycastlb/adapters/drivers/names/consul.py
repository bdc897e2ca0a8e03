"""Register services with the local Consul agent, each with a check that this node must keep renewing.

The check (TTL) is ``passing`` while this node announces the VIP and ``critical`` with the reason while it does not. A
node that dies renews nothing: Consul itself turns the check critical when its time is over, and deregisters the service
after ``consul.deregister_after``. A node that returns earlier finds its registrations by their ``Meta`` and goes on
with them; only those that name this node are ever seen, changed or deregistered.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Literal

from anycastlb.adapters.consul.client import Client
from anycastlb.adapters.consul.faults import Forbidden
from anycastlb.adapters.drivers.names import RACED
from anycastlb.core.model import Change, ConsulKey, ConsulService, DriverError, Rows, SourceError, Table
from anycastlb.settings import ConsulSettings

NODE, SERVICE, VIP, TTL = "anycastlb-node", "anycastlb-service", "anycastlb-vip", "anycastlb-ttl"
"""Keys of ``Meta``; the first one makes a registration ours."""
UNKNOWN = ("nknown", "does not have associated TTL")
"""In the answer to a request about a service or check that is not there. Consul has no code for it: version 1.8
answers with the status 500, as it does for any fault of its own, and only the words say what it is."""
UNSAFE = re.compile(r"[^A-Za-z0-9._:-]")
"""In a path; Consul does not undo the percent signs of all of them."""
SHORTEST = 10.0
"""Seconds a check lives at least."""
AT_ONCE = 8


class ConsulServices:
    """``ttl``: seconds for which a check lives when it is not renewed."""

    table: Table = "consul_services"

    def __init__(self, settings: ConsulSettings, node: str, ttl: float) -> None:
        self._client = Client(settings)
        self._node = node
        self._ttl = f"{max(ttl, SHORTEST):g}s"
        self._gone_after = f"{settings.deregister_after:g}s"
        self.period = max(ttl, SHORTEST) / 3
        self.where = f"Consul's services at {settings.address}"

    async def look(self, names: Collection[str]) -> Rows:
        """What is registered, and renew its checks."""
        services = await self._call("GET", "/v1/agent/services")
        checks = await self._call("GET", "/v1/agent/checks")
        rows: dict[ConsulKey, ConsulService] = {}
        try:
            checked = {
                check["ServiceID"]: check for check in checks.values() if check["CheckID"] == _check(check["ServiceID"])
            }
            for service in services.values():
                if (service.get("Meta") or {}).get(NODE) == self._node:
                    key, row = _row(service, checked.get(service["ID"]), self._ttl)
                    if service["ID"] == _id(key):
                        rows[key] = row
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise DriverError(f"{self.where}: its list of services is not one: {exc!r:.200}") from exc
        await self._renew(rows)
        return rows

    async def write(self, changes: Sequence[Change]) -> AsyncIterator[tuple[Change, str]]:
        for change in changes:
            try:
                yield change, await self._write(change)
            except Forbidden:
                name = (change.new or change.old).name
                yield change, f'Consul\'s ACLs refuse it; expected a token with service "{name}" {{ policy = "write" }}'

    async def close(self) -> None:
        await self._client.close()

    async def _write(self, change: Change) -> str:
        key, old, new = change.key, change.old, change.new
        if new is None:
            await self._call("PUT", f"/v1/agent/service/deregister/{_id(key)}", missing=True)
            return ""
        if old is None or _registration(old) != _registration(new):
            await self._call("PUT", "/v1/agent/service/register", self._document(key, new))
        return await self._say(key, new)

    async def _say(self, key: ConsulKey, row: ConsulService) -> str:
        path = f"/v1/agent/check/update/{_check(_id(key))}"
        update = {"Status": "passing" if row.passing else "critical", "Output": row.reason}
        return "" if await self._call("PUT", path, update, missing=True) else RACED

    async def _renew(self, rows: Mapping[ConsulKey, ConsulService]) -> None:
        some = asyncio.Semaphore(AT_ONCE)

        async def renew(key: ConsulKey, row: ConsulService) -> None:
            async with some:
                await self._say(key, row)

        try:
            async with asyncio.TaskGroup() as group:
                for key, row in rows.items():
                    group.create_task(renew(key, row))
        except* (DriverError, SourceError) as together:
            raise DriverError(str(together.exceptions[0])) from together

    def _document(self, key: ConsulKey, row: ConsulService) -> dict[str, Any]:
        return {
            "ID": _id(key),
            "Name": row.name,
            "Tags": list(row.tags),
            "Address": str(row.address),
            "Port": row.port,
            "Meta": {NODE: key.node, SERVICE: key.service, VIP: str(key.vip), TTL: self._ttl},
            "Check": {
                "CheckID": _check(_id(key)),
                "Name": f"announced by {key.node}",
                "TTL": self._ttl,
                "Status": "passing" if row.passing else "critical",
                "DeregisterCriticalServiceAfter": self._gone_after,
            },
        }

    async def _call(self, method: Literal["GET", "PUT"], path: str, document: Any = None, missing: bool = False) -> Any:
        """What the agent answers, True for nothing. With ``missing``, False for what does not exist.

        Raises ``DriverError``, and ``Forbidden`` for a write.
        """

        body = json.dumps(document).encode() if document is not None else b""
        try:
            answer = await self._client.request(method, path, body, local=True)
            if answer.status == 200:
                return answer.json() if answer.text.strip() else True
            if missing and (answer.status == 404 or any(word in answer.text for word in UNKNOWN)):
                return False
            raise answer.refusal()
        except Forbidden:
            if method == "PUT":
                raise
            raise DriverError(
                f"{self.where}: the token (consul.token_file) may not read the agent's services"
            ) from None
        except SourceError as exc:
            raise DriverError(str(exc)) from exc


# ---------------------------------------------------------------- pure


def _id(key: ConsulKey) -> str:
    """Unique on one agent, also if several nodes share it."""
    plain = UNSAFE.sub("-", str(key))
    return plain if plain == str(key) else f"{plain}-{hashlib.sha256(str(key).encode()).hexdigest()[:8]}"


def _check(service: str) -> str:
    return f"service:{service}"


def _registration(row: ConsulService) -> tuple[Any, ...]:
    """What is written when a service is registered; its check has the rest."""
    return row.name, row.address, row.port, row.tags


def _row(service: Mapping[str, Any], check: Mapping[str, Any] | None, ttl: str) -> tuple[ConsulKey, ConsulService]:
    """A registration of ours. One that is not as we make it (no check, another TTL) has a name that nobody wants, so
    that it is registered anew. Raises ``ValueError``, ``KeyError``."""
    meta = service["Meta"]
    key = ConsulKey(meta[SERVICE], ip_address(meta[VIP]), meta[NODE])
    as_made = check is not None and meta.get(TTL) == ttl
    return key, ConsulService(
        name=service["Service"] if as_made else "",
        address=ip_address(service["Address"]),
        port=int(service["Port"]),
        tags=tuple(service["Tags"] or ()),
        passing=check is not None and check["Status"] == "passing",
        reason=str(check["Output"]) if check else "",
    )
