"""Read and write IPVS's own settings in this network namespace: its time-outs and the daemons of connection sync.

The layout of the messages is the kernel's ``include/uapi/linux/ip_vs.h``. Everything is
read; whether a running daemon is ours is not decided here, and nothing is written unless a change asks for it
(docs/decisions/0007).
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol, TypeVar

from anycastlb.adapters.system.generic_netlink import PAYLOAD, GenericNetlink
from anycastlb.adapters.system.netlink import Request, attribute, attributes
from anycastlb.core.model import Change, Failure, Reason, Rows, SyncDaemon, Table

NEW_DAEMON, DEL_DAEMON, GET_DAEMON, SET_CONFIG, GET_CONFIG = 9, 10, 11, 12, 13
DAEMON = 3
"""Top-level attribute: one daemon, nested."""
TIMEOUTS: Mapping[str, int] = {"tcp_timeout": 4, "tcpfin_timeout": 5, "udp_timeout": 6}
"""Top-level attributes, in seconds."""
N_STATE, N_INTERFACE, N_ID, _N_LENGTH, N_GROUP, N_GROUP6, N_PORT, N_TTL = range(1, 9)
STATES: Mapping[str, int] = {"sync_master": 1, "sync_backup": 2}
INTERFACE_LENGTH = 15
T = TypeVar("T")


class Use(Protocol):
    """Blocking work with a socket of the family IPVS (``IpvsDriver.use``)."""

    def __call__(self, work: Callable[[GenericNetlink], T], /) -> Awaitable[T]: ...


class ConfigDriver:
    """Table ``config``: time-outs in whole seconds, and the sync daemons that run."""

    tables: tuple[Table, ...] = ("config",)

    def __init__(self, use: Use) -> None:
        self._use = use

    async def observe(self) -> Mapping[Table, Rows]:
        """All time-outs, and the daemons that run, whoever started them. Raises ``DriverError``."""
        return {"config": await self._use(read_config)}

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        return await self._use(lambda kernel: _apply(kernel, changes)) if changes else ()


def read_config(kernel: GenericNetlink) -> dict[str, int | SyncDaemon]:
    """The settings as the kernel has them. Raises ``DriverError``."""
    data = kernel.ask(GET_CONFIG)
    kinds = {kind: name for name, kind in TIMEOUTS.items()}
    rows: dict[str, int | SyncDaemon] = {
        kinds[kind]: int.from_bytes(data[start:end], sys.byteorder)
        for kind, start, end in attributes(data, PAYLOAD, len(data))
        if kind in kinds
    }
    for data, start, end in kernel.dump(GET_DAEMON):
        rows |= {name: row for kind, at, to in attributes(data, start, end) if kind == DAEMON
                 for name, row in _daemon(data, at, to)}  # fmt: skip
    return rows


def _daemon(data: bytes, start: int, end: int) -> Iterator[tuple[str, SyncDaemon]]:
    fields = {kind: data[at:to] for kind, at, to in attributes(data, start, end)}
    number = {kind: int.from_bytes(fields.get(kind, b""), sys.byteorder) for kind in (N_STATE, N_ID, N_PORT, N_TTL)}
    group = IPv6Address(fields[N_GROUP6]) if N_GROUP6 in fields else IPv4Address(fields.get(N_GROUP, bytes(4)))
    interface = fields.get(N_INTERFACE, b"").split(b"\0")[0].decode(errors="replace")
    for name, state in STATES.items():
        if state == number[N_STATE]:
            yield name, SyncDaemon(interface, number[N_ID], group, number[N_PORT], number[N_TTL])


def requests(change: Change) -> list[Request]:
    """What makes this change, in its order. A daemon is changed by being started anew."""
    if change.key in TIMEOUTS:
        return [(SET_CONFIG, attribute(TIMEOUTS[change.key], struct.pack("=I", change.new)))]
    stop = [(DEL_DAEMON, attribute(DAEMON, _number(N_STATE, STATES[change.key])))] if change.old is not None else []
    return (
        stop if change.new is None else [*stop, (NEW_DAEMON, attribute(DAEMON, _start(STATES[change.key], change.new)))]
    )


def _start(state: int, row: SyncDaemon) -> bytes:
    return b"".join(
        (
            _number(N_STATE, state),
            attribute(N_INTERFACE, row.interface.encode()[:INTERFACE_LENGTH] + b"\0"),
            _number(N_ID, row.sync_id),
            attribute(N_GROUP if row.group.version == 4 else N_GROUP6, row.group.packed),
            attribute(N_PORT, struct.pack("=H", row.port)),
            attribute(N_TTL, struct.pack("=B", row.ttl)),
        )
    )


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _apply(kernel: GenericNetlink, changes: Sequence[Change]) -> Sequence[Failure]:
    reasons: dict[int, Reason] = {}
    sent: list[tuple[int, Request]] = []
    for place, change in enumerate(changes):
        if change.key not in TIMEOUTS and change.key not in STATES:
            reasons[place] = Reason("no_such_setting", f"{change.key}: IPVS has no such setting", change.key)
        elif change.key in TIMEOUTS and change.new is None:
            reasons[place] = Reason("not_deletable", f"{change.key}: a time-out cannot be deleted", change.key)
        else:
            sent += [(place, request) for request in requests(change)]
    refused, unknown = kernel.exchange([request for _, request in sent])
    for index, number in sorted(refused.items()):
        place = sent[index][0]
        reasons.setdefault(place, refusal(changes[place], number))
    for index in unknown:
        reasons.setdefault(sent[index][0], Reason("answer_lost", "the kernel's answer was lost; the next look tells"))
    return [Failure(changes[place], reason) for place, reason in sorted(reasons.items())]


def refusal(change: Change, number: int) -> Reason:
    """Why the kernel refused a setting, with what to do about it."""
    code, text = _refusal(change, number)
    return Reason(code, f"{change.key}: {text}", change.key)


def _refusal(change: Change, number: int) -> tuple[str, str]:
    new: Any = change.new
    if number == errno.ESRCH:
        return "missing", "it does not run; somebody else stopped it since the last look"
    if isinstance(new, SyncDaemon):
        if number == errno.ENODEV:
            return "no_interface", f"there is no interface {new.interface}; name one in [ipvs] sync_interface"
        if number == errno.EINVAL:
            return "sync_family", (
                "the kernel refused it: connection sync cannot run while a VIP has a backend of the "
                "other address family; give such services a VIP of their backends' family, or turn sync off "
                "([ipvs] sync_interface)"
            )
        if number == errno.EEXIST:
            return "exists", "one runs already; somebody else started it since the last look"
        if number in (errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.ENETUNREACH):
            return "interface_down", (
                f"{new.interface} cannot send to {new.group}: {os.strerror(number)}; "
                "is it up, and has it an address of that family?"
            )
    return "kernel_refused", f"the kernel refused {new}: {os.strerror(number)} ({errno.errorcode.get(number, number)})"
