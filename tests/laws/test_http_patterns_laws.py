"""The law of regular expressions: PCRE2, which HAProxy matches with, finds in its key what RE2 finds in the subject."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from anycastlb.core.http.patterns import pattern
from tests.support.pcre2 import compiled

ATOMS = [
    "a", "b", "/", "^", "$", ".", r"\s", r"\S", r"\d", r"\w", r"\b", r"\B", "[ab]", "[^a]", "[[:alpha:]]", r"[\s/]",
    "[]a]", "{", "{,2}", r"\A", r"\z", "x y", "(?:a|b)", "(a)", "(^|/)", r"\Q^.\E", r"\x41", "(?i)", "(?P<n>b)",
    "(?m)", "|", "=", "-", r"\-", "[a-b-]", "(?s)", r"\.", "[[a]", "{2}", r"\v", r"\t", r"\E", "#", r"[\]^]", "(?i:A)",
]  # fmt: skip
pieces = st.builds(
    str.__add__,
    st.sampled_from(ATOMS),
    st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,3}", "*?", "+?"]),
)
expressions = st.lists(pieces, min_size=1, max_size=6).map("".join)
subjects = st.text("ab/ ^.AB=x y|{}\t\x0b-1", max_size=7)


@given(expressions, st.lists(subjects, min_size=3, max_size=6))
def test_haproxy_matches_what_re2_matches(text: str, words: list[str]) -> None:
    try:
        expression = pattern(text)
    except ValueError:
        assume(False)
        return
    engine = compiled(expression.key("p17"))
    for word in words:
        found, groups = expression.search(word), engine.groups(f"p17|={word}")
        assert (found is None) == (groups is None), (text, word)
        if found is not None and groups is not None:
            theirs = [*groups[1:], *[""] * expression.groups][: expression.groups]
            assert [(group or b"").decode() for group in found.groups()] == theirs, (text, word)
        assert engine.groups(f"p18|={word}") is None
