"""One command to ExaBGP and its answer.

ExaBGP's answers (``done``, ``error``) carry no name, and answers to pipelined commands overtake each other: so one
command is outstanding at a time. Lines that come before the answer belong to it. Answers to the bridge before this
one may still arrive at the start; ``version`` and ``show neighbor json`` can tell them apart, because their own answer
contains a line that begins in a known way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from anycastlb.core.model import Address, Route

ACK_TIMEOUT = 2.0
"""Seconds without a word in answer to a command, after which ExaBGP is late."""
ANSWER_LINES = 200_000
"""An answer of more lines than this is cut off."""

Kind = Literal["version", "acks", "neighbors", "routes", "announce", "withdraw"]
OPENING: Mapping[str, str] = {"version": "exabgp ", "neighbors": "["}
"""How the line begins that must come before ``done``."""


@dataclass(frozen=True, slots=True)
class Command:
    """One line to ExaBGP; ``peer`` and ``vips`` (and ``route``, for an announcement) say what it changes."""

    kind: Kind
    line: str
    peer: Address | None = None
    vips: tuple[Address, ...] = ()
    route: Route | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    command: Command
    ok: bool
    """``done``; else ``error``."""
    lines: tuple[str, ...]
    """What came before it."""


class Exchange:
    """``command``: the outstanding one; ``late``: ExaBGP has said nothing in answer to it for ``ACK_TIMEOUT``."""

    def __init__(self) -> None:
        self.command: Command | None = None
        self.late = False
        self._lines: list[str] = []
        self._heard_at = 0.0

    def begin(self, command: Command, now: float) -> None:
        """This command is sent now."""
        self.command, self.late, self._lines, self._heard_at = command, False, [], now

    def hear(self, line: str, now: float) -> Answer | None:
        """ExaBGP has said this line, which is no event. The answer, if it is complete with this line."""
        command = self.command
        if command is None:
            return None
        if line not in ("done", "error"):
            if line and len(self._lines) < ANSWER_LINES:
                self._lines.append(line)
                self._heard_at = now
            return None
        lines, self._lines = self._lines, []
        if command.kind in OPENING:
            lines = [text for text in lines if text.startswith(OPENING[command.kind])]
            if not lines:
                return None  # the answer to a command of the bridge before this one
        self.command, self.late = None, False
        return Answer(command, line == "done", tuple(lines))

    def tick(self, now: float) -> bool:
        """Let time pass. True at the moment ExaBGP becomes late."""
        if self.command is None or self.late or now - self._heard_at <= ACK_TIMEOUT:
            return False
        self.late = True
        return True
