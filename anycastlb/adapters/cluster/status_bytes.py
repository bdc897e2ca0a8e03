"""Write a status as the value of one key, and read what another node wrote.

Pure. What another node wrote may be garbage, or come from another version. Unknown fields are ignored, so that a newer
node can publish more; what cannot be read is an error in words (docs/decisions/0009).

A status of up to ``PLAIN`` bytes is plain JSON of format 1, which nodes of every version read. A larger one is the same
JSON, compressed (format 2): 10,000 services of one VIP need about 290 kB of the 512 KiB that Consul takes. An older
node says of it that it is of format 2, and decides as it does while it knows nothing of that node. What does not fit
even so is left out, and ``Status.omitted`` names it.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from anycastlb.core.model import Address, AnycastlbError, ServiceSummary, Status, VipSummary

FORMAT, PACKED = 1, 2
"""A format grows when an older node could no longer read what a newer one writes."""
MAX_BYTES = 480 * 1024
"""A value in Consul is at most 512 KiB."""
PLAIN = 256 * 1024
"""Of a hundred nodes that all publish so much, one read is still half of what the client takes."""
MAX_UNPACKED = 64 * 1024 * 1024
OMISSIONS = ("vips.reason", "digests", "services.down", "services")
"""What is left out, in this order: sentences first, and last what other nodes decide by."""


@dataclass(frozen=True, slots=True)
class _Published:
    format: int
    status: Status


@dataclass(frozen=True, slots=True)
class _Packed:
    packed: str


@dataclass(frozen=True, slots=True)
class _Format:
    format: int


_PUBLISHED, _PACKED, _FORMAT = TypeAdapter(_Published), TypeAdapter(_Packed), TypeAdapter(_Format)
_LARGE: Mapping[str, TypeAdapter[Any]] = {
    "vips": TypeAdapter(Mapping[Address, VipSummary]),
    "services": TypeAdapter(Mapping[str, Mapping[Address, ServiceSummary]]),
}
"""The parts of a status that have a row for each VIP or service, and are mostly as they were."""


class Texts:
    """The large parts of the status that was written last, with their texts. One that is the same object is not
    written again."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, bytes]] = {}

    def of(self, name: str, part: Mapping[Any, Any]) -> bytes:
        known = self._known.get(name)
        if known is None or known[0] is not part:
            known = self._known[name] = part, _LARGE[name].dump_json(dict(part))
        return known[1]


class UnreadableStatus(AnycastlbError):
    """What was published is no status; the text says why."""


def encode(status: Status, limit: int = MAX_BYTES) -> bytes:
    """The value to publish (``fit``)."""
    return fit(status, limit)[0]


def fit(status: Status, limit: int = MAX_BYTES, *, texts: Texts | None = None) -> tuple[bytes, tuple[str, ...]]:
    """The status as at most ``limit`` bytes if that is possible, and what was left out for it.

    ``texts``: of the status before.
    """
    raw = _dump(status, texts or Texts())
    if len(raw) <= min(limit, PLAIN):
        return raw, status.omitted
    value = _pack(raw)
    for name in OMISSIONS:
        if len(value) <= limit:
            break
        status = replace(_without(status, name), omitted=(*status.omitted, name))
        value = _pack(_dump(status, Texts()))
    return value, status.omitted


def decode(value: bytes, name: str) -> Status:
    """The status that the node ``name`` wrote. Raises ``UnreadableStatus``."""
    try:
        status = _published(value)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:100]
        raise UnreadableStatus(
            f"expected a node's status: {where + ': ' if where else ''}{first['msg']:.200}"
        ) from None
    if status.node != name:
        raise UnreadableStatus(f"it is the status of {status.node!r:.80}, not of {name!r:.80}")
    return status


def _published(value: bytes) -> Status:
    number = _FORMAT.validate_json(value, strict=True).format
    if number == PACKED:
        value = _unpack(_PACKED.validate_json(value, strict=True).packed)
        number = _FORMAT.validate_json(value, strict=True).format
    if number != FORMAT:
        raise UnreadableStatus(
            f"it is of format {number}, and this node reads format {PACKED} and older: run one version on all"
        )
    return _PUBLISHED.validate_json(value, strict=True).status


def _dump(status: Status, texts: Texts) -> bytes:
    raw = _PUBLISHED.dump_json(_Published(FORMAT, replace(status, vips={}, services={})))
    for name in _LARGE:  # in a text of JSON this cannot stand: there, a quote has a backslash before it
        raw = raw.replace(f'"{name}":{{}}'.encode(), f'"{name}":'.encode() + texts.of(name, getattr(status, name)), 1)
    return raw


def _pack(raw: bytes) -> bytes:
    return b'{"format":%d,"packed":"%s"}' % (PACKED, base64.b64encode(zlib.compress(raw, 6)))


def _unpack(packed: str) -> bytes:
    """What ``_pack`` was given. Raises ``UnreadableStatus``, also for what would fill the memory."""
    unpacking = zlib.decompressobj()
    try:
        raw = unpacking.decompress(base64.b64decode(packed, validate=True), MAX_UNPACKED)
    except (zlib.error, binascii.Error, ValueError) as exc:
        raise UnreadableStatus(f"expected a node's status: packed: {exc!s:.200}") from exc
    if not unpacking.eof:
        raise UnreadableStatus("expected a node's status: packed: it is cut off, or too large")
    return raw


def _without(status: Status, name: str) -> Status:
    if name == "vips.reason":
        return replace(status, vips={vip: replace(summary, reason="") for vip, summary in status.vips.items()})
    if name == "digests":
        return replace(status, digests={})
    if name == "services":
        return replace(status, services={})
    judged = {
        service: {vip: replace(summary, down=()) for vip, summary in vips.items()}
        for service, vips in status.services.items()
    }
    return replace(status, services=judged)
