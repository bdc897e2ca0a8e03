"""The requests of each hostname to a statsd server, in the names that ELB gave them. Off unless node.toml names one.

Every ``INTERVAL`` seconds it sends how many requests there were since the last time, by ``PREFIX.HOST.total`` and
``PREFIX.HOST.status.CLASS``, from the counters that the metrics of gateways show. Each datagram is sent once, and
whether anybody takes it is not asked: a server that is away costs nothing. What HAProxy counted in the last seconds
before a reload is lost with the counters.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from anycastlb.core.model import HttpCounters, SiteCounters, SiteKey
from anycastlb.settings.http import Server

INTERVAL = 10.0
"""Seconds from one report to the next: statsd's own flush interval."""
DATAGRAM = 1432
"""Bytes of a datagram, at most: one packet on any Ethernet."""
TIMEOUT = 5.0
"""Seconds in which the server's name must be resolved."""
CLASSES = ("2xx", "3xx", "4xx", "5xx")
Count = Callable[[], Awaitable[HttpCounters | None]]


@dataclass(frozen=True, slots=True)
class Totals:
    """What was counted of one hostname, on all gateways."""

    requests: int = 0
    answers: tuple[int, ...] = (0, 0, 0, 0)


@dataclass
class Report:
    """What is said of hostnames: only what is new since the last time. Pure but for what it keeps of that."""

    prefix: str
    _counted: Mapping[SiteKey, SiteCounters] | None = field(default=None, init=False)

    def lines(self, counted: Mapping[SiteKey, SiteCounters]) -> list[str]:
        """The lines for what was counted since the last call; none at the first one."""
        before, self._counted = self._counted, counted
        if before is None:
            return []
        totals: dict[str, Totals] = {}
        for key, row in counted.items():
            known, new = totals.get(key.host, Totals()), _since(before.get(key, SiteCounters()), row)
            answers = tuple(map(sum, zip(known.answers, new.answers, strict=True)))
            totals[key.host] = Totals(known.requests + new.requests, answers)
        return [line for host, one in sorted(totals.items()) for line in self._of_host(host, one)]

    def _of_host(self, host: str, totals: Totals) -> Iterator[str]:
        name = f"{self.prefix}.{re.sub('[^A-Za-z0-9-]', '_', host)}"
        if totals.requests:
            yield f"{name}.total:{totals.requests}|c"
        for status, number in zip(CLASSES, totals.answers, strict=True):
            if number:
                yield f"{name}.status.{status}:{number}|c"


def _since(before: SiteCounters, now: SiteCounters) -> SiteCounters:
    """Counters that have begun anew say all that was counted since then."""
    anew = now.requests < before.requests or any(n < b for b, n in zip(before.answers, now.answers, strict=True))
    base = SiteCounters() if anew else before
    two, three, four, five = (n - b for b, n in zip(base.answers, now.answers, strict=True))
    return SiteCounters(now.requests - base.requests, answers=(two, three, four, five))


def datagrams(lines: Iterable[str]) -> Iterator[bytes]:
    """The lines in as few datagrams as have room for them."""
    text = b""
    for line in lines:
        piece = f"{line}\n".encode()
        if text and len(text) + len(piece) > DATAGRAM:
            yield text
            text = b""
        text += piece
    if text:
        yield text


async def report(
    server: Server, prefix: str, count: Count, wanted: Callable[[], Mapping[SiteKey, object]], pause: float = INTERVAL
) -> None:
    """Report for ever. ``wanted``: the hostnames that there are. A fault of ours in one report stops nothing else."""
    known = Report(prefix)
    while True:
        try:
            if (counted := await count()) is not None:
                sites = wanted()
                lines = known.lines({key: row for key, row in counted.sites.items() if key in sites})
                await send(server, list(datagrams(lines)))
        except Exception:
            logging.getLogger("anycastlb").exception("a report to statsd could not be made")
        await asyncio.sleep(pause)


async def send(server: Server, pieces: Sequence[bytes]) -> None:
    """Send them, if that is possible."""
    if not pieces:
        return
    with suppress(OSError):
        async with asyncio.timeout(TIMEOUT):
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=server)
        for piece in pieces:
            transport.sendto(piece)
        transport.close()
