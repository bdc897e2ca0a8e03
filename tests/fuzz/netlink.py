"""Mutants of the kernel's messages about IPVS. What cannot be read is left out; nothing is made of what lies behind."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TypeAlias

from anycastlb.adapters.drivers.ipvs import codec
from anycastlb.adapters.drivers.ipvs.reader import IpvsReader, counters
from anycastlb.adapters.system.netlink import messages
from anycastlb.core.model import Destination, DestinationKey, ServiceKey, VirtualService
from tests.fuzz.mutation import Mutator, may_raise

Message: TypeAlias = tuple[bytes, int]
"""Its bytes, and the length that its head says."""
KEY = ServiceKey("tcp", ip_address("192.0.2.1"), 80)
PIECES = (
    codec.service(KEY, VirtualService("mh", persistence=300)),
    codec.service(ServiceKey("fwmark", ip_address("::"), 7), VirtualService("rr")),
    codec.destination(DestinationKey(KEY, ip_address("10.1.0.1"), 80), Destination("tunnel", 100, 100), 100),
    codec.destination(
        DestinationKey(KEY, ip_address("2001:db8::1"), 80), Destination("gue", 1, 1, tunnel_port=6080), 1
    ),
)
PAYLOAD = 20
TOGETHER = 8
"""Messages of one look."""


def make(mutator: Mutator) -> Sequence[Message]:
    return [_message(mutator) for _ in range(TOGETHER)]


def _message(mutator: Mutator) -> Message:
    chance = mutator.chance
    body = mutator.damaged(chance.choice(PIECES))
    length = chance.choice([PAYLOAD + len(body), chance.randrange(70_000)])
    return length.to_bytes(4, sys.byteorder) + bytes(PAYLOAD - 4) + body, length


def judge(found: Sequence[Message]) -> None:
    reader = IpvsReader()
    for data, length in found:
        end = min(len(data), length)
        for read in (reader.service, reader.destination):
            with may_raise(ValueError):
                read(data, PAYLOAD, end)
        with may_raise(ValueError):
            counters(data, PAYLOAD, end, length % 2 == 0)
        for start, stop, _ in messages(data):
            assert stop > start
