"""``grpc``: up if the gRPC health service (``grpc.health.v1.Health/Check``) says SERVING.

Needs the optional extra: ``pip install anycastlb[grpc]``. One call on a connection of its own, in plain HTTP/2 or
inside TLS. It speaks HTTP/2 on a socket of ours rather than with gRPC's own library, which opens its sockets itself and
could not go through IPVS.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from anycastlb.adapters.checks.probe.outcome import Down, Found
from anycastlb.adapters.checks.probe.params import File
from anycastlb.adapters.checks.probe.sockets import error_text
from anycastlb.adapters.checks.probe.stream import Stream, connected
from anycastlb.adapters.checks.probe.tls import Contexts, failure
from anycastlb.core.fields import Document, shown
from anycastlb.core.model import Check, ProbePath, endpoint

if TYPE_CHECKING:
    from h2.connection import H2Connection

CONTEXTS = Contexts()
PATH = "/grpc.health.v1.Health/Check"
EXTRA = "the gRPC check is not installed on this node: pip install anycastlb[grpc]"
SERVING = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
"""``HealthCheckResponse.ServingStatus``, by number."""
CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""gRPC status codes, by number."""
MAX_BYTES = 4096
"""An answer is some ten bytes."""


def _token(value: str) -> str:
    if not all("!" <= character <= "~" for character in value):
        raise ValueError(f"a host name, with or without a port, not {shown(value)}")
    return value


class Params(Document):
    service: Annotated[str, Field(max_length=1024)] = ""
    """The service to ask about, such as ``shop.v1.Cart``; empty = the server as a whole."""
    host: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_token)] | None = None
    """The name to call the server by (``:authority``), which its certificate must be for; its address unless given."""
    tls: bool = False
    """Inside TLS, the certificate verified."""
    ca_file: File | None = None
    """CA certificates (PEM, an absolute path on the node) to verify against, instead of the system's."""

    @model_validator(mode="after")
    def _agrees(self) -> Params:
        if self.ca_file is not None and not self.tls:
            raise ValueError("tls: true with ca_file")
        return self


async def probe(check: Check, probe_path: ProbePath | None) -> Found:
    params = check.params
    assert isinstance(params, Params)
    try:
        from h2.exceptions import ProtocolError
    except ImportError as exc:
        raise Down(EXTRA) from exc
    try:
        async with connected(check.address, check.port, probe_path) as stream:
            if params.tls:
                await _secure(stream, params.ca_file or "", _hostname(params.host) or str(check.address))
            return judged(await _called(stream, check, params), params.service)
    except ProtocolError as exc:
        raise Down(f"no HTTP/2 answer: {shown(str(exc) or type(exc).__name__, 120)}") from exc
    except OSError as exc:
        raise Down(error_text(exc)) from exc


async def _secure(stream: Stream, ca_file: str, name: str) -> None:
    try:
        context = CONTEXTS.get(True, ca_file)
        context.set_alpn_protocols(["h2"])
        await stream.encrypt(context, name)
    except OSError as exc:
        raise Down(failure(exc)) from exc
    except ValueError as exc:
        raise Down(f"{shown(name)} is no name for TLS: give host") from exc


def _hostname(authority: str | None) -> str:
    """Without the port: what a certificate is for."""
    return re.sub(r":\d+$", "", authority or "").strip("[]")


@dataclass(slots=True)
class Received:
    """What has come of an answer so far."""

    headers: dict[str, str] = field(default_factory=dict)
    """Headers and trailers, by name."""
    data: bytes = b""


async def _called(stream: Stream, check: Check, params: Params) -> Received:
    """The whole answer to one call. Raises ``Down``, OSError, ``h2.exceptions.ProtocolError``."""
    from h2 import events
    from h2.config import H2Configuration
    from h2.connection import H2Connection

    connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    _ask(connection, check, params)
    answer = Received()
    while True:
        await stream.send(connection.data_to_send())
        received = await stream.receive()
        if not received:
            raise Down("the connection was closed without an answer")
        for event in connection.receive_data(received):
            if isinstance(event, (events.ResponseReceived, events.TrailersReceived)):
                answer.headers |= {_text(name): _text(value) for name, value in event.headers or ()}
            elif isinstance(event, events.DataReceived):
                answer.data += event.data or b""
                if len(answer.data) > MAX_BYTES:
                    raise Down(f"more than {MAX_BYTES} bytes of answer, expected a health status")
            elif isinstance(event, events.StreamEnded):
                return answer
            elif isinstance(event, events.StreamReset):
                raise Down(f"the server reset the call (HTTP/2 error {event.error_code!s})")
            elif isinstance(event, events.ConnectionTerminated):
                raise Down(f"the server ended the connection (HTTP/2 error {event.error_code!s})")


def _ask(connection: H2Connection, check: Check, params: Params) -> None:
    stream, name = connection.get_next_available_stream_id(), params.service.encode()
    headers = [
        (":method", "POST"),
        (":scheme", "https" if params.tls else "http"),
        (":path", PATH),
        (":authority", params.host or endpoint(check.address, check.port)),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", f"{max(1, int(1000 * check.timeout))}m"),
        ("user-agent", "anycastlb"),
    ]
    connection.send_headers(stream, headers)
    request = b"\x0a" + _varint(len(name)) + name if name else b""  # HealthCheckRequest: 1: string service
    connection.send_data(stream, struct.pack("!BI", 0, len(request)) + request, end_stream=True)


def judged(answer: Received, service: str) -> Found:
    """Raises ``Down``."""
    status, kind = answer.headers.get(":status"), answer.headers.get("content-type", "")
    if status != "200" or not kind.startswith("application/grpc"):
        raise Down(f"HTTP {status} of type {shown(kind)}, expected a gRPC answer")
    code = answer.headers.get("grpc-status", "")
    if code != "0":
        name = CODES[int(code)] if code.isascii() and code.isdigit() and int(code) < len(CODES) else shown(code)
        what = {
            "5": f"the server knows no service {shown(service)}",
            "12": "the server has no health service (grpc.health.v1.Health)",
        }.get(code, shown(answer.headers.get("grpc-message", ""), 120))
        raise Down(f"gRPC status {name}: {what}")
    serving = _status(answer.data)
    if serving != "SERVING":
        raise Down(f"{serving}, expected SERVING")
    return Found(serving)


def _status(data: bytes) -> str:
    """The ``status`` in a ``HealthCheckResponse``, framed as gRPC does. Raises ``Down``."""
    try:
        flag, length = struct.unpack_from("!BI", data)
        if flag or len(data) != 5 + length:
            raise ValueError
        number = dict(_fields(data[5:])).get(1, 0)
    except (ValueError, IndexError, struct.error):
        raise Down(f"the answer {shown(data, 120)} is no health status") from None
    return SERVING[number] if number < len(SERVING) else f"status {number}"


def _fields(data: bytes) -> Iterator[tuple[int, int]]:
    """The numeric fields of a protocol buffer; others are passed over. Raises ValueError, IndexError."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            at += 1
            value |= (data[at - 1] & 0x7F) << shift
            if not data[at - 1] & 0x80:
                return value
        raise ValueError("a number of more than ten bytes")

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            length = varint()
            at += length
        else:
            raise ValueError("a field of an unknown kind")


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
