"""What the daemon and its checker process say to each other: JSON messages, each after its length.

Down: the ``Bounds`` of its checks first, ``run`` (checks by number), ``stop`` (numbers), ``marks``.
Up: ``results`` of probes by number, ``load`` and ``running``; at least once a second, as a sign of life. A good result
that says what the last good one of its check said is only how long it took and when it was, in microseconds: nearly
all are.

A check is rebuilt from plain values. Nothing that the checker process sends, which talks to strangers, can be anything
but numbers and text.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from sys import intern
from typing import Any, get_args

from anycastlb.adapters.checks import CheckType, Found
from anycastlb.adapters.checks.probe.params import Codes
from anycastlb.core.fields import Document
from anycastlb.core.model import Address, AnycastlbError, Check, Combination, ForwardPath, Network, Result
from anycastlb.engine.attempt import Attempt, Outcome
from anycastlb.settings import ChecksSettings, Settings

LENGTH = struct.Struct("!I")
OUTCOMES = get_args(Outcome)
MAX_MESSAGE = 256 * 1024 * 1024
"""Bytes of one message. More is no message of ours."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a node's settings say of its checks."""

    settings: ChecksSettings
    closed: tuple[tuple[Address, int], ...] = ()
    """Where checks must never go."""
    foreign: tuple[Network, ...] = ()
    """The networks of VIPs, from which nobody is probed."""


def bounds(settings: Settings) -> Bounds:
    return Bounds(settings.checks, settings.closed, settings.node.vip_ranges)


class Broken(AnycastlbError):
    """A fault of ours kept the other process from making or judging a check."""


class NotOurs(AnycastlbError):
    """What came through the socket is no message of the other process."""


def frame(message: Mapping[str, Any]) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    return LENGTH.pack(len(body)) + body


async def receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The next message. Raises EOFError at the end, OSError, ``NotOurs``."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > MAX_MESSAGE:
        raise NotOurs(f"a message of {length} bytes, expected at most {MAX_MESSAGE}")
    try:
        message = json.loads(await reader.readexactly(length))
    except ValueError as exc:
        raise NotOurs(f"a message that is no JSON: {exc}") from exc
    if not isinstance(message, dict):
        raise NotOurs(f"a message that is no object: {message!r:.60}")
    return message


def plain_bounds(bounds: Bounds) -> dict[str, Any]:
    closed = [[str(address), port] for address, port in bounds.closed]
    settings = bounds.settings.model_dump(mode="json", exclude={"marks"})  # those come by themselves
    return {"settings": settings, "closed": closed, "foreign": [str(network) for network in bounds.foreign]}


def read_bounds(plain: Mapping[str, Any]) -> Bounds:
    closed = tuple((ip_address(address), port) for address, port in plain["closed"])
    foreign = tuple(ip_network(text) for text in plain["foreign"])
    return Bounds(ChecksSettings.model_validate(plain["settings"]), closed, foreign)


def plain_check(check: Check) -> list[Any]:
    via = plain_path(check.via) if check.via else None
    times = (check.interval, check.timeout, check.rise, check.fall, check.fast_interval, check.down_interval)
    return [check.type, str(check.address), check.port, _plain(check.params), *times, via, check.elsewhere]


def read_check(plain: list[Any], types: Mapping[str, CheckType]) -> Check:
    """The check again; its parameters were judged by the daemon when it read the catalog."""
    kind, address, port, params, interval, timeout, rise, fall, fast, down, via, elsewhere = plain
    if isinstance(params, dict):
        read: Any = _parameters(types[kind].params, json.dumps(params))
    else:
        read = Combination(tuple(read_check(part, types) for part in params))
    way = read_path(via) if via else None
    return Check(kind, ip_address(address), port, read, interval, timeout, rise, fall, fast, down, way, elsewhere)


@lru_cache(1024)
def _parameters(model: type[Document], text: str) -> Document:
    """One object for all checks that have the same, as those of a service have."""
    return model.model_construct(**{name: _read(value) for name, value in json.loads(text).items()})


def plain_attempt(ended: Attempt) -> list[Any]:
    outcome, result, lost = ended
    return [result.detail, outcome, result.duration, result.at, result.weight, result.drain, lost]


def says_the_same(good: Result, result: Result | Found) -> bool:
    """Does a good result say what another one said?"""
    return result.detail == good.detail and result.weight == good.weight and result.drain is good.drain


def plain_again(took: float, at: float) -> tuple[int, int]:
    """A good result that says what the last one said, in microseconds."""
    return round(took * 1e6), round(at * 1e6)


def again(good: Result, took: int, at: int) -> Attempt:
    """The good result again."""
    return Attempt("good", Result(True, good.detail, took / 1e6, at / 1e6, good.weight, good.drain))


def read_attempt(detail: str, plain: list[Any]) -> Attempt:
    """Raises ValueError, TypeError."""
    outcome, took, at, weight, drain, lost = plain
    if outcome not in OUTCOMES or not isinstance(weight, int | None):
        raise ValueError(f"a result {plain!r:.80}")
    result = Result(outcome == "good", intern(detail), float(took), float(at), weight, drain is True)
    return Attempt(outcome, result, float(lost))


def plain_path(via: ForwardPath) -> list[Any]:
    return [str(via.address), via.forward, via.tunnel_port, via.family, via.port]


def read_path(plain: list[Any]) -> ForwardPath:
    return ForwardPath(ip_address(plain[0]), *plain[1:])


def _plain(value: Any) -> Any:
    match value:
        case Combination(checks):
            return [plain_check(check) for check in checks]
        case Document():
            return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
        case Codes(ranges):
            return {"codes": _plain(ranges)}
        case tuple():
            return [_plain(item) for item in value]
    assert value is None or isinstance(value, (str, int, float)), value
    return value


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_read(item) for item in value)
    return Codes(_read(value["codes"])) if isinstance(value, dict) else value
