"""The text of keepalived.conf to a tree of statements: comments, quotes, definitions, includes, blocks.

Pure: an included file is asked for by its pattern. What a statement means is ``keepalived``'s business. Left aside,
each with a note: conditional lines (``@main …``) and repeated ones (``~SEQ``, ``~LST``). What keepalived itself passes
over with a message (a brace too many or too few, an open quote, a file that is missing) is passed over with a note.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import ParamSpec, TypeVar

from anycastlb.core.importers.documents import Note, UnreadableInput

T = TypeVar("T")
U = TypeVar("U")
P = ParamSpec("P")
Include = Callable[[str, str], Sequence[tuple[str, str]]]
"""(pattern, name of the file that includes it) to the (name, text) of every file of the pattern, in order; raises
``UnreadableInput`` if there is none. The name is empty for the text itself."""
MAX_INCLUDES = 10
"""Files that include each other deeper than this go round in a circle."""
MAX_LINES = 200_000
MAX_DEPTH = 50
MAX_CHARACTERS = 100_000
"""Of one line, its definitions replaced."""
DEFINITION = re.compile(r"\s*\$([A-Za-z_]\w*)=(.*)", re.ASCII)
USE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*)(?=\s|$))", re.ASCII)
LITERALS = {"_HASH": "#", "_BANG": "!"}
BLANK = " \t\n\v\f\r"
WORD = re.compile(
    r"""\s*(?:(?P<comment>[!#].*)|"(?P<double>(?:\\.|[^"\\])*)"|'(?P<single>[^']*)'(?=[\s{}]|$)|"(?P<open>.*)"""
    r"""|(?P<bare>[^\s"]+))""",
    re.ASCII,
)
"""An apostrophe inside a word, or one that nothing closes, is a letter like any other."""


@dataclass(slots=True)
class Statement:
    """``words`` and, if braces follow them, the statements inside."""

    words: tuple[str, ...]
    line: int
    name: str = ""
    """The included file the line is in; empty for the text itself."""
    block: list[Statement] | None = None
    _latest: dict[str, tuple[int, Statement]] | None = field(default=None, compare=False, repr=False)

    def inside(self) -> list[Statement]:
        return self.block if self.block is not None else []

    def last(self, *keywords: str) -> Statement | None:
        """The last statement inside with one of these keywords. It is asked for only when nothing changes any more."""
        if self._latest is None:
            self._latest = {one.keyword: (place, one) for place, one in enumerate(self.inside())}
        found = [self._latest[keyword] for keyword in keywords if keyword in self._latest]
        return max(found, key=itemgetter(0))[1] if found else None

    @property
    def keyword(self) -> str:
        return self.words[0] if self.words else ""

    @property
    def argument(self) -> str:
        return self.words[1] if len(self.words) > 1 else ""

    def bad(self, what: str) -> UnreadableInput:
        return UnreadableInput(self.line, what, self.name)

    def note(self, what: str) -> Note:
        return Note(self.line, what, self.name)


@dataclass(slots=True)
class _Reading:
    include: Include | None
    notes: list[Note]
    defined: dict[str, list[str]] = field(default_factory=dict)
    lines: int = 0

    def parse(self, text: str) -> list[Statement]:
        root = Statement((), 0, block=[])
        stack = [root]
        for line, name, words in self.worded(text, "", 0):
            self.place(stack, line, name, words)
        for open in stack[1:]:
            self.notes.append(
                open.note(f"expected a }} for this {open.keyword}, not the end of the text; it ends there")
            )
        return root.inside()

    def place(self, stack: list[Statement], line: int, name: str, words: list[str]) -> None:
        """The words of one line into the tree."""
        pending: list[str] = []

        def finish() -> None:
            if pending:
                stack[-1].inside().append(Statement(tuple(pending), line, name))
                pending.clear()

        for word in words:
            if word == "{":
                finish()
                inside = stack[-1].inside()
                if not inside or inside[-1].block is not None:
                    self.notes.append(Note(line, "expected a name before {; this one is passed over", name))
                    continue
                if len(stack) > MAX_DEPTH:
                    raise UnreadableInput(line, "expected fewer blocks inside of each other", name)
                inside[-1].block = []
                stack.append(inside[-1])
            elif word == "}":
                finish()
                if len(stack) == 1:
                    self.notes.append(Note(line, "expected no }: nothing is open; it is passed over", name))
                    continue
                done = stack.pop()
                self.conditional(stack[-1], done)
            else:
                pending.append(word.removeprefix("\0"))
        finish()
        if words and words[-1] not in ("{", "}") and (inside := stack[-1].inside()):
            self.conditional(stack[-1], inside[-1])

    def conditional(self, parent: Statement, statement: Statement) -> None:
        """Leave a conditional statement out, with all that is in it."""
        if statement.keyword.startswith("@") and statement in parent.inside():
            self.notes.append(statement.note(f"{' '.join(statement.words)[:80]}: conditional; left out"))
            parent.inside().remove(statement)

    def worded(self, text: str, name: str, depth: int) -> Iterator[tuple[int, str, list[str]]]:
        """Every line's words, definitions replaced and includes read. A brace is a word of its own."""
        waiting = ""
        for number, raw in enumerate(text.split("\n"), 1):  # no other letter ends a line there
            if waiting:
                body, more = (raw.rstrip(BLANK)[:-1], True) if raw.rstrip(BLANK).endswith("\\") else (raw, False)
                self.defined[waiting].append(body)
                waiting = waiting if more else ""
                continue
            if match := DEFINITION.match(raw):
                value = match[2].strip(BLANK)
                if value == "\\":
                    waiting, self.defined[match[1]] = match[1], []
                else:
                    self.defined[match[1]] = [value]
                continue
            for line in self.replaced(raw, number, name):
                if match := DEFINITION.match(line):
                    self.defined[match[1]] = [match[2].strip(BLANK)]
                    continue
                yield from self.one(line, number, name, depth)

    def one(self, line: str, number: int, name: str, depth: int) -> Iterator[tuple[int, str, list[str]]]:
        words = self.words(line, number, name)
        if words and words[0].startswith("~"):
            self.notes.append(Note(number, f"{words[0][:60]}: repeated lines are not written out; left out", name))
        elif words and words[0] in ("include", "includer", "includem", "includew", "includeb", "includea"):
            yield from self.included(words, number, name, depth)
        elif words:
            yield number, name, words

    def included(self, words: list[str], number: int, name: str, depth: int) -> Iterator[tuple[int, str, list[str]]]:
        pattern = " ".join(words[1:])
        if depth >= MAX_INCLUDES:
            self.notes.append(Note(number, "expected files that do not include each other in a circle; not read", name))
            return
        if self.include is None or not pattern:
            self.notes.append(Note(number, f"include {pattern[:80]}: not read", name))
            return
        try:
            files = self.include(pattern, name)
        except UnreadableInput as exc:
            self.notes.append(Note(number, f"{exc}; not read", name))
            return
        for file, text in files:
            yield from self.worded(text, file, depth + 1)

    def replaced(self, line: str, number: int, name: str) -> list[str]:
        """The line with its definitions' values; a definition of several lines makes several."""
        self.lines += 1
        if self.lines > MAX_LINES:
            raise UnreadableInput(number, f"expected at most {MAX_LINES} lines, its definitions replaced", name)
        for _ in range(100):
            match = next((use for use in USE.finditer(line) if (use[1] or use[2]) in {*self.defined, *LITERALS}), None)
            if match is None:
                return [line]
            word = match[1] or match[2]
            values = self.defined.get(word)
            if values is not None and len(values) > 1:
                parts = [line[: match.start()] + values[0], *values[1:-1], values[-1] + line[match.end() :]]
                return [whole for part in parts for whole in self.again(part, number, name)]
            value = values[0] if values else "" if values is not None else f'"{LITERALS[word]}"'
            line = line[: match.start()] + value + line[match.end() :]
            if len(line) > MAX_CHARACTERS:
                break
        self.notes.append(Note(number, "expected definitions that do not grow without end; the line is left out", name))
        return []

    def again(self, line: str, number: int, name: str) -> list[str]:
        """A line of a definition, unless it defines: that is not replaced before it is used."""
        if DEFINITION.match(line):
            match = DEFINITION.match(line)
            assert match is not None
            self.defined[match[1]] = [match[2].strip(BLANK)]
            return []
        try:
            return self.replaced(line, number, name)
        except RecursionError:
            self.notes.append(Note(number, "expected definitions that do not use themselves; left out", name))
            return []

    def words(self, line: str, number: int, name: str) -> list[str]:
        """A quoted brace is marked with NUL, so that it is a word like any other."""
        words: list[str] = []
        at, end = 0, len(line.rstrip(BLANK))
        while at < end and (match := WORD.match(line, at)):
            at = match.end()
            if match["comment"] is not None:
                break
            if match["bare"] is not None:
                words += _bare(match["bare"])
            elif match["open"] is not None:
                self.notes.append(Note(number, "expected a closing quote; it ends with its line", name))
                words.append("\0" + match["open"])
            else:
                quoted = match["single"] if match["single"] is not None else re.sub(r"\\(.)", r"\1", match["double"])
                words.append("\0" + quoted)
        return words


def attempt(notes: list[Note], otherwise: U, make: Callable[P, T], *args: P.args, **named: P.kwargs) -> T | U:
    """What ``make`` returns; where it raises ``UnreadableInput``, a note of that, and ``otherwise``."""
    try:
        return make(*args, **named)
    except UnreadableInput as exc:
        notes.append(Note(exc.line, f"{exc.what}; passed over", exc.name))
        return otherwise


def parse(text: str, include: Include | None, notes: list[Note]) -> list[Statement]:
    """The statements of the whole text. Raises ``UnreadableInput``."""
    return _Reading(include, notes).parse(text)


def _bare(text: str) -> list[str]:
    """The parts of an unquoted word; a comment or a brace may follow it directly."""
    word = re.split(r"(?<!\$)[!#]", text, maxsplit=1)[0] if not text.startswith("$") else text
    before, after = list[str](), list[str]()
    while len(word) > 1 and word[0] in "{}" and word.count("{") != word.count("}"):
        before, word = [*before, word[0]], word[1:]
    while len(word) > 1 and word[-1] in "{}" and word.count("{") != word.count("}"):
        after, word = [word[-1], *after], word[:-1]
    return [*before, word, *after] if word else []
