"""Encode services and destinations as the kernel's IPVS messages. Pure: values in, bytes out.

The layout is that of the kernel's ``include/uapi/linux/ip_vs.h``. ``reader`` decodes.
"""

from __future__ import annotations

import struct
import sys
from functools import lru_cache
from socket import AF_INET, AF_INET6
from typing import Any

from anycastlb.adapters.system.netlink import attribute, attribute_head
from anycastlb.core.model import (
    AnycastlbError,
    Destination,
    DestinationKey,
    Forward,
    Protocol,
    ServiceKey,
    VirtualService,
)

NEW_SERVICE, SET_SERVICE, DEL_SERVICE, GET_SERVICE = 1, 2, 3, 4
NEW_DESTINATION, SET_DESTINATION, DEL_DESTINATION, GET_DESTINATION = 5, 6, 7, 8

SERVICE, DESTINATION = 1, 2
"""Top-level attributes."""
S_AF, S_PROTOCOL, S_ADDRESS, S_PORT, S_FWMARK, S_SCHEDULER, S_FLAGS, S_TIMEOUT, S_NETMASK = range(1, 10)
S_STATS, S_STATS64 = 10, 12
(
    D_ADDRESS,
    D_PORT,
    D_METHOD,
    D_WEIGHT,
    D_UPPER,
    D_LOWER,
    D_ACTIVE,
    D_INACTIVE,
    D_PERSISTENT,
    D_STATS,
    D_FAMILY,
    D_STATS64,
    D_TUNNEL_TYPE,
    D_TUNNEL_PORT,
    D_TUNNEL_FLAGS,
) = range(1, 16)

PROTOCOLS: dict[Protocol, int] = {"tcp": 6, "udp": 17, "sctp": 132}
PERSISTENT, ONE_PACKET = 0x1, 0x4
FLAGS = {
    "flag-1": 0x08,
    "flag-2": 0x10,
    "flag-3": 0x20,
    "sh-fallback": 0x08,
    "sh-port": 0x10,
    "mh-fallback": 0x08,
    "mh-port": 0x10,
}
METHODS: dict[Forward, tuple[int, int]] = {"nat": (0, 0), "tunnel": (2, 0), "gue": (2, 1), "gre": (2, 2), "dr": (3, 0)}
"""Forwarding method and tunnel type."""
GUE_PORT = 6080
"""The registered GUE port, for a ``gue`` destination that names none."""
SCHEDULER_LENGTH = 15


class Inexpressible(AnycastlbError):
    """A value the kernel's messages have no room for; the text says which and what would fit."""


def _attribute(kind: int, format: str, value: Any) -> bytes:
    return attribute(kind, struct.pack(format, value))


def _service_identity(key: ServiceKey) -> bytes:
    family = _attribute(S_AF, "=H", AF_INET if key.address.version == 4 else AF_INET6)
    if key.protocol == "fwmark":
        return family + _attribute(S_FWMARK, "=I", key.port)
    return b"".join(
        (
            family,
            _attribute(S_PROTOCOL, "=H", PROTOCOLS[key.protocol]),
            _attribute(S_ADDRESS, "16s", key.address.packed),
            _attribute(S_PORT, "!H", key.port),
        )
    )


@lru_cache(65_536)
def service_name(key: ServiceKey) -> bytes:
    """The attributes that name a service: all a delete, a dump and a destination's message need."""
    return attribute(SERVICE, _service_identity(key))


def service(key: ServiceKey, row: VirtualService, scheduler: str = "") -> bytes:
    """The attributes of a service as ``row`` says, under ``scheduler`` if given. Raises ``Inexpressible``."""
    name = scheduler or row.scheduler
    if not (name.isascii() and name.isprintable() and 0 < len(name) <= SCHEDULER_LENGTH):
        raise Inexpressible(f"scheduler {name!r}: expected a name of 1 to {SCHEDULER_LENGTH} ASCII characters")
    bits = ONE_PACKET * row.one_packet | PERSISTENT * bool(row.persistence)
    for flag in row.flags:
        if flag not in FLAGS:
            raise Inexpressible(f"scheduler flag {flag!r}: expected one of {', '.join(sorted(FLAGS))}")
        bits |= FLAGS[flag]
    try:
        return attribute(
            SERVICE,
            b"".join(
                (
                    _service_identity(key),
                    _attribute(S_SCHEDULER, f"{len(name) + 1}s", name.encode()),
                    _attribute(S_FLAGS, "8s", struct.pack("=II", bits, 0xFFFFFFFF)),
                    _attribute(S_TIMEOUT, "=I", row.persistence),
                    _netmask(key.address.version, row),
                )
            ),
        )
    except struct.error as exc:
        raise Inexpressible(f"{key}: a number is out of range ({exc})") from exc


def _netmask(version: int, row: VirtualService) -> bytes:
    """IPv4: a mask in network order; IPv6: a prefix length."""
    full = 32 if version == 4 else 128
    prefix = row.persistence_prefix or full
    if not 1 <= prefix <= full:
        raise Inexpressible(f"persistence prefix {prefix}: expected 1 to {full} for IPv{version}")
    if version == 4:
        return _attribute(S_NETMASK, "!I", 0xFFFFFFFF << 32 - prefix & 0xFFFFFFFF)
    return _attribute(S_NETMASK, "=I", prefix)


def _head(length: int, kind: int) -> int:
    """An attribute's header, as the one 32-bit number it is."""
    return int.from_bytes(attribute_head(kind, length), sys.byteorder)


_DESTINATION = struct.Struct("=II16s I2sxx IH2x II II II II IB3x I2s2x")
_DESTINATION_NAME = struct.Struct("=II16s I2sxx IH2x")
_DESTINATION_HEAD = _head(_DESTINATION.size - 4, DESTINATION)
_DESTINATION_NAME_HEAD = _head(_DESTINATION_NAME.size - 4, DESTINATION)
H_ADDRESS, H_PORT, _H_FAMILY = _head(16, D_ADDRESS), _head(2, D_PORT), _head(2, D_FAMILY)
_H_METHOD, _H_WEIGHT = _head(4, D_METHOD), _head(4, D_WEIGHT)
_H_UPPER, _H_LOWER = _head(4, D_UPPER), _head(4, D_LOWER)
_H_TUNNEL_TYPE, _H_TUNNEL_PORT = _head(1, D_TUNNEL_TYPE), _head(2, D_TUNNEL_PORT)


def destination(key: DestinationKey, row: Destination, weight: int) -> bytes:
    """The attributes of a destination as ``row`` says, at ``weight``; its service's name goes before them.

    Raises ``Inexpressible``.
    """
    address = key.address
    try:
        method, tunnel_type = METHODS[row.forward]
    except KeyError:
        raise Inexpressible(f"forward {row.forward!r}: expected one of {', '.join(sorted(METHODS))}") from None
    tunnel_port = (row.tunnel_port or GUE_PORT) if tunnel_type == 1 else 0
    try:
        return _DESTINATION.pack(
            _DESTINATION_HEAD,
            H_ADDRESS,
            address.packed,
            H_PORT,
            key.port.to_bytes(2, "big"),
            _H_FAMILY,
            AF_INET if address.version == 4 else AF_INET6,
            _H_METHOD,
            method,
            _H_WEIGHT,
            weight,
            _H_UPPER,
            row.upper,
            _H_LOWER,
            row.lower,
            _H_TUNNEL_TYPE,
            tunnel_type,
            _H_TUNNEL_PORT,
            tunnel_port.to_bytes(2, "big"),
        )
    except (struct.error, OverflowError) as exc:
        raise Inexpressible(f"{key}: a number is out of range ({exc})") from exc


def destination_name(key: DestinationKey) -> bytes:
    """The attributes that name a destination; its service's name goes before them."""
    return _DESTINATION_NAME.pack(
        _DESTINATION_NAME_HEAD,
        H_ADDRESS,
        key.address.packed,
        H_PORT,
        key.port.to_bytes(2, "big"),
        _H_FAMILY,
        AF_INET if key.address.version == 4 else AF_INET6,
    )
