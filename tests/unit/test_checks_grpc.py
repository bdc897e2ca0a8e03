"""``grpc``: what an operator may write, and what the bytes of an answer mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from anycastlb.adapters.checks import Down
from anycastlb.adapters.checks.grpc import Params, Received, judged

HEADERS = {":status": "200", "content-type": "application/grpc+proto", "grpc-status": "0"}


def received(data: bytes = b"", **headers: str) -> Received:
    return Received(HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}, data)


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"\x08\x01", "SERVING"),
        (b"\x12\x03abc\x08\x01", "SERVING"),
        (b"\x15abcd\x08\x01\x11abcdefgh", "SERVING"),
        (b"", "UNKNOWN"),
        (b"\x08\x02", "NOT_SERVING"),
        (b"\x08\x03", "SERVICE_UNKNOWN"),
        (b"\x08\x01\x08\x02", "NOT_SERVING"),
        (b"\x08\x80\x01", "status 128"),
    ],
)
def test_statuses(message: bytes, status: str) -> None:
    if status == "SERVING":
        assert judged(received(framed(message)), "").detail == "SERVING"
        return
    with pytest.raises(Down, match=f"^{status}, expected SERVING$"):
        judged(received(framed(message)), "")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (received(grpc_status="5"), "gRPC status NOT_FOUND: the server knows no service 'shop'"),
        (received(grpc_status="12"), "gRPC status UNIMPLEMENTED: the server has no health service"),
        (received(grpc_status="14", grpc_message="try later"), "gRPC status UNAVAILABLE: 'try later'"),
        (received(grpc_status="99"), "gRPC status '99': ''"),
        (received(grpc_status="²"), "gRPC status '²': ''"),
        (received(grpc_status=""), "gRPC status ''"),
        (
            Received({":status": "404", "content-type": "text/html"}, b""),
            "HTTP 404 of type 'text/html', expected a gRPC",
        ),
        (Received({}, b""), "HTTP None of type ''"),
        (received(b"\x01\0\0\0\x02\x08\x01"), "is no health status"),
        (received(b"\0\0\0\0\x09\x08\x01"), "is no health status"),
        (received(framed(b"\x08")), "is no health status"),
        (received(framed(b"\x0b")), "is no health status"),
        (received(framed(b"\x08" + b"\xff" * 12)), "is no health status"),
        (received(b""), "is no health status"),
    ],
)
def test_other_answers(answer: Received, reason: str) -> None:
    with pytest.raises(Down) as caught:
        judged(answer, "shop")
    assert reason in str(caught.value)


@given(st.binary(max_size=40))
def test_noise_is_no_status_and_nothing_breaks(noise: bytes) -> None:
    for data in (noise, framed(noise)):
        try:
            assert judged(received(data), "").detail == "SERVING"
        except Down as exc:
            assert str(exc).isprintable()


@pytest.mark.parametrize(
    "document",
    [{"ca_file": "/ca.pem"}, {"tls": True, "ca_file": "ca.pem"}, {"host": ""}, {"host": "a b"}, {"host": "a\n"},
     {"service": "x" * 1025}, {"tls": "perhaps"}],
)  # fmt: skip
def test_what_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate(document)
