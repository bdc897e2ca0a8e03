"""Regular expressions over bytes that take time in proportion to what they search, whatever a peer sends.

Python's own engine backtracks: a page of the wrong bytes would stop the whole daemon for minutes. Here the expression
becomes a non-deterministic automaton, whose states are made deterministic as the bytes come (Thompson 1968; Cox,
"Regular Expression Matching Can Be Simple And Fast"). Everything of Python's syntax is understood but what needs
backtracking: back-references, look-around, atomic groups. ``^`` and ``$`` match at every line. Pure.
"""

from __future__ import annotations

import importlib
import re
from functools import lru_cache
from typing import Any

MOST_NODES = 256
"""Bounds the work for a byte seen for the first time in a state."""
MOST_STATES = 1000
"""Deterministic states kept; when there are more, all are forgotten and made again."""
MOST_REPEATS = 256

_syntax: Any = importlib.import_module("re._parser")
_names: Any = importlib.import_module("re._constants")

ALL = frozenset(range(256))
DIGITS = frozenset(b"0123456789")
SPACES = frozenset(b" \t\n\r\f\v")
WORDS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
CATEGORIES = {
    "CATEGORY_DIGIT": DIGITS,
    "CATEGORY_NOT_DIGIT": ALL - DIGITS,
    "CATEGORY_SPACE": SPACES,
    "CATEGORY_NOT_SPACE": ALL - SPACES,
    "CATEGORY_WORD": WORDS,
    "CATEGORY_NOT_WORD": ALL - WORDS,
}

# What stands before or after a position.
START, NEWLINE, WORD, OTHER, END, UNKNOWN = range(6)
KINDS = tuple(NEWLINE if byte == 10 else WORD if byte in WORDS else OTHER for byte in range(256))


def _holds(assertion: str, before: int, after: int) -> bool:
    match assertion:
        case "AT_BEGINNING":
            return before in (START, NEWLINE)
        case "AT_BEGINNING_STRING":
            return before == START
        case "AT_END":
            return after in (END, NEWLINE)
        case "AT_END_STRING":
            return after == END
        case "AT_BOUNDARY":
            return after != UNKNOWN and (before == WORD) != (after == WORD)
        case _:  # AT_NON_BOUNDARY
            return after != UNKNOWN and (before == WORD) == (after == WORD)


class _Nodes:
    """The non-deterministic automaton. A node is (bytes taken or None, assertion or "", next nodes); 0 is the match."""

    def __init__(self, pattern: bytes) -> None:
        parsed = _syntax.parse(pattern)
        self.nodes: list[tuple[frozenset[int] | None, str, tuple[int, ...]]] = [(None, "", ())]
        self.first = self._sequence(parsed, parsed.state.flags, 0)

    def _add(self, taken: frozenset[int] | None, assertion: str, *following: int) -> int:
        if len(self.nodes) >= MOST_NODES:
            raise ValueError("a smaller regular expression (fewer or shorter repeats)")
        self.nodes.append((taken, assertion, following))
        return len(self.nodes) - 1

    def _sequence(self, items: Any, flags: int, following: int) -> int:
        for operation, argument in reversed(list(items)):
            following = self._item(str(operation), argument, flags, following)
        return following

    def _item(self, operation: str, argument: Any, flags: int, following: int) -> int:
        if operation in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self._add(_taken(operation, argument, flags), "", following)
        if operation == "BRANCH":
            return self._add(None, "", *[self._sequence(branch, flags, following) for branch in argument[1]])
        if operation == "SUBPATTERN":
            _, added, removed, inside = argument
            return self._sequence(inside, (flags | added) & ~removed, following)
        if operation in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, inside = argument
            return self._repeat(least, most, inside, flags, following)
        if operation == "AT":
            return self._add(None, str(argument), following)
        raise ValueError("a regular expression without back-references, look-around and atomic groups")

    def _repeat(self, least: int, most: int, inside: Any, flags: int, following: int) -> int:
        if least > MOST_REPEATS or (most != _names.MAXREPEAT and most > MOST_REPEATS):
            raise ValueError(f"at most {MOST_REPEATS} repeats in a regular expression")
        start = following
        if most == _names.MAXREPEAT:
            start = self._add(None, "")
            self.nodes[start] = (None, "", (self._sequence(inside, flags, start), following))
        else:
            for _ in range(most - least):
                start = self._add(None, "", self._sequence(inside, flags, start), following)
        for _ in range(least):
            start = self._sequence(inside, flags, start)
        return start


def _taken(operation: str, argument: Any, flags: int) -> frozenset[int]:
    """The bytes a one-byte item takes."""
    if operation == "ANY":
        return ALL if flags & re.DOTALL else ALL - {10}
    items = argument if operation == "IN" else [(_names.LITERAL, argument)]
    found: set[int] = set()
    for kind, value in items:
        match str(kind):
            case "LITERAL":
                found.add(value)
            case "RANGE":
                found.update(range(value[0], value[1] + 1))
            case "CATEGORY":
                found |= CATEGORIES[str(value)]
    if flags & re.IGNORECASE:
        found |= {byte for each in found for byte in bytes([each]).lower() + bytes([each]).upper()}
    negated = operation == "NOT_LITERAL" or (operation == "IN" and str(items[0][0]) == "NEGATE")
    return ALL - found if negated else frozenset(found)


class State:
    """A deterministic state: where the automaton may be, and what the last byte was."""

    __slots__ = ("at", "before", "following", "matched")

    def __init__(self, at: frozenset[int], before: int, matched: bool) -> None:
        self.at, self.before, self.matched = at, before, matched
        self.following: dict[int, State] = {}


class Automaton:
    """One regular expression. It keeps what it learns, but nothing of a search: that is the state its caller holds."""

    def __init__(self, pattern: bytes) -> None:
        """Raises ValueError with what was expected."""
        try:
            built = _Nodes(pattern)
        except re.error as exc:
            raise ValueError(f"a regular expression ({exc})") from None
        except (RecursionError, OverflowError):
            raise ValueError("a smaller regular expression") from None
        self._nodes, self._first = built.nodes, built.first
        self._states: dict[tuple[frozenset[int], int], State] = {}

    def start(self) -> State:
        return self._state(frozenset({self._first}), START)

    def step(self, state: State, data: bytes) -> State:
        """The state after these bytes; once ``matched``, that is for ever."""
        for byte in data:
            if state.matched:
                break
            state = state.following.get(byte) or self._learn(state, byte)
        return state

    def ended(self, state: State) -> bool:
        """Has it matched, given that no more bytes come?"""
        return state.matched or 0 in self._reached(state.at, state.before, END)

    def _learn(self, state: State, byte: int) -> State:
        kind = KINDS[byte]
        reached = self._reached(state.at, state.before, kind)
        if 0 in reached:
            following = self._state(frozenset({0}), kind)
        else:
            at = {self._first}  # a match may begin anywhere
            for number in reached:
                taken, _, after = self._nodes[number]
                if taken is not None and byte in taken:
                    at.update(after)
            following = self._state(frozenset(at), kind)
        state.following[byte] = following
        return following

    def _state(self, at: frozenset[int], before: int) -> State:
        if len(self._states) >= MOST_STATES:
            for old in self._states.values():
                old.following.clear()  # the states refer to each other: let them go without the garbage collector
            self._states.clear()
        found = self._states.get((at, before))
        if found is None:
            found = self._states[at, before] = State(at, before, 0 in self._reached(at, before, UNKNOWN))
        return found

    def _reached(self, at: frozenset[int], before: int, after: int) -> set[int]:
        """The nodes reached without taking a byte."""
        reached: set[int] = set()
        waiting = list(at)
        while waiting:
            number = waiting.pop()
            if number in reached:
                continue
            reached.add(number)
            taken, assertion, following = self._nodes[number]
            if taken is None and (not assertion or _holds(assertion, before, after)):
                waiting.extend(following)
        return reached


@lru_cache(maxsize=1024)
def automaton(pattern: bytes) -> Automaton:
    """The one automaton of this expression. Raises ValueError with what was expected."""
    return Automaton(pattern)
