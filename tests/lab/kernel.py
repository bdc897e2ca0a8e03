"""What the kernel of a machine says, asked without a program: in a test kernel with one processor, starting ``ip`` or
``ipvsadm`` for every look at a table would take the time from the daemons that the tests wait for.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from anycastlb.core.model import Address
from tests.lab.namespaces import LabError, Namespace

_HEADER = struct.Struct("=IHHII")
"""``struct nlmsghdr``: length, type, flags, sequence, port."""
_ROUTE = struct.Struct("=8BI")
"""``struct rtmsg``: family, destination's length, source's length, tos, table, protocol, scope, type, flags."""
_HOP = 8
"""The size of ``struct rtnexthop``."""
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE, _GETADDR, _GETROUTE = 2, 3, 22, 26
_ADDRESS, _LOCAL = 1, 2  # IFA_*
_DST, _GATEWAY, _MULTIPATH = 1, 5, 9  # RTA_*
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_MAIN = 254
_LOOPBACK = 1
"""The index of ``lo`` in every namespace."""


def proc(namespace: Namespace, name: str) -> str:
    """A file of ``/proc/net`` as the machine sees it."""
    with namespace.inside():
        return Path("/proc/thread-self/net", name).read_text()


# ------------------------------------------------------------ IPVS


def ipvs(listing: str) -> dict[str, dict[str, int]]:
    """From ``/proc/net/ip_vs``: service (``tcp 192.0.2.10:80``) -> destination (``10.1.0.1:80``) -> weight."""
    table: dict[str, dict[str, int]] = {}
    rows: dict[str, int] = {}
    for words in map(str.split, listing.splitlines()[3:]):
        if words[0] == "->":
            rows[_place(words[1])] = int(words[3])
        elif words[0] == "FWM":
            rows = table.setdefault(f"fwmark {int(words[1], 16)}", {})
        else:
            rows = table.setdefault(f"{words[0].lower()} {_place(words[1])}", {})
    return table


def _place(text: str) -> str:
    """``C000020A:0050`` and ``[2001:0db8:...:000a]:0050`` as people write them."""
    host, _, port = text.rpartition(":")
    if host.startswith("["):
        return f"[{ip_address(host.strip('[]'))}]:{int(port, 16)}"
    return f"{IPv4Address(int(host, 16))}:{int(port, 16)}"


def in_order(listing: str) -> str:
    """``/proc/net/ip_vs`` without its counters: destinations in the order of the list, services sorted."""
    blocks: list[str] = []
    for line in re.sub(r"(->.*\S)\s+\d+\s+\d+\s*$", r"\1", listing, flags=re.M).splitlines()[3:]:
        if line.startswith(" "):
            blocks[-1] += "\n" + line
        else:
            blocks.append(line.rstrip())
    return "\n".join(sorted(blocks))


# ------------------------------------------------------------ addresses and routes


def loopback(namespace: Namespace) -> set[Address]:
    """All addresses on ``lo``."""
    addresses = set()
    for body in _dump(namespace, _GETADDR):
        index = int.from_bytes(body[4:8], sys.byteorder)
        attributes = _attributes(body[8:])
        if index == _LOOPBACK:
            addresses.add(ip_address(attributes.get(_LOCAL) or attributes[_ADDRESS]))
    return addresses


def routes(namespace: Namespace, version: int, protocol: int) -> dict[str, frozenset[str]]:
    """The main table's routes of one origin (``RTPROT_*``): destination -> gateways."""
    table = {}
    for body in _dump(namespace, _GETROUTE, _FAMILY[version]):
        _, length, _, _, number, origin, _, _, _ = _ROUTE.unpack_from(body)
        if (number, origin) == (_MAIN, protocol):
            attributes = _attributes(body[_ROUTE.size :])
            table[_destination(attributes.get(_DST), length)] = frozenset(_gateways(attributes))
    return table


def _destination(raw: bytes | None, length: int) -> str:
    """As ``ip route`` writes it."""
    if raw is None:
        return "default"
    return str(ip_address(raw)) if length == 8 * len(raw) else f"{ip_address(raw)}/{length}"


def _gateways(attributes: dict[int, bytes]) -> Iterator[str]:
    hops = attributes.get(_MULTIPATH, b"")
    nested = []
    while hops:
        size = int.from_bytes(hops[:2], sys.byteorder)
        nested.append(_attributes(hops[_HOP:size]))
        hops = hops[size:]
    for hop in nested or [attributes]:
        if _GATEWAY in hop:
            yield str(ip_address(hop[_GATEWAY]))


def _attributes(raw: bytes) -> dict[int, bytes]:
    fields = {}
    while len(raw) >= 4:
        size, kind = struct.unpack_from("=HH", raw)
        fields[kind] = raw[4:size]
        raw = raw[(size + 3) & ~3 :]
    return fields


def _dump(namespace: Namespace, kind: int, family: int = 0) -> Iterator[bytes]:
    """The body of each message with which the kernel answers."""
    with namespace.inside():
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with sock:
        body = bytes([family]).ljust(_ROUTE.size, b"\0")
        sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _DUMP, 1, 0) + body)
        while True:
            data = sock.recv(64 * 1024)
            while data:
                size, told, *_ = _HEADER.unpack_from(data)
                if told == _DONE:
                    return
                if told == _ERROR:
                    raise LabError(f"{namespace.full}: the kernel refuses to list what it has ({kind})")
                yield data[_HEADER.size : size]
                data = data[(size + 3) & ~3 :]
