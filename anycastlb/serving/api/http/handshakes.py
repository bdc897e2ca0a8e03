"""Bound what TLS handshakes cost: anybody who reaches a listener can ask for one, and has shown no credential yet.

They are made one after the other, at a pace that takes no more than a share of a core with this certificate's key.
Those who wait are bounded, in all and for each peer, so that one peer cannot take every place.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from contextlib import suppress
from ipaddress import ip_network

from anycastlb.serving.api.http.limits import Allowance

SHARE = 0.1
"""Of a core: an RSA key of 4096 bits takes some 5 ms a handshake, so it allows about 20 a second."""
SLOWEST, FASTEST = 5.0, 400.0
"""Handshakes a second, whatever one costs."""
MAX_WAITING, MAX_WAITING_OF_ONE = 64, 16
"""Handshakes that wait for their turn, in all and of one peer (an IPv4 address, or an IPv6 network of 64 bits)."""


def pace(context: ssl.SSLContext) -> float:
    """Handshakes a second that take ``SHARE`` of a core with a server's context. It makes one, and takes its time."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    client, server = anybody.wrap_bio(down, up), context.wrap_bio(up, down, server_side=True)
    spent = 0.0
    for _ in range(3):
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        began = time.thread_time()
        with suppress(ssl.SSLWantReadError):
            server.do_handshake()
        spent += time.thread_time() - began
    return min(FASTEST, max(SLOWEST, SHARE / max(spent, 1e-6)))


class Handshakes:
    """The queue of one listener: ``rate`` handshakes a second, and twice as many at once."""

    def __init__(self, rate: float) -> None:
        self._allowance = Allowance(rate, 2 * rate)
        self._order = asyncio.Lock()
        self._waiting: Counter[str] = Counter()

    async def turn(self, host: str) -> bool:
        """Wait for the turn of this peer; False if it must not wait, since too many do."""
        peer = _peer(host)
        if self._waiting[peer] >= MAX_WAITING_OF_ONE or self._waiting.total() >= MAX_WAITING:
            return False
        self._waiting[peer] += 1
        try:
            async with self._order:
                loop = asyncio.get_running_loop()
                while True:
                    wait = self._allowance.take("", loop.time())
                    if not wait:
                        return True
                    await asyncio.sleep(wait)
        finally:
            self._waiting[peer] -= 1
            if not self._waiting[peer]:
                del self._waiting[peer]


def _peer(host: str) -> str:
    return str(ip_network((host.partition("%")[0], 64), strict=False)) if ":" in host else host
