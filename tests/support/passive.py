"""Pools whose requests are counted, and a HAProxy in memory that counts them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from anycastlb.core.decision.http.passive import NOTHING_KNOWN, PassiveRecord, take
from anycastlb.core.model import Backend, Check, Endpoint, Passive, Service, TryCounters, VirtualService

THREE = Passive(3, 10.0)
CHECK = Check("tcp", ip_address("10.0.0.1"), 80, None, interval=1.0, timeout=1.0, rise=2, fall=3)


def backend(number: int, counts: Passive | None = THREE, **more: object) -> Backend:
    address = ip_address(f"10.0.0.{number}")
    return Backend(f"b{number}", address, 80, passive=counts, check=replace(CHECK, address=address), **more)  # type: ignore[arg-type]


def pool(count: int = 3, **more: object) -> Service:
    backends = tuple(backend(number + 1) for number in range(count))
    return Service(**{"name": "shop", "vips": (), "protocol": "tcp", "port": 80, "virtual": VirtualService("wrr"),
                      "backends": backends, **more})  # type: ignore[arg-type]  # fmt: skip


def at(number: int) -> Endpoint:
    return ip_address(f"10.0.0.{number}"), 80


class Counting:
    """A HAProxy that counts, and one who asks it every second."""

    def __init__(self, pool: Service) -> None:
        self.pool, self.now, self.record = pool, 100.0, NOTHING_KNOWN
        self.counters = {("shop", at(number + 1)): TryCounters() for number in range(len(pool.backends))}
        self.ask(0.0)

    def tried(self, **more: TryCounters) -> Counting:
        """``b1=...``: how the requests that it was tried with have ended."""
        for name, added in more.items():
            key = "shop", at(int(name[1:]))
            self.counters[key] = TryCounters(*map(sum, zip(self.counters[key], added, strict=True)))
        return self

    def ask(self, seconds: float = 1.0) -> PassiveRecord:
        self.now += seconds
        self.record = take(self.pool, self.record, dict(self.counters), self.now)
        return self.record

    @property
    def failing(self) -> set[str]:
        return {f"b{str(address)[-1]}" for address, _ in self.record.failures}


def tried(good: int, failed: int = 0) -> TryCounters:
    return TryCounters(good, failed)
