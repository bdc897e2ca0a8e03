"""What a probe sends and looks for: text with byte escapes, a substring, or a regular expression.

``"PING\\r\\n"`` and ``"\\x00\\x01"`` are bytes; ``"OK"`` is found anywhere; ``"re:^2\\d\\d "`` is a regular expression
over the bytes. Pure. A search is fed as the bytes come, and its cost is linear in them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from anycastlb.automaton import automaton
from anycastlb.documents import shown

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


class Search:
    """Looks for one pattern in bytes that come piece by piece. Raises ValueError if it is no pattern."""

    def __init__(self, pattern: str) -> None:
        self.found = False
        self._needle = b""
        self._tail = b""
        self._regex = automaton(_encoded(pattern[3:])) if pattern.startswith("re:") else None
        if self._regex is not None:
            self._state = self._regex.start()
            self.found = self._state.matched
        else:
            self._needle = unescape(pattern)

    def feed(self, data: bytes) -> bool:
        """Has it been found by now?"""
        if self.found:
            return True
        if self._regex is not None:
            self._state = self._regex.step(self._state, data)
            self.found = self._state.matched
        else:
            data = self._tail + data
            self.found = self._needle in data
            self._tail = data[max(0, len(data) + 1 - len(self._needle)) :]
        return self.found

    def end(self) -> bool:
        """Has it been found, now that no more bytes come?"""
        if not self.found and self._regex is not None:
            self.found = self._regex.ended(self._state)
        return self.found


def told(pattern: str) -> str:
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
