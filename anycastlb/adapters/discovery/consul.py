"""Follow the instances of a Consul service with blocking health queries (by the rules of ``blocking_query``).

Consul is always asked for every instance, in whatever health and with whatever tags, and the choice is made here. So an
instance that fails its checks, or lost the tag, is distinguished from one that has vanished: the first is the truth,
the second may come from a server that has just become leader (hashicorp/consul#4103). It registers nothing and checks
nothing (docs/decisions/0002).

A blocking query occupies a connection, and an agent resets those beyond its limit, whoever's they are. So all
discoveries share a bounded number of them (``ConsulConnections``).
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from anycastlb.adapters.consul.blocking_query import BlockingQuery, number
from anycastlb.adapters.consul.client import Client, waiting
from anycastlb.adapters.discovery import DiscoveryAnswer, Endpoint, endpoint, ordered
from anycastlb.core.fields import address
from anycastlb.core.model import AnycastlbError, ConsulInstances, Instance, SourceError
from anycastlb.settings import ConsulSettings

Health = Literal["passing", "warning", "critical"]
GRACE = 5.0
"""Seconds that a loss of too many instances must persist: longer than an election and what follows it."""
FOLLOWED, READERS = 48, 4
"""How many discoveries wait in a blocking query at a time, and how many read. An agent of Consul 1.8 lets one host have
100 connections (later ones 200), of which the catalog, the statuses, names and the API need up to 32."""
PAUSE = 10.0
"""Seconds between two reads of a discovery that finds no free place."""
UNFIT_FOR_NAMES = re.compile(r"[^A-Za-z0-9._:\[\]-]")
MAX_NAMED = 128


class ConsulConnections:
    """The connections that all discoveries of a node share, so that they leave enough for its catalog.

    ``followed`` of them may wait in a blocking query at a time. Whoever finds no place pauses instead, and then simply
    reads; a place becomes free whenever a query returns, so they take turns.
    """

    def __init__(self, settings: ConsulSettings, followed: int = FOLLOWED, pause: float = PAUSE) -> None:
        self._client = Client(settings, followed + READERS)
        self._wait = waiting(settings)
        self._free, self._pause = followed, pause
        self._reading = asyncio.Semaphore(READERS)
        self._users: set[ConsulDiscovery] = set()

    async def read(self, user: ConsulDiscovery, consistent: bool) -> tuple[Any, Any]:
        """The index and all instances of what ``user`` wants."""
        self._users.add(user)
        async with self._reading:
            return await self._client.instances(
                user.wanted.service, datacenter=user.wanted.datacenter, consistent=consistent
            )

    async def wait(self, user: ConsulDiscovery, index: int) -> None:
        """Return once there may be news since ``index``."""
        if not self._free:
            await asyncio.sleep(self._pause)
            return
        self._free -= 1
        try:
            await self._client.instances(
                user.wanted.service, datacenter=user.wanted.datacenter, index=index, wait=self._wait
            )
        finally:
            self._free += 1

    async def leave(self, user: ConsulDiscovery) -> None:
        """It needs no connection any more; the last one closes them all."""
        self._users.discard(user)
        if not self._users:
            await self._client.close()


class ConsulDiscovery:
    def __init__(self, wanted: ConsulInstances, connections: ConsulConnections) -> None:
        self.wanted = wanted
        self._connections = connections
        self._answer = BlockingQuery(self._read, self._wait_for_news, same=DiscoveryAnswer.same, lost=_lost)

    @property
    def reads(self) -> int:
        """Whole answers read so far."""
        return self._answer.reads

    async def read(self, after: DiscoveryAnswer | None) -> DiscoveryAnswer:
        """See ``Discovery``. ``after`` must be of this discovery's own reading."""
        return await self._answer.read(after)

    async def close(self) -> None:
        await self._connections.leave(self)

    async def _read(self, consistent: bool) -> DiscoveryAnswer:
        index, items = await self._connections.read(self, consistent)
        return chosen(self.wanted, items, number(index))

    async def _wait_for_news(self, seen: DiscoveryAnswer) -> None:
        await self._connections.wait(self, seen.index)


def _lost(before: DiscoveryAnswer, now: DiscoveryAnswer) -> bool:
    return bool(_known(before) - _known(now))


def _known(answer: DiscoveryAnswer) -> frozenset[Endpoint]:
    return answer.unfit | {endpoint(instance) for instance in answer.instances}


# ---------------------------------------------------------------- pure


@dataclass(frozen=True, slots=True)
class _Registered:
    """One instance as it is registered."""

    id: str
    node: str
    instance: Instance
    health: Health
    tags: frozenset[str]


def chosen(wanted: ConsulInstances, items: Any, index: int) -> DiscoveryAnswer:
    """The answer in Consul's list of a service's instances. Raises ``SourceError`` for what is no such list."""
    problems: list[str] = []
    registered: list[_Registered] = []
    try:
        if not isinstance(items, list):
            raise TypeError(f"a {type(items).__name__}")
        for item in items:
            try:
                registered.append(_registered(item))
            except _UnusableInstance as exc:
                problems.append(str(exc))
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise SourceError(f"Consul answered a list that is not one of instances: {exc!r:.200}") from exc
    tagged = [one for one in registered if not wanted.tag or wanted.tag.casefold() in one.tags]
    fit = [one for one in tagged if one.health == "passing" or not wanted.passing]
    instances = ordered(_named(fit, wanted.service))
    known = {endpoint(one.instance) for one in registered}
    if not fit:
        problems.append(_why_none(wanted, len(registered), len(tagged)))
    return DiscoveryAnswer(
        instances, frozenset(known - set(map(endpoint, instances))), tuple(dict.fromkeys(problems)), index
    )


class _UnusableInstance(AnycastlbError):
    """An instance that cannot be a backend."""


def _registered(item: Mapping[str, Any]) -> _Registered:
    service, node = item["Service"], item["Node"]
    name, where = str(service["ID"]), service["Address"] or node["Address"]
    try:
        backend = address(where)
    except ValueError as exc:
        raise _UnusableInstance(f"the instance {name!r:.80} is left out: its address is expected to be {exc}") from exc
    health = _health(item["Checks"] or ())
    port = int(service["Port"])
    weights = service.get("Weights") or {}
    weight = weights.get("Passing" if health == "passing" else "Warning")
    instance = Instance(
        name,
        backend,
        port=port or None,
        weight=None if weight is None else int(weight),
        created=int(service["CreateIndex"]),
    )
    return _Registered(
        name, str(node["Node"]), instance, health, frozenset(map(str.casefold, service.get("Tags") or ()))
    )


def _health(checks: Sequence[Mapping[str, Any]]) -> Health:
    """The worst of the instance's checks and its node's, as Consul itself sees it; maintenance is a critical check."""
    statuses = {check["Status"] for check in checks}
    if statuses <= {"passing"}:
        return "passing"
    return "warning" if statuses <= {"passing", "warning"} else "critical"


def _named(registered: Sequence[_Registered], service: str) -> list[Instance]:
    """Each under a name of its own: its ID; with its node's name if the ID is only unique on its node.

    An agent that is given no ID uses the service's name, so the same ID on many nodes is the rule there.
    """
    names = [_plain(one.id) for one in registered]
    count = Counter(names)
    by_name: dict[str, Instance] = {}
    for one, name in zip(registered, names, strict=True):
        if count[name] > 1 or one.id == service:
            name = _plain(f"{one.id}.{one.node}")
        if name in by_name:
            name = f"{name}.{one.instance.created}"
        by_name[name] = replace(one.instance, name=name)
    return list(by_name.values())


def _plain(name: str) -> str:
    """A name that can be a key, a path and a label."""
    return UNFIT_FOR_NAMES.sub("-", name).lstrip("._:]-")[:MAX_NAMED] or "instance"


def _why_none(wanted: ConsulInstances, registered: int, tagged: int) -> str:
    if not registered:
        return f"no instance: Consul has none of {wanted.service!r:.80} (or this token may not see it)"
    if not tagged:
        return f"no instance: none of the {registered} of {wanted.service!r:.80} has the tag {wanted.tag!r:.80}"
    return f"no instance: none of the {tagged} of {wanted.service!r:.80} passes its checks in Consul"
