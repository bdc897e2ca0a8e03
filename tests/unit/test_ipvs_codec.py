"""IPVS messages: written and read back, in any layout; garbage is never an exception. And what changes mean."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.adapters.drivers.ipvs import codec, reader
from anycastlb.adapters.drivers.ipvs.requests import refusal, script
from anycastlb.adapters.system.netlink import attributes
from anycastlb.core.model import Address, Change, Destination, DestinationKey, ServiceKey, VirtualService

WEB = ServiceKey("tcp", ip_address("192.0.2.10"), 80)
NAME = DestinationKey(WEB, ip_address("10.0.0.1"), 80)
MH = VirtualService("mh", frozenset({"mh-port", "mh-fallback"}))
UP = Destination("dr", 10, 10)

addresses = st.one_of(st.integers(1, 2**32 - 1).map(IPv4Address), st.integers(1, 2**128 - 1).map(IPv6Address))
ports = st.integers(0, 65535)
families: st.SearchStrategy[Address] = st.sampled_from([IPv4Address(0), IPv6Address(0)])
keys = st.one_of(
    st.builds(ServiceKey, st.sampled_from(["tcp", "udp", "sctp"]), addresses, ports),
    st.builds(ServiceKey, st.just("fwmark"), families, st.integers(1, 2**32 - 1)),
)
flags = {
    "mh": ["mh-port", "mh-fallback", "flag-3"],
    "sh": ["sh-port", "sh-fallback", "flag-3"],
    "rr": ["flag-1", "flag-2", "flag-3"],
    "a15charactersss": ["flag-2"],
}


@st.composite
def services(draw: st.DrawFn) -> VirtualService:
    scheduler = draw(st.sampled_from(sorted(flags)))
    persistence = draw(st.sampled_from([0, 1, 300, 2**32 - 1]))
    return VirtualService(
        scheduler,
        draw(st.frozensets(st.sampled_from(flags[scheduler]))),
        draw(st.booleans()),
        persistence,
        draw(st.sampled_from([0, 1, 8, 24, 31])) if persistence else 0,
    )


@st.composite
def destinations(draw: st.DrawFn) -> Destination:
    forward = draw(st.sampled_from(sorted(codec.METHODS)))
    weight = draw(st.sampled_from([0, 1, 100, 2**31 - 1]))
    bound = st.integers(0, 2**32 - 1)
    tunnel_port = draw(st.integers(1, 65535)) if forward == "gue" else 0
    return Destination(forward, weight, weight or None, draw(bound), draw(bound), tunnel_port)


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def dumped(message: bytes, counters: dict[int, bytes]) -> bytes:
    """A message as the kernel dumps it: the counters go before the family, which is the last of a destination."""
    inner = [(kind, message[at:stop]) for kind, at, stop in attributes(message, 4, len(message))]
    inner.sort(key=lambda item: item[0] == codec.D_FAMILY)
    body = b"".join(attribute(kind, payload) for kind, payload in inner[:-1])
    body += b"".join(attribute(kind, payload) for kind, payload in counters.items())
    body += attribute(*inner[-1])
    return attribute(codec.DESTINATION, body)


@given(keys, services())
def test_a_service_is_read_as_it_was_written(key: ServiceKey, row: VirtualService) -> None:
    message = codec.service(key, row)
    fresh = reader.IpvsReader()
    for _ in range(3):
        assert fresh.service(message, 0, len(message)) == (key, row)


@given(keys, addresses, ports, destinations())
def test_a_destination_is_read_as_it_was_written(
    service: ServiceKey, address: Address, port: int, row: Destination
) -> None:
    message = codec.destination(DestinationKey(service, address, port), row, row.weight)
    assert reader.destination(message, 0, len(message)) == (address, port, row)


@given(st.lists(st.tuples(addresses, ports, destinations(), st.integers(0, 2**32 - 1), st.booleans()), max_size=20))
def test_what_the_reader_remembers_is_always_what_a_full_reading_gives(
    many: list[tuple[Address, int, Destination, int, bool]],
) -> None:
    fast = reader.IpvsReader()
    for address, port, row, count, wide in many:
        message = codec.destination(DestinationKey(WEB, address, port), row, row.weight)
        number = struct.pack("=I", count)
        counters = {codec.D_ACTIVE: number, codec.D_INACTIVE: number, codec.D_PERSISTENT: number}
        if wide:
            counters |= {codec.D_STATS: bytes(40), codec.D_STATS64: bytes(88)}
        found = dumped(message, counters)
        noise = b"noise" * 3 + found + b"more"
        assert fast.destination(noise, 15, 15 + len(found)) == (address, port, row)
        counted = reader.counters(found, 0, len(found), of_destination=True)
        assert (counted.active, counted.inactive) == (count, count)


@given(st.binary(max_size=200), st.integers(0, 40))
def test_garbage_is_never_an_exception(data: bytes, start: int) -> None:
    fast = reader.IpvsReader()
    for _ in range(2):
        fast.service(data, start, len(data))
        fast.destination(data, start, len(data))
    reader.counters(data, start, len(data), of_destination=True)


@given(st.data())
def test_a_damaged_message_is_never_an_exception(data: st.DataObject) -> None:
    fast = reader.IpvsReader()
    message = dumped(codec.destination(NAME, UP, 10), {codec.D_ACTIVE: bytes(4)})
    service = codec.service(WEB, MH)
    fast.destination(message, 0, len(message))
    fast.service(service, 0, len(service))
    for good, read in ((message, fast.destination), (service, fast.service)):
        broken = bytearray(good)
        for _ in range(data.draw(st.integers(1, 3))):
            broken[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
        read(bytes(broken), 0, len(broken))


def test_a_service_of_another_protocol_or_family_has_no_name() -> None:
    for kind, number in ((codec.S_PROTOCOL, 50), (codec.S_AF, 7)):
        inner = {kind: at for kind, at, _ in attributes(codec.service(WEB, MH), 4, len(codec.service(WEB, MH)))}
        message = bytearray(codec.service(WEB, MH))
        struct.pack_into("=H", message, inner[kind], number)
        assert reader.service(bytes(message), 0, len(message)) is None


def test_a_method_we_have_no_word_for_is_like_none_of_ours() -> None:
    message = bytearray(codec.destination(NAME, UP, 10))
    inner = {kind: at for kind, at, _ in attributes(bytes(message), 4, len(message))}
    struct.pack_into("=I", message, inner[codec.D_METHOD], 4)
    entry = reader.destination(bytes(message), 0, len(message))
    assert entry is not None
    assert entry[2].forward not in codec.METHODS


@pytest.mark.parametrize("name", ["", "x" * 16, "r\0r", "r\nr", "ümlaut"])
def test_an_impossible_scheduler_name_is_not_sent(name: str) -> None:
    with pytest.raises(codec.Inexpressible, match="scheduler"):
        codec.service(WEB, VirtualService(name))


@pytest.mark.parametrize("port", [-1, 65536])
def test_an_impossible_port_is_not_sent(port: int) -> None:
    with pytest.raises(codec.Inexpressible, match="out of range"):
        codec.destination(replace(NAME, port=port), UP, 10)


# ---------------------------------------------------------------- what changes mean


def told(*changes: Change) -> list[tuple[int, object]]:
    """Each request's command, with the scheduler or the weight it says."""
    entries: list[tuple[int, object]] = []
    for command, payload in script(changes).requests:
        inner = {kind: payload[at:stop] for kind, at, stop in attributes(payload, 4, len(payload))}
        if command in (codec.NEW_SERVICE, codec.SET_SERVICE):
            entries.append((command, inner[codec.S_SCHEDULER].rstrip(b"\0").decode()))
        elif command in (codec.NEW_DESTINATION, codec.SET_DESTINATION):
            length = struct.unpack_from("=H", payload)[0]
            inner = {kind: payload[at:stop] for kind, at, stop in attributes(payload, length + 4, len(payload))}
            entries.append((command, struct.unpack("=I", inner[codec.D_WEIGHT])[0]))
        else:
            entries.append((command, None))
    return entries


CREATE = Change("services", WEB, None, MH)
ADD = Change("destinations", NAME, None, UP)
DOWN = replace(UP, weight=0)
NEW, SET, DELETE = codec.NEW_DESTINATION, codec.SET_DESTINATION, codec.DEL_DESTINATION


def test_a_new_service_is_filled_under_none_and_switched_once() -> None:
    other = Change("destinations", replace(NAME, port=81), None, DOWN)
    assert told(CREATE, ADD, other) == [
        (codec.NEW_SERVICE, "none"),
        (NEW, 10),
        (NEW, 10),
        (SET, 0),
        (codec.SET_SERVICE, "mh"),
    ]


def test_the_switch_comes_before_the_first_delete() -> None:
    gone = Change("destinations", DestinationKey(replace(WEB, port=81), NAME.address, 80), UP, None)
    assert told(CREATE, ADD, gone) == [
        (codec.NEW_SERVICE, "none"),
        (NEW, 10),
        (codec.SET_SERVICE, "mh"),
        (DELETE, None),
    ]


def test_a_service_that_goes_takes_its_destinations_without_a_word() -> None:
    assert told(Change("destinations", NAME, UP, None), Change("services", WEB, MH, None)) == [
        (codec.DEL_SERVICE, None)
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change("destinations", NAME, None, UP), [(NEW, 10)]),
        (Change("destinations", NAME, None, DOWN), [(NEW, 10), (SET, 0)]),
        (Change("destinations", NAME, None, Destination("dr", 0, None)), [(NEW, 0)]),
        (Change("destinations", NAME, None, Destination("dr", 0, 0)), [(NEW, 0)]),
        (Change("destinations", NAME, UP, DOWN), [(SET, 0)]),
        (Change("destinations", NAME, UP, replace(DOWN, last_weight=4)), [(SET, 4), (SET, 0)]),
        (Change("destinations", NAME, replace(DOWN, last_weight=None), DOWN), [(SET, 10), (SET, 0)]),
        (Change("destinations", NAME, DOWN, replace(DOWN, upper=5)), [(SET, 0)]),
        (Change("destinations", NAME, DOWN, replace(DOWN, last_weight=0)), [(DELETE, None), (NEW, 0)]),
        (Change("destinations", NAME, DOWN, UP), [(SET, 10)]),
        (Change("destinations", NAME, UP, UP, moved=True), [(DELETE, None), (NEW, 10)]),
        (Change("destinations", NAME, UP, DOWN, moved=True), [(DELETE, None), (NEW, 10), (SET, 0)]),
        (Change("destinations", NAME, UP, None), [(DELETE, None)]),
    ],
)
def test_a_change_of_a_destination(change: Change, expected: list[tuple[int, object]]) -> None:
    assert told(change) == expected


def test_a_refusal_nobody_thought_of_still_names_the_object() -> None:
    work = script([CREATE, ADD])
    for request in work.requests:
        for change in (CREATE, ADD):
            why = refusal(change, request, errno.ENOTNAM)
            assert why.code == "kernel_refused"
            assert str(change.key) in why.text
            assert "ENOTNAM" in why.text
