"""Regular expressions of routes: checked and matched by RE2, and translated so that HAProxy's PCRE2 means the same.

Users write RE2's syntax, which a set of rules can be evaluated with in linear time here. HAProxy matches with PCRE2
over a key of its own, in which the subject stands behind the pattern's name: ``p17|=/blog/x``. So

* ``^`` and ``\\A`` become a look-behind for that beginning (``(?m)`` with a newline would be wrong for the empty
  subject);
* what the two engines read differently is written so that both agree: ``\\s``, a ``{`` that starts no count, a ``[``
  inside of a class;
* groups lose their names;
* a space becomes ``\\x20``, since a key of a map has none.

What cannot be translated is refused: characters beyond ASCII, ``\\C``, ``\\p``. A subject has no newline, so ``$`` is
its end for both. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

MAX_PATTERN = 1024
"""Characters."""
MAX_PROGRAM = 2000
"""Steps that RE2 makes of a pattern. PCRE2 refuses what becomes larger than 64 KiB, which takes 13,000 of them."""
MAX_NESTING = 100
"""Groups inside of groups. PCRE2 allows 250."""
LIMIT = "(*LIMIT_MATCH=20000)"
"""What PCRE2 may try for one match, some 0.2 ms; what needs more does not match."""
SHARDS = 8
"""Lists over which the patterns are spread: HAProxy goes through one of them for each match."""

MAX_MEMORY = 1024 * 1024
"""Bytes that RE2 may take for a pattern. What needs more takes long to compile, and is refused."""

TOKEN = re.compile(
    r"""\\Q(?P<quoted>.*?)(?:\\E|\Z)
    | \\x\{(?P<wide>[0-9A-Fa-f]*)\}
    | \\x(?P<byte>[0-9A-Fa-f]{2})
    | \\(?P<escaped>.)
    | (?P<posix>\[:\^?[a-z]+:\])
    | (?P<count>\{[0-9]+(?:,[0-9]*)?\})
    | (?P<named>\(\?P?<\w+>)
    | (?P<flags>\(\?[imsU-]+\))
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
REPEAT = re.compile(r"[*+?]|\{[0-9]+(?:,[0-9]*)?\}")
ASSERTIONS = frozenset({"^", "$", r"\A", r"\z", r"\b", r"\B"})
SPACE = r"\t\n\f\r\x20"
"""``\\s`` of RE2. PCRE2 counts the vertical tab too."""
STRANGE = frozenset("CpPX0123456789")
"""Escapes that PCRE2 does not know without Unicode, or that mean something else there."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One regular expression, as RE2 reads it and as PCRE2 does."""

    text: str
    """As the document says."""
    translated: str
    """For PCRE2, with ``{start}`` wherever it is bound to the start of the subject."""
    bound: bool
    """It can only match at the start of the subject."""
    groups: int
    """How many groups it captures."""
    compiled: Any

    @property
    def id(self) -> str:
        """Equal for equal expressions, and for no others."""
        return "p" + sha256(self.translated.encode()).hexdigest()[:12]

    def key(self, name: str) -> str:
        """The key of a map, under which the expression matches ``NAME|=SUBJECT``."""
        start = rf"(?<=\A{name}\|=)"
        rest = self.translated.replace(START, start)
        return rf"{LIMIT}\A{name}\|={'' if self.bound else '.*?'}(?:{rest})"

    def search(self, subject: str) -> re.Match[bytes] | None:
        """The first match in a subject, by RE2: an object like one of ``re``, over bytes."""
        found: re.Match[bytes] | None = self.compiled.search(subject.encode("latin-1", "replace"))
        return found


START = "\0"
"""Stands for the look-behind: it cannot be in a pattern."""
BOUND = re.compile(r"\0[^|]*")
"""A translated expression that must begin at the start of the subject: it says so, and has no alternatives."""


@lru_cache(10_000)
def pattern(text: str) -> Pattern:
    """The expression in a text. Raises ValueError, which says what was expected."""
    if not 1 <= len(text) <= MAX_PATTERN:
        raise ValueError(f"a regular expression of 1 to {MAX_PATTERN} characters, not {len(text)}")
    if not (text.isascii() and text.isprintable()):
        raise ValueError(r"a regular expression of printable ASCII (\xNN for what is not, up to \x7f)")
    compiled = _compiled(text)
    if compiled.programsize > MAX_PROGRAM:
        raise ValueError(
            f"a regular expression of fewer repetitions: at most {MAX_PROGRAM} steps, not {compiled.programsize}"
        )
    translated = _translated(text)
    bound = BOUND.fullmatch(translated) is not None
    return Pattern(text, translated, bound, compiled.groups, compiled)


def _compiled(text: str) -> Any:
    import re2  # 2 MB, which a node without gateways never needs

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # bytes, as HAProxy sees them
    options.log_errors = False
    options.max_mem = MAX_MEMORY
    try:
        return re2.compile(text.encode(), options)
    except re2.error as exc:
        cause = exc.args[0].decode(errors="replace") if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        raise ValueError(f"a regular expression of RE2 (no back-references, no look-around): {cause}") from exc


def exactly(text: str) -> str:
    """The expression that nothing but this text matches."""
    return rf"\A{''.join(map(_literal, text))}\z"


def _translated(text: str) -> str:
    """Raises ValueError for what PCRE2 would read otherwise."""
    out: list[str] = []
    place = depth = 0
    while place < len(text):
        if text[place] == "[":
            part, place = _class(text, place)
        else:
            match = TOKEN.match(text, place)
            assert match is not None, "the last alternative matches anything"
            part, place = _outside(match), match.end()
            depth += (part == "(") - (part == ")")
            if depth > MAX_NESTING:
                raise ValueError(f"at most {MAX_NESTING} groups inside of each other")
            if REPEAT.match(text, place):
                part = _repeatable(match, part)
        out.append(part)
    return "".join(out)


def _repeatable(match: re.Match[str], part: str) -> str:
    """The translated token, so that it can be repeated. RE2 repeats what matches no character, and PCRE2 does not."""
    if match["flags"]:
        raise ValueError(f"something to repeat, not {match[0]}")
    return f"(?:{part})" if match[0] in ASSERTIONS else part


def _outside(match: re.Match[str]) -> str:
    """One token outside of a class."""
    kind, value = match.lastgroup, match[match.lastgroup or 0]
    match kind:
        case "quoted":
            return "".join(map(_literal, value))
        case "wide" | "byte":
            return _byte(value)
        case "escaped":
            return {"A": START, "s": f"[{SPACE}]", "S": f"[^{SPACE}]", " ": r"\x20", "v": r"\x0b"}.get(
                value, _escape(value)
            )
        case "posix":  # outside of a class it is a class of these letters
            raise ValueError(f"a class such as [{value}], not {value}")
        case "count" | "flags":
            return value
        case "named":  # PCRE2's names are shorter, and nobody asks for them
            return "("
    return {"^": START, " ": r"\x20", "{": r"\{"}.get(value, value)


def _class(text: str, place: int) -> tuple[str, int]:
    """The class that begins at ``place``, and where it ends. RE2 has found it to be a good one."""
    begins = "[^" if text.startswith("[^", place) else "["
    place += len(begins)
    out = [begins]
    first = True
    while first or text[place] != "]":
        first = False
        match = TOKEN.match(text, place)
        assert match is not None, "the last alternative matches anything"
        place = match.end()
        out.append(_inside(match))
    return "".join(out) + "]", place + 1


def _inside(match: re.Match[str]) -> str:
    """One token of a class."""
    kind, value = match.lastgroup, match[match.lastgroup or 0]
    match kind:
        case "wide" | "byte":
            return _byte(value)
        case "escaped":
            return {"s": SPACE, " ": r"\x20", "v": r"\x0b"}.get(value, _escape(value))
        case "posix" | "count" | "named" | "flags":
            return value
        case "quoted":
            raise ValueError(r"no \Q inside of a class")
    return {"[": r"\[", "]": r"\]", " ": r"\x20"}.get(value, value)


def _escape(letter: str) -> str:
    if letter in STRANGE:
        raise ValueError(rf"a regular expression without \{letter}, which is not the same in HAProxy")
    return "\\" + letter


def _literal(character: str) -> str:
    return r"\x20" if character == " " else character if character.isalnum() else "\\" + character


def _byte(digits: str) -> str:
    if not digits or int(digits, 16) > 0x7F:
        raise ValueError(r"bytes up to \x7f: HAProxy lets no others pass in a path")
    return f"\\x{int(digits, 16):02x}"
