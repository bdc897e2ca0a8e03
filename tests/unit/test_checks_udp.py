"""``udp`` and ``icmp``: what an operator may write."""

import pytest
from pydantic import ValidationError

from anycastlb.adapters.checks import icmp
from anycastlb.adapters.checks.udp import Params, patience, payload


@pytest.mark.parametrize(
    ("text", "meant"),
    [("", b""), ("ping", b"ping"), ("a\\x00\\r\\n", b"a\x00\r\n"), ("hex:00 0aFF", b"\x00\x0a\xff"), ("hex:", b"")],
)
def test_the_datagram(text: str, meant: bytes) -> None:
    assert payload(Params(send=text).send) == meant


@pytest.mark.parametrize(
    "document",
    [
        {"send": "hex:0"}, {"send": "hex:xy"}, {"send": "\\q"}, {"send": "x" * 1401}, {"send": "hex:" + "00" * 1401},
        {"send": 5}, {"expect": ""}, {"expect": "re:["}, {"quiet": "0s"}, {"quiet": "soon"},
    ],
)  # fmt: skip
def test_what_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate(document)


def test_silence_is_never_waited_for_to_the_deadline() -> None:
    assert patience(None, 1.0) == 0.8
    assert patience(0.1, 1.0) == 0.1
    assert patience(5.0, 1.0) == 0.8


@pytest.mark.parametrize("size", [15, 65001, "big", True])
def test_pings_have_a_size(size: object) -> None:
    assert icmp.Params.model_validate({"size": "100"}).size == 100
    with pytest.raises(ValidationError):
        icmp.Params.model_validate({"size": size})
