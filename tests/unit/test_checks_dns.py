"""``dns``: what an operator may write, and what the bytes of an answer mean."""

import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from anycastlb.adapters.checks import Down
from anycastlb.adapters.checks.dns import Params, judged
from anycastlb.adapters.checks.probe.dns_message import DnsAnswer, parsed

QUESTION = dns.message.make_query("www.example.org", "A", id=7)
WIRE = dns.message.make_response(QUESTION).to_wire()


@pytest.mark.parametrize("name", ["www.example.org", "www.example.org.", " www.example.org. "])
def test_names_are_fully_qualified_with_or_without_the_dot(name: str) -> None:
    assert Params(name=name).name == "www.example.org."


def test_the_root_and_other_scripts_are_names() -> None:
    assert Params(name=".").name == "."
    assert Params(name="bücher.example").name == "xn--bcher-kva.example."


@pytest.mark.parametrize(
    ("written", "meant"), [("a", "A"), ("AAAA", "AAAA"), ("any", "ANY"), ("TYPE28", "AAAA"), ("TYPE65280", "TYPE65280")]
)
def test_types(written: str, meant: str) -> None:
    assert Params(name="a", qtype=written).qtype == meant


@pytest.mark.parametrize(("written", "meant"), [("noerror", "NOERROR"), (3, "NXDOMAIN"), ("5", "REFUSED")])
def test_rcodes(written: object, meant: str) -> None:
    assert Params.model_validate({"name": "a", "rcode": written}).rcode == meant


@pytest.mark.parametrize(
    "document",
    [
        {}, {"name": ""}, {"name": 5}, {"name": "a..b"}, {"name": "x" * 64}, {"name": "a", "qtype": "AXFR"},
        {"name": "a", "qtype": "NOPE"}, {"name": "a", "qtype": "TYPE70000"}, {"name": "a", "rcode": "FINE"},
        {"name": "a", "rcode": True}, {"name": "a", "rcode": -1}, {"name": "a", "protocol": "sctp"},
        {"name": "a", "answer": ""}, {"name": "a", "answer": "re:("}, {"name": "a", "type": "A"},
    ],
)  # fmt: skip
def test_what_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate(document)


def test_an_error_without_the_question_is_an_answer() -> None:
    assert parsed(QUESTION, bytes.fromhex("0007 8181 0000 0000 0000 0000")) == DnsAnswer("FORMERR", ())
    with pytest.raises(Down, match="another question"):
        parsed(QUESTION, bytes.fromhex("0007 8180 0000 0000 0000 0000"))


def test_a_cut_answer_is_not_read() -> None:
    cut = WIRE[:2] + bytes([WIRE[2] | 2]) + WIRE[3:6] + b"\0\5" + WIRE[8:]
    assert parsed(QUESTION, cut) == DnsAnswer("NOERROR", (), cut=True)


def test_names_that_point_at_themselves_end() -> None:
    with pytest.raises(Down, match="no DNS message"):
        parsed(QUESTION, WIRE[:12] + b"\xc0\x0c" + bytes(4))


@given(st.binary(max_size=80), st.booleans(), st.integers(0, len(WIRE)))
def test_noise_is_no_answer_and_nothing_breaks(noise: bytes, headed: bool, kept: int) -> None:
    wire = WIRE[:kept] + noise if headed else noise
    try:
        parsed(QUESTION, wire)
    except Down as exc:
        assert str(exc)


def test_what_is_expected_is_told() -> None:
    wanted = Params(name="www.example.org", answer="192.0.2.9")
    with pytest.raises(Down, match="SERVFAIL, expected NOERROR"):
        judged(DnsAnswer("SERVFAIL", ()), wanted)
    with pytest.raises(Down, match=r"the answer '192.0.2.8' does not contain"):
        judged(DnsAnswer("NOERROR", ("192.0.2.8",)), wanted)
    assert judged(DnsAnswer("NOERROR", ("192.0.2.8", "192.0.2.9")), wanted).detail == "NOERROR: '192.0.2.8; 192.0.2.9'"
