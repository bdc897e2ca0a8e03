"""Real packets through the kernel's IPVS, and where it sent each: fast enough for millions.

The backends of a ``tunnel`` service lie behind an interface that leads nowhere; a packet's outer header, read there,
says which of them was chosen. With ``one_packet`` no connection is remembered: what is seen is the table itself.
"""

from __future__ import annotations

import random
import socket
import struct
from contextlib import suppress

from anycastlb.core.model import Address
from tests.support.netns import run

CLIENTS = bytes([198, 18])
"""The first half of every client's address."""
_WIRES = "link add out type dummy\naddress add 10.0.0.254/24 dev out\nlink set out up\nroute add default dev out\n"
_ETH_P_ALL, _SO_RCVBUFFORCE = 3, 33
_BUFFER = 1 << 26

Flow = bytes
"""A client's address and port."""


def packets(dice: random.Random, count: int, vip: Address, port: int = 53) -> list[bytes]:
    """UDP from random clients, whole with their IP headers."""
    made = []
    for _ in range(count):
        client = CLIENTS + dice.randbytes(2)
        udp = struct.pack("!HHHH", dice.randrange(1024, 65536), port, 9, 0) + b"x"
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, client, vip.packed)
        made.append(header + udp)
    return made


def flow(packet: bytes) -> Flow:
    return packet[12:16] + packet[20:22]


class Wire:
    """In the calling thread's network namespace, which must be fresh."""

    def __init__(self) -> None:
        run("ip", "-batch", "-", stdin=_WIRES)
        self._out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        self._tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._tap.bind(("out", _ETH_P_ALL))
        self._tap.setblocking(False)

    def close(self) -> None:
        self._out.close()
        self._tap.close()

    def send(self, packets: list[bytes]) -> dict[Flow, bytes]:
        """The address of the backend that each was sent to; one that was refused is missing."""
        for packet in packets:
            with suppress(OSError):
                self._out.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
        went: dict[Flow, bytes] = {}
        while True:
            try:
                seen = self._tap.recv(64)
            except BlockingIOError:
                return went
            if seen[9] == socket.IPPROTO_IPIP:
                went[flow(seen[20:])] = seen[16:20]
