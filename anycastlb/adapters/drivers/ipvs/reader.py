"""Decode IPVS services and destinations from the kernel's dumps. Pure: bytes in, values out, and a memory of both.

What the catalog has no value for (a scheduler, a forwarding method, a tunnel flag) becomes a value that no catalog can
ask for, never an error; a service that no ``ServiceKey`` can name is None.

Reading is fast because little is decoded: without its counters, the message of a service is the same bytes as at the
last look, and but for its address, that of a destination the same as another's. Where the counters are is learnt from
the messages, by their length.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6
from typing import cast

from anycastlb.adapters.drivers.ipvs import codec
from anycastlb.adapters.system.generic_netlink import PAYLOAD
from anycastlb.adapters.system.netlink import Datagram, attribute_head, attributes, messages
from anycastlb.core.model import Address, Destination, Forward, ServiceKey, TrafficCounters, VirtualService

ODD_PREFIX = -1
"""The persistence prefix of a netmask that is none, such as 255.0.255.0."""
REMEMBERED = 65_536
"""Messages remembered before all are forgotten; each is some 300 bytes."""

_PROTOCOLS = {number: name for name, number in codec.PROTOCOLS.items()}
_METHODS = {pair: name for name, pair in codec.METHODS.items()}
_FLAG_NAMES = {
    "mh": {0x08: "mh-fallback", 0x10: "mh-port", 0x20: "flag-3"},
    "sh": {0x08: "sh-fallback", 0x10: "sh-port", 0x20: "flag-3"},
}
_PLAIN_FLAG_NAMES = {0x08: "flag-1", 0x10: "flag-2", 0x20: "flag-3"}

SERVICE_COUNTERS = frozenset({codec.S_STATS, codec.S_STATS64})
DESTINATION_COUNTERS = frozenset({codec.D_ACTIVE, codec.D_INACTIVE, codec.D_PERSISTENT, codec.D_STATS, codec.D_STATS64})
_KEY = struct.Struct("=I16sI2s2x")
_TOTALS = struct.Struct("=" + "IQ" * 10)
"""The ten counters of 64 bits, each after the header of its attribute."""
_GAUGES = struct.Struct("=IIII")
_HEADS = tuple(int.from_bytes(attribute_head(kind, 8), sys.byteorder) for kind in range(1, 11))
_GAUGE_HEADS = tuple(int.from_bytes(attribute_head(k, 4), sys.byteorder) for k in (codec.D_ACTIVE, codec.D_INACTIVE))

Service = tuple[ServiceKey, VirtualService]
Real = tuple[Address, int, Destination]
"""A destination's address, port and attributes; its ``last_weight`` is None while its weight is 0."""
UNUSED = TrafficCounters(rates=(0, 0, 0, 0, 0))
"""The counters of a destination that nothing came for, as on a node that is not the nearest one."""


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw or b"", sys.byteorder)


def _address(raw: bytes, family: int) -> Address:
    return IPv6Address(raw) if family == AF_INET6 else IPv4Address(raw[:4])


def _nested(data: bytes, start: int, end: int) -> dict[int, bytes]:
    """The attributes inside the message's one nested attribute."""
    return {kind: data[at:stop] for kind, at, stop in attributes(data, start + 4, end)}


# ---------------------------------------------------------------- one message, read in full


def service(data: bytes, start: int, end: int) -> Service | None:
    """The service in one message of a dump, if a ``ServiceKey`` can name it."""
    fields = _nested(data, start, end)
    family = _number(fields.get(codec.S_AF))
    if family not in (AF_INET, AF_INET6):
        return None
    if codec.S_FWMARK in fields:
        key = ServiceKey("fwmark", _address(bytes(16), family), _number(fields[codec.S_FWMARK]))
    else:
        protocol = _PROTOCOLS.get(_number(fields.get(codec.S_PROTOCOL)))
        raw = fields.get(codec.S_ADDRESS, b"")
        if protocol is None or len(raw) != 16:
            return None
        key = ServiceKey(protocol, _address(raw, family), int.from_bytes(fields.get(codec.S_PORT, b""), "big"))
    scheduler = fields.get(codec.S_SCHEDULER, b"").rstrip(b"\0").decode("ascii", "replace")
    bits = _number(fields.get(codec.S_FLAGS, b"")[:4])
    names = _FLAG_NAMES.get(scheduler, _PLAIN_FLAG_NAMES)
    persistent = bool(bits & codec.PERSISTENT)
    return key, VirtualService(
        scheduler=scheduler,
        flags=frozenset(name for bit, name in names.items() if bits & bit),
        one_packet=bool(bits & codec.ONE_PACKET),
        persistence=_number(fields.get(codec.S_TIMEOUT)) if persistent else 0,
        persistence_prefix=_prefix(fields.get(codec.S_NETMASK, b""), family) if persistent else 0,
    )


def _prefix(raw: bytes, family: int) -> int:
    """The prefix length of a netmask attribute; 0 = full length, as in a ``VirtualService`` that asks for none."""
    if family == AF_INET6:
        prefix = _number(raw)
        return 0 if prefix == 128 else prefix
    mask = int.from_bytes(raw, "big")
    length = mask.bit_count()
    if mask != 0xFFFFFFFF << 32 - length & 0xFFFFFFFF:
        return ODD_PREFIX
    return 0 if length == 32 else length


def destination(data: bytes, start: int, end: int) -> Real | None:
    """The destination in one message of a dump."""
    fields = _nested(data, start, end)
    raw = fields.get(codec.D_ADDRESS, b"")
    if len(raw) != 16:
        return None
    address = _address(raw, _number(fields.get(codec.D_FAMILY)))
    port = int.from_bytes(fields.get(codec.D_PORT, b""), "big")
    method = _number(fields.get(codec.D_METHOD)) & 0x7
    tunnel_type = _number(fields.get(codec.D_TUNNEL_TYPE)) if method == 2 else 0
    tunnel_flags = _number(fields.get(codec.D_TUNNEL_FLAGS)) if method == 2 else 0
    forward = _METHODS.get((method, tunnel_type), cast(Forward, f"method-{method}.{tunnel_type}"))
    if tunnel_flags:
        forward = cast(Forward, f"{forward}+{tunnel_flags:#x}")
    weight = _number(fields.get(codec.D_WEIGHT))
    return (
        address,
        port,
        Destination(
            forward=forward,
            weight=weight,
            last_weight=weight or None,
            upper=_number(fields.get(codec.D_UPPER)),
            lower=_number(fields.get(codec.D_LOWER)),
            tunnel_port=int.from_bytes(fields.get(codec.D_TUNNEL_PORT, b""), "big") if tunnel_type == 1 else 0,
        ),
    )


def counters(data: bytes, start: int, end: int, of_destination: bool) -> TrafficCounters:
    """The counters in one message of a dump."""
    fields = _nested(data, start, end)
    totals: list[int] = [0] * 10
    raw = fields.get(codec.D_STATS64 if of_destination else codec.S_STATS64, b"")
    for kind, at, stop in attributes(raw, 0, len(raw)):
        if 1 <= kind <= 10:
            totals[kind - 1] = _number(raw[at:stop])
    conns, in_packets, out_packets, in_bytes, out_bytes, *rates = totals
    # A service has neither; its attributes of these numbers are others.
    now = (fields.get(codec.D_ACTIVE), fields.get(codec.D_INACTIVE)) if of_destination else (None, None)
    active, inactive = (_number(raw) for raw in now)
    return TrafficCounters(conns, in_packets, out_packets, in_bytes, out_bytes, active, inactive, tuple(rates))


# ---------------------------------------------------------------- many messages, most of them seen before


def _cuts(data: bytes, start: int, end: int, without: frozenset[int]) -> Iterator[tuple[int, int]]:
    """The stretches of a message, from ``start`` on, that hold no attribute of these."""
    begin = finish = 4
    for kind, _, stop in attributes(data, start + 4, end):
        if kind in without:
            if finish > begin:
                yield begin, finish
            begin = (stop - start) + 3 & ~3
        finish = (stop - start) + 3 & ~3
    if finish > begin:
        yield begin, finish


class IpvsReader:
    """Reads dumps and remembers: equal services, and equal attributes of destinations, are the very same values.

    Of a destination no more is remembered: it is read once, and then its bytes are compared (``masks``).
    """

    def __init__(self) -> None:
        self._service_cuts: dict[int, tuple[tuple[int, int], ...]] = {}
        self._services: dict[bytes, Service | None] = {}
        self._cut: dict[int, tuple[int, int, int, int]] = {}
        self._reals: dict[bytes, Real] = {}
        self._attributes: dict[bytes, tuple[int, Destination]] = {}
        self._masks: dict[tuple[int, ...], int] = {}
        self._counters: dict[int, tuple[int, int]] = {}

    def service(self, data: bytes, start: int, end: int) -> Service | None:
        cuts = self._service_cuts.get(end - start)
        if cuts:
            lasting = b"".join([data[start + a : start + b] for a, b in cuts])
            if lasting in self._services:
                return self._services[lasting]
        cuts = self._service_cuts[end - start] = tuple(_cuts(data, start, end, SERVICE_COUNTERS))
        lasting = b"".join([data[start + a : start + b] for a, b in cuts])
        if len(self._services) > REMEMBERED:
            self._services.clear()
        entry = self._services[lasting] = service(data, start, end)
        return entry

    def destination(self, data: bytes, start: int, end: int) -> Real | None:
        known = self._known(data, start, end)
        if known is None:
            return self._learn(data, start, end)
        _, raw, _, port = _KEY.unpack_from(data, start + self._cut[end - start][0])
        return _address(raw, known[0]), int.from_bytes(port, "big"), known[1]

    def _known(self, data: bytes, start: int, end: int) -> tuple[int, Destination] | None:
        """The family and the attributes of a destination that is laid out as usual, and has those of one before it."""
        if (cut := self._cut.get(end - start)) is None:
            return None
        a, b, c, d = cut
        address_head, _, port_head, _ = _KEY.unpack_from(data, start + a)
        if address_head != codec.H_ADDRESS or port_head != codec.H_PORT:
            return None
        return self._attributes.get(data[start + a + _KEY.size : start + b] + data[start + c : start + d])

    def _learn(self, data: bytes, start: int, end: int) -> Real | None:
        """Read a message in full, and remember where to cut the like of it if it is laid out as usual."""
        real = destination(data, start, end)
        cuts = tuple(_cuts(data, start, end, DESTINATION_COUNTERS))
        if real is None or len(cuts) != 2 or cuts[0][1] - cuts[0][0] < _KEY.size:
            return real
        (a, b), (c, d) = cuts
        address_head, _, port_head, _ = _KEY.unpack_from(data, start + a)
        if address_head != codec.H_ADDRESS or port_head != codec.H_PORT:
            return real
        self._cut[end - start] = a, b, c, d
        if len(self._attributes) > REMEMBERED:
            self._attributes.clear()
        lasting = data[start + a + _KEY.size : start + b] + data[start + c : start + d]
        self._attributes[lasting] = (AF_INET6 if real[0].version == 6 else AF_INET, real[2])
        return real

    def masks(self, answer: Iterable[Datagram]) -> tuple[int, ...] | None:
        """Which bits of each datagram of an answer, that was read as destinations, are no counters.

        None if some of it is not laid out as usual.
        """
        masks = []
        for data, size in answer:
            spans = [(start + PAYLOAD, end) for start, end, _ in messages(data, size)]
            if any(self._known(data, start, end) is None for start, end in spans):
                return None
            lengths = tuple(end - start for start, end in spans)
            mask = self._masks.get(lengths)
            if mask is None:
                mask = int.from_bytes(b"".join(map(self._mask, lengths)), "little")
                self._masks[lengths] = mask
            masks.append(mask)
        return tuple(masks)

    def _mask(self, length: int) -> bytes:
        """The bits of one message with attributes of this length that are neither counters nor its number."""
        a, b, c, d = self._cut[length]
        mask = bytearray(PAYLOAD + length + 3 & ~3)
        for start, end in ((0, 8), (PAYLOAD - 4, PAYLOAD + 4), (PAYLOAD + a, PAYLOAD + b), (PAYLOAD + c, PAYLOAD + d)):
            mask[start:end] = b"\xff" * (end - start)
        return bytes(mask)

    def counters(self, data: bytes, start: int, end: int) -> TrafficCounters:
        """The counters of a destination, from where they were in the last message of this length, if they are there."""
        if places := self._counters.get(end - start):
            totals = _TOTALS.unpack_from(data, start + places[0])
            active_head, active, inactive_head, inactive = _GAUGES.unpack_from(data, start + places[1])
            if totals[::2] == _HEADS and (active_head, inactive_head) == _GAUGE_HEADS:
                conns, in_packets, out_packets, in_bytes, out_bytes, *rates = totals[1::2]
                if not (active or inactive or any(totals[1::2])):
                    return UNUSED
                return TrafficCounters(
                    conns, in_packets, out_packets, in_bytes, out_bytes, active, inactive, tuple(rates)
                )
        offsets = {kind: at - start for kind, at, _ in attributes(data, start + 4, end)}
        totals_at, gauges_at = offsets.get(codec.D_STATS64), offsets.get(codec.D_ACTIVE, 0) - 4
        fits = totals_at is not None and start + totals_at + _TOTALS.size <= end
        if totals_at is not None and fits and 0 <= gauges_at < totals_at:
            self._counters[end - start] = totals_at, gauges_at
        return counters(data, start, end, of_destination=True)
