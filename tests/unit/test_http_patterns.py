"""Regular expressions of routes: what is taken, how it is translated, and that none takes HAProxy's time."""

from __future__ import annotations

import pytest

from anycastlb.core.http.patterns import LIMIT, exactly, pattern
from tests.support.pcre2 import compiled

REFUSED = {
    "(?=x)y": "no look-around",
    r"(a)\1": "no back-references",
    "a**": "bad repetition",
    "[a": "missing",
    r"\pL": r"without \p",
    r"\C": r"without \C",
    r"\101": r"without \1",
    "é": "printable ASCII",
    "a\nb": "printable ASCII",
    r"\x{e9}": r"up to \x7f",
    r"\xff": r"up to \x7f",
    "a(?i)*": "something to repeat",
    "": "1 to 1024 characters",
    "a" * 1025: "1 to 1024 characters",
    "((a{100}){100}){100}": "repetition",
    "(a{30}){30}" * 3: "fewer repetitions",
    "(" * 101 + "a" + ")" * 101: "inside of each other",
}


@pytest.mark.parametrize(("text", "why"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_haproxy_would_read_otherwise_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("\\", r"\\")):
        pattern(text)


def test_an_anchor_is_the_start_of_the_subject_although_the_key_has_a_prefix() -> None:
    engine = compiled(pattern("^/blog|^/b$").key("p17"))
    assert engine.groups("p17|=/blog/x") and engine.groups("p17|=/b")
    assert engine.groups("p17|=/x/blog") is None and engine.groups("p17|=x=/b") is None


def test_only_an_expression_without_alternatives_is_bound_to_the_start() -> None:
    assert ".*?" not in pattern("^/blog").key("p1")
    assert ".*?" in pattern("^/blog|x").key("p1") and ".*?" in pattern("(^/blog)").key("p1")
    assert compiled(pattern("^*/blog").key("p1")).groups("p1|=x/blog")


def test_equal_expressions_have_one_name_and_keys_have_no_space() -> None:
    assert pattern("a b").id == pattern(r"a\x20b").id != pattern("a  b").id
    assert pattern("a b").key("p1") == LIMIT + r"\Ap1\|=.*?(?:a\x20b)"


def test_the_expression_of_one_text_matches_nothing_else() -> None:
    text = "two words? [a]\\"
    engine = compiled(pattern(exactly(text)).key("p1"))
    assert engine.groups(f"p1|={text}")
    assert engine.groups(f"p1|={text}x") is None and engine.groups(f"p1|=x{text}") is None


CATASTROPHIC = [
    "^(a+)+$", "^(a|aa)+$", "^(a|a?)+$", "(a*)*b", "^(.*a){20}$", "(x+x+)+y", r"^(\w+\s?)*$", "(.*)*c", "^((a|b)*c)*$",
    "(a+a+)+b", "^(([a-z])+.)+[A-Z]([a-z])+$", r"(\d+)*x", "(?i)(A+)+$", "^(a?){25}a{25}$", "(.+)+b", "(a|b|ab)*c",
    "^(a+)*b(a+)*c", "(aa|aab?)*c", "^([a-zA-Z0-9])(([.-]|[_]+)?([a-zA-Z0-9]+))*$", "(a*)+$",
]  # fmt: skip


@pytest.mark.parametrize("text", CATASTROPHIC)
def test_a_catastrophic_expression_gives_up_instead_of_backtracking(text: str) -> None:
    """PCRE2 counts its own attempts. Without the limit each of these would try millions."""
    engine = compiled(pattern(text).key("p1"))
    for subject in ("a" * 40 + "!", "ab" * 20 + "!", "x" * 40, "a" * 8000 + "!"):
        assert (engine.groups(f"p1|={subject}") is None) or pattern(text).search(subject)
