"""What probes look for: the same answers as Python's own engine, whatever the pieces the bytes come in."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.adapters.checks.probe import patterns
from anycastlb.adapters.checks.probe.patterns import Search, unescape

EXPRESSIONS = [
    "^OK$", "a.*b", r"\bok\b", r"\Bk", "x{2,4}y", "x{2,}y", "(foo|ba?r)?z", r"[^a-c]\d", "(?i)heL+o", r"\Aab",
    "a??b", "(?s)a.b", "", r"\x00\xff", "(a|ab)(c|bcd)(d*)", "(?:a*)*b", "^$", "()*a", "[a-c-]+-", r"[\s\w]\W\S",
    "(?i:a)B", "a|b|^c$", "[^a]{3}", r"k\r?$",
]  # fmt: skip
TEXT = st.text(alphabet="aabbcdxyzokOKheloHEL \n\r-0129\0", max_size=12).map(str.encode)


def matches(expression: str, pieces: list[bytes]) -> bool:
    search = Search("re:" + expression)
    for piece in pieces:
        search.feed(piece)
    return search.end()


@pytest.mark.parametrize("expression", EXPRESSIONS)
@given(pieces=st.lists(TEXT, max_size=3))
def test_it_agrees_with_python(expression: str, pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert matches(expression, pieces) is bool(re.search(expression.encode(), whole, re.MULTILINE))


@given(needle=st.text(alphabet="ab", min_size=1, max_size=4), pieces=st.lists(st.text(alphabet="ab", max_size=4)))
def test_a_substring_is_found_across_pieces(needle: str, pieces: list[str]) -> None:
    search = Search(needle)
    for piece in pieces:
        search.feed(piece.encode())
    assert search.end() is (needle in "".join(pieces))


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("(a+)+$", b"a" * 65536 + b"!"),
        ("x.*y.*z", b"x" * 65536),
        ("(.*)*(.*)*!", b"a" * 65536),
        (".*" * 50 + "!", b"a" * 65536),
    ],
)
def test_what_would_backtrack_for_ever_does_not(expression: str, text: bytes) -> None:
    """Python's own engine would not come back from the first and third in this life."""
    assert not matches(expression, [text])


@pytest.mark.parametrize(
    "expression",
    [r"(a)\1", "(?=a)", "(?<!a)b", "(?>a)", "a*+", "a{1001}", "(((", "(a{200}){200}", "[z-a]"],
)
def test_what_is_refused_is_told(expression: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        Search("re:" + expression)


def test_escapes() -> None:
    assert unescape(r"PING\r\n\x00\xfF\\x\0\té") == b"PING\r\n\x00\xff\\x\0\t" + "é".encode()
    for bad in (r"\q", r"\x1", r"\xzz", "end\\", "\ud800"):
        with pytest.raises(ValueError, match=r"\\xNN"):
            unescape(bad)


def test_it_is_told_as_it_was_written() -> None:
    assert patterns.mismatch(r"re:^220 .*\r\n") == r'does not match "re:^220 .*\r\n"'
    assert patterns.mismatch("OK") == 'does not contain "OK"'
    assert len(patterns.mismatch("x" * 1000)) < 120
