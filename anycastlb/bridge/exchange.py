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

LOST_TIMEOUT = 10.0
"""Seconds without a word, after which the answer is taken for lost."""
ANSWER_LINES = 200_000
"""An answer of more lines than this is cut off."""

Kind = Literal["version", "acks", "neighbors", "routes", "announce", "withdraw"]
OPENING: Mapping[str, str] = {"version": "exabgp ", "neighbors": "["}
"""How the line begins that must come before ``done``."""


@dataclass(frozen=True, slots=True)
class Command:
    """One line to ExaBGP; ``peers`` and ``vips`` (and ``route``, for an announcement) say what it changes or asks."""

    kind: Kind
    line: str
    peers: tuple[Address, ...] = ()
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
    """``command``: the outstanding one; ``late``: ExaBGP has said nothing in answer for too long; ``lost``: for
    ``LOST_TIMEOUT`` to this command, so that nobody should wait for it any longer."""

    def __init__(self) -> None:
        self.command: Command | None = None
        self.late = self.lost = False
        self._lines: list[str] = []
        self._heard_at = self._asked_at = 0.0
        """When ExaBGP last said something in answer, and when it was last asked or did so."""

    def begin(self, command: Command, now: float) -> None:
        """This command is sent now. After a command that was given up, ExaBGP is no less late than before."""
        self.command, self._lines, self._asked_at = command, [], now
        if not self.late:
            self._heard_at = now

    def hear(self, line: str, now: float) -> Answer | None:
        """ExaBGP has said this line, which is no event. The answer, if it is complete with this line."""
        command = self.command
        if command is None or not line:
            return None
        self.late, self._heard_at, self._asked_at = False, now, now
        if line not in ("done", "error"):
            self._lines += [line] if len(self._lines) < ANSWER_LINES else []
            return None
        lines, self._lines = self._lines, []
        if command.kind in OPENING:
            lines = [text for text in lines if text.startswith(OPENING[command.kind])]
            if not lines:
                return None  # the answer to a command that was given up, or of the bridge before this one
        self.command = None
        return Answer(command, line == "done", tuple(lines))

    def give_up(self) -> None:
        """Wait no longer for the answer to the outstanding command."""
        self.command, self.lost = None, False

    def tick(self, now: float, timeout: float) -> bool:
        """Let time pass. True at the moment ExaBGP becomes late: it has said nothing for ``timeout`` seconds."""
        if self.command is None:
            return False
        before, self.late = self.late, self.late or now - self._heard_at > timeout
        self.lost = now - self._asked_at > LOST_TIMEOUT
        return self.late and not before
