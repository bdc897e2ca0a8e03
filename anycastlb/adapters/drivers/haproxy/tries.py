"""How the requests have ended that HAProxy has tried on each server of some pools: for passive failures.

A row of ``show stat`` is half a kilobyte, so only the sections are asked about whose pool wants to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address

from anycastlb.adapters.drivers.haproxy import answers
from anycastlb.adapters.drivers.haproxy.errors import HaproxyError, UnknownAnswer
from anycastlb.adapters.drivers.haproxy.sockets import Runtime
from anycastlb.core.http.names import original
from anycastlb.core.model import Endpoint, Tries, TryCounters

ASK = "show stat {} 4 -1"
"""The servers of one section, all of them."""
UNKNOWN_SECTION = "No such proxy"
GOOD = ("hrsp_2xx", "hrsp_3xx", "hrsp_4xx")
BAD = ("hrsp_5xx", "eresp", "econ", "wretr", "wredis")
"""As the fields of ``TryCounters`` after the first."""


class HaproxyTries:
    """``runtime`` is nobody else's."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def read(self, sections: Sequence[str]) -> Mapping[str, Tries] | None:
        """By the name of the pool; None if HAProxy does not answer."""
        try:
            told = await self._runtime.ask([ASK.format(section) for section in sections])
            return await asyncio.to_thread(_by_pool, zip(sections, told, strict=True))  # it may be megabytes
        except HaproxyError:
            return None
        finally:
            self._runtime.close()  # one that stays open would be answered by the old worker after a reload


def _by_pool(told: Iterable[tuple[str, str]]) -> Mapping[str, Tries]:
    """Raises ``UnknownAnswer``."""
    pools: dict[str, dict[tuple[str, Endpoint], TryCounters]] = {}
    for section, answer in told:
        if not answer.startswith(UNKNOWN_SECTION):
            of_pool = pools.setdefault(original(section), {})
            of_pool.update({(section, at): counters for at, counters in counted(answer).items()})
    return pools


def counted(answer: str) -> dict[Endpoint, TryCounters]:
    """``show stat`` of the servers of one section. Raises ``UnknownAnswer``."""
    servers = {}
    for at, *numbers in answers.statistics(answer, ("addr", *GOOD, *BAD)):
        if at:
            ended = list(map(answers.count, numbers))
            servers[_endpoint(at)] = TryCounters(sum(ended[: len(GOOD)]), *ended[len(GOOD) :])
    return servers


def _endpoint(text: str) -> Endpoint:
    address, _, port = text.rpartition(":")
    try:
        return ip_address(address.strip("[]")), int(port)
    except ValueError as exc:
        raise UnknownAnswer(f"HAProxy has a server at {text[:80]!r}") from exc
