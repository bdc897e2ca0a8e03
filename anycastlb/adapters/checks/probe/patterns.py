"""Read what a probe sends and looks for: text with byte escapes, a substring, or a regular expression.

``"PING\\r\\n"`` and ``"\\x00\\x01"`` are bytes; ``"OK"`` is found anywhere; ``"re:^2\\d\\d "`` is a regular expression
over the bytes, in which ``^`` and ``$`` match at every line. RE2 searches in time linear in what a peer sends: Python's
own engine backtracks, and a page of the wrong bytes would stop the daemon for minutes. Pure.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from anycastlb.core.fields import shown

ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|[rnt0\\]|.|$)", re.DOTALL)
PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


def unescape(text: str) -> bytes:
    r"""UTF-8, with ``\xNN``, ``\r``, ``\n``, ``\t``, ``\0`` and ``\\`` as in C. Raises ValueError."""

    def one(match: re.Match[bytes]) -> bytes:
        name = match[1]
        if len(name) == 3:
            return bytes([int(name[1:], 16)])
        if name not in PLAIN:
            raise ValueError(rf"an escape \xNN, \r, \n, \t, \0 or \\, not {shown(match[0].decode(errors='replace'))}")
        return PLAIN[name]

    return ESCAPE.sub(one, _encoded(text))


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(rf"text, and \xNN for other bytes, not {shown(text)}") from None


COMPILED = 1024 * 1024
"""Bytes that an expression may take once it is compiled. What needs more takes long to compile, and is refused."""
LOOKS_ON = ("$", "\\b", "\\B", "\\z")
"""What in an expression looks at the byte after it, which may not have come yet."""


class Search:
    """Looks for one pattern in bytes that come piece by piece. Raises ValueError if it is no pattern."""

    def __init__(self, pattern: str) -> None:
        self.found = False
        self._seen = b""
        self._needle = b""
        self._regex: Any = None
        if pattern.startswith("re:"):
            self._regex = _compiled(pattern[3:])
            self._looks_on = any(mark in pattern for mark in LOOKS_ON)
        else:
            self._needle = unescape(pattern)

    def feed(self, data: bytes) -> bool:
        """Has it been found by now?"""
        if self.found:
            return True
        self._seen += data
        if self._regex is None:
            self.found = self._needle in self._seen
            self._seen = self._seen[max(0, len(self._seen) + 1 - len(self._needle)) :]
        elif match := self._regex.search(self._seen):
            self.found = match.end() < len(self._seen) or not self._looks_on
        return self.found

    def end(self) -> bool:
        """Has it been found, now that no more bytes come?"""
        self.found = self.found or (self._regex is not None and self._regex.search(self._seen) is not None)
        return self.found


@lru_cache(1024)
def _compiled(expression: str) -> Any:
    import re2  # 2 MB, which most nodes never need

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # over bytes
    options.log_errors = False
    options.max_mem = COMPILED
    try:
        return re2.compile(b"(?m)" + _encoded(expression), options)
    except re2.error as exc:
        cause = exc.args[0].decode(errors="replace") if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        raise ValueError(f"a regular expression of RE2 (no back-references, no look-around): {cause}") from exc


def mismatch(pattern: str) -> str:
    """How to say that it was missed: ``does not contain "OK"``."""
    verb = "match" if pattern.startswith("re:") else "contain"
    return f"does not {verb} {quoted(pattern)}"


def quoted(pattern: str) -> str:
    """A pattern in a message, as it was written."""
    return f'"{pattern}"' if pattern.isprintable() and len(pattern) <= 60 else shown(pattern)


def _checked(text: Any) -> Any:
    Search(text)
    return text


def _escaped(text: Any) -> Any:
    unescape(text)
    return text


Pattern = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_checked)]
"""A substring, or ``re:`` and a regular expression."""
Payload = Annotated[str, Field(max_length=65536), AfterValidator(_escaped)]
"""Text with byte escapes; ``unescape`` makes the bytes."""
