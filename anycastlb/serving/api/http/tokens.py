"""Bearer tokens: read from files of one token a line, compared in constant time, kept only as digests.

A line is ``TOKEN`` or ``NAME TOKEN``; ``#`` begins a comment line. The name is what events say; the token itself stands
in no event, log or error. A file that cannot be read holds no tokens: removing it takes the rights away.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anycastlb.adapters.system.file_watch import FileWatch
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event

MAX_BYTES = 1024 * 1024
Rights = Literal["read", "write"]


@dataclass(frozen=True, slots=True)
class Token:
    name: str
    rights: Rights
    digest: bytes


class Tokens:
    """The tokens of some files, by the rights each file gives; reread when one of them changes."""

    def __init__(self, files: Mapping[Rights, str], journal: Journal, every: float = 1.0) -> None:
        self._files, self._journal = files, journal
        self._watched = FileWatch(files.values(), every)
        self._known: tuple[Token, ...] = ()
        self._troubles: frozenset[str] = frozenset()

    def find(self, secret: str) -> Token | None:
        """The token with this secret; None if there is none. Takes as long for a wrong secret as for a right one."""
        if self._watched.changed():
            self._read()
        given, match = _digest(secret), None
        for token in self._known:
            if hmac.compare_digest(given, token.digest) and (match is None or token.rights == "write"):
                match = token
        return match

    def reread(self) -> None:
        self._watched.forget()

    def _read(self) -> None:
        known: list[Token] = []
        troubles: set[str] = set()
        for rights, path in self._files.items():
            try:
                with Path(path).open("rb") as file:
                    text = file.read(MAX_BYTES).decode()
            except (OSError, UnicodeDecodeError) as exc:
                reason = getattr(exc, "strerror", None) or "it is not UTF-8"
                troubles.add(f"{path} cannot be read ({reason}): it gives no rights; see [api] {rights}_token_file")
                continue
            known += parse(text, rights)
            troubles.update(
                f"{path}: line {number} is no token: write one TOKEN or NAME TOKEN a line" for number in faulty(text)
            )
        self._known = tuple(known)
        for trouble in sorted(troubles - self._troubles):  # each once, not at every look
            self._journal.emit(Event("api", "tokens", reason=trouble, level="error"))
        self._troubles = frozenset(troubles)


def parse(text: str, rights: Rights) -> Iterator[Token]:
    """The tokens of a file's text; one without a name is named after its line."""
    for number, words in _lines(text):
        if len(words) <= 2:
            name = words[0] if len(words) == 2 else f"of line {number} of {rights}_token_file"
            yield Token(name, rights, _digest(words[-1]))


def faulty(text: str) -> list[int]:
    """The lines, from 1, that are neither a token nor a name and a token."""
    return [number for number, words in _lines(text) if len(words) > 2]


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            yield number, words


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()
