"""What HAProxy has counted, and what it finds in its maps: for metrics and for ``why``.

It is asked over connections of its own, so that a scrape holds up no change. Nothing is changed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

from anycastlb.adapters.drivers.haproxy import answers
from anycastlb.adapters.drivers.haproxy.commands import escape
from anycastlb.adapters.drivers.haproxy.errors import HaproxyError, UnknownAnswer
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.sockets import Runtime
from anycastlb.core.http.explain import MapQuestion
from anycastlb.core.http.names import original
from anycastlb.core.model import HttpCounters, PoolCounters, SiteCounters, SiteKey

SITES = "show table _asites"
POOLS = "show stat -1 2 -1"
"""Of all proxies, the backend sections alone: a row a server would be megabytes."""
OF_POOL = ("req_tot", "wretr", "wredis", "econ", "eresp", "qcur", "rtime")
"""As the fields of ``PoolCounters``."""
LONGEST = 8000
"""Bytes of a command: HAProxy takes one that fits into its buffer."""
COUNTED = re.compile(
    r"key=(?P<key>\S+) .*http_req_cnt=(?P<requests>\d+) bytes_in_cnt=(?P<bytes_in>\d+) bytes_out_cnt=(?P<bytes_out>\d+)"
    r" gpc0=\d+ gpc1=\d+ gpc2=(?P<two>\d+) gpc3=(?P<three>\d+) gpc4=(?P<four>\d+) gpc5=(?P<five>\d+)"
)


class HaproxyStatistics:
    """``runtime`` is nobody else's."""

    def __init__(self, installation: Installation, runtime: Runtime) -> None:
        self._installation, self._runtime = installation, runtime
        self._turn = asyncio.Lock()

    async def read(self) -> HttpCounters | None:
        """None if HAProxy does not answer."""
        said = await self._ask([SITES, POOLS])
        if said is None:
            return None
        try:
            return await asyncio.to_thread(_counters, *said)  # a thousand rows take tens of milliseconds
        except UnknownAnswer:
            return None

    async def look_up(self, questions: Sequence[MapQuestion]) -> Mapping[str, bool]:
        """Does HAProxy find it? By the key of the question; nothing of those that it cannot be asked, nothing at all if
        it does not answer."""
        asked = {question.key: command for question in questions if (command := self._question(question))}
        said = await self._ask(list(asked.values())) if asked else []
        answers = zip(asked, said or (), strict=said is not None)
        return {key: "found=yes" in answer for key, answer in answers if "found=" in answer}

    def _question(self, question: MapQuestion) -> str:
        """The command; empty for a key that is none: it may hold whatever somebody put into a header."""
        command = f"get map {self._installation.map(question.map)} {escape(question.key)}"
        fits = re.fullmatch("[ -~]+", question.key) is not None and len(command) < LONGEST
        return command if fits else ""

    async def _ask(self, commands: list[str]) -> list[str] | None:
        async with self._turn:
            try:
                return await self._runtime.ask(commands)
            except HaproxyError:
                return None
            finally:
                self._runtime.close()  # one that stays open would be answered by the old worker after a reload


def _counters(sites: str, pools: str) -> HttpCounters:
    return HttpCounters(site_counters(sites), pool_counters(pools))


def site_counters(answer: str) -> dict[SiteKey, SiteCounters]:
    """``show table _asites``. Raises ``UnknownAnswer``."""
    counters = {}
    for line in answer.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        found = COUNTED.search(line)
        if found is None:
            raise UnknownAnswer(f"HAProxy listed its counters as {line[:200]!r}")
        gateway, _, host = found["key"].partition("|")
        answers = (int(found["two"]), int(found["three"]), int(found["four"]), int(found["five"]))
        counters[SiteKey(original(gateway), host)] = SiteCounters(
            int(found["requests"]), int(found["bytes_in"]), int(found["bytes_out"]), answers
        )
    return counters


def pool_counters(answer: str) -> dict[str, PoolCounters]:
    """``show stat`` of backend sections: the sections of one pool together. Raises ``UnknownAnswer``."""
    pools: dict[str, list[PoolCounters]] = {}
    for section, row, *numbers in answers.statistics(answer, ("pxname", "svname", *OF_POOL)):
        if row == "BACKEND" and not section.startswith("_a"):
            pools.setdefault(original(section), []).append(_counted(numbers))
    return {name: _together(parts) for name, parts in pools.items()}


def _counted(numbers: Sequence[str]) -> PoolCounters:
    requests, retries, redispatches, refused, unread, queued, milliseconds = map(answers.count, numbers)
    return PoolCounters(requests, retries, redispatches, refused, unread, queued, milliseconds / 1000)


def _together(parts: list[PoolCounters]) -> PoolCounters:
    """Sums; of the mean times the one of the section with the most requests."""
    return PoolCounters(
        requests=sum(one.requests for one in parts),
        retries=sum(one.retries for one in parts),
        redispatches=sum(one.redispatches for one in parts),
        connection_errors=sum(one.connection_errors for one in parts),
        response_errors=sum(one.response_errors for one in parts),
        queued=sum(one.queued for one in parts),
        response_seconds=max(parts, key=lambda one: one.requests).response_seconds,
    )
