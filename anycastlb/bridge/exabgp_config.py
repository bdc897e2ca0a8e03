"""What an exabgp.conf says of the bridge: which processes run it, and which neighbors use them.

Pure, and no check of the whole file, which ``exabgp validate`` is for: what is not understood is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

TOKEN = re.compile(r"[{};]|\[[^\]]*\]|[^\s{};\[]+")
COMMENT = re.compile(r"#.*")
RUNS_BRIDGE = re.compile(r"\banycastlb[-.]bridge\b")


@dataclass(frozen=True, slots=True)
class Api:
    """What a neighbor tells processes."""

    processes: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    """Regular expressions that the name of a process may match instead (``processes-match``)."""
    changes: bool = False
    """Its session's ups and downs are reported."""

    def __or__(self, other: Api) -> Api:
        return Api(self.processes | other.processes, self.patterns | other.patterns, self.changes or other.changes)

    def uses(self, process: str) -> bool:
        return process in self.processes or any(_matches(pattern, process) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class ExabgpConfig:
    encoders: dict[str, str] = field(default_factory=dict)
    """Process -> its encoder; empty if none is set."""
    bridges: frozenset[str] = frozenset()
    """The processes that run the bridge."""
    neighbors: dict[str, Api] = field(default_factory=dict)
    """By address, with what they inherit."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with the file, as far as it concerns the bridge."""

    serious: bool
    what: str
    where: str
    remedy: str


@dataclass(slots=True)
class _Block:
    """``name { ... }``: its statements, and the blocks inside."""

    name: str
    statements: list[str] = field(default_factory=list)
    blocks: list[_Block] = field(default_factory=list)

    def within(self, kind: str) -> Iterator[_Block]:
        return (block for block in self.blocks if block.name.split(" ", 1)[0] == kind)

    def values(self, keyword: str) -> list[str]:
        return [text.partition(" ")[2] for text in self.statements if text.split(" ", 1)[0] == keyword]


def read(text: str) -> ExabgpConfig:
    """The part of the text that concerns the bridge."""
    root = _tree(COMMENT.sub("", text))
    processes = {block.name.partition(" ")[2]: block for block in root.within("process")}
    templates = {
        block.name.partition(" ")[2]: _api(block, {})
        for top in root.within("template")
        for block in top.within("neighbor")
    }
    return ExabgpConfig(
        {name: (block.values("encoder") or [""])[-1] for name, block in processes.items()},
        frozenset(name for name, block in processes.items() if any(map(RUNS_BRIDGE.search, block.values("run")))),
        {block.name.partition(" ")[2]: _api(block, templates) for block in root.within("neighbor")},
    )


def troubles(config: ExabgpConfig) -> Iterator[Trouble]:
    """Does the bridge hear of the sessions, in words that it reads, and does each neighbor take its routes?"""
    if not config.bridges:
        yield Trouble(
            True, "it runs no anycastlb-bridge", "no process runs it", "add the process of exabgp/exabgp.conf"
        )
        return
    for process in sorted(config.bridges):
        if config.encoders[process] != "json":
            what = "ExaBGP writes to the bridge as text: every session of this node counts as unknown"
            where = f"process {process}: encoder {config.encoders[process] or 'is not set'}"
            yield Trouble(True, what, where, f"set encoder json; in process {process}")
    for neighbor, api in config.neighbors.items():
        if not any(map(api.uses, config.bridges)):
            what = f"neighbor {neighbor} does not use the bridge: it gets no route"
            remedy = f"add api {{ processes [ {' '.join(sorted(config.bridges))} ]; neighbor-changes; }} to it"
            yield Trouble(True, what, f"neighbor {neighbor}", remedy)
        elif not api.changes:
            what = f"ExaBGP does not report the session with {neighbor}: it counts as unknown"
            remedy = "add neighbor-changes; to its api block, or to its template's"
            yield Trouble(False, what, f"neighbor {neighbor}: no neighbor-changes", remedy)


def _api(neighbor: _Block, templates: dict[str, Api]) -> Api:
    api = Api()
    for inherited in neighbor.values("inherit"):
        for name in _listed([inherited]):
            api |= templates.get(name, Api())
    for block in neighbor.within("api"):
        names, patterns = (_listed(block.values(keyword)) for keyword in ("processes", "processes-match"))
        api |= Api(names, patterns, "neighbor-changes" in block.statements)
    return api


def _listed(values: list[str]) -> frozenset[str]:
    return frozenset(name for value in values for name in value.strip("[ ]").replace(",", " ").split())


def _matches(pattern: str, process: str) -> bool:
    try:
        return re.match(pattern, process) is not None
    except re.error:
        return False


def _tree(text: str) -> _Block:
    stack = [_Block("")]
    words: list[str] = []
    for token in TOKEN.findall(text):
        if token == "{":
            stack[-1].blocks.append(_Block(" ".join(words)))
            stack.append(stack[-1].blocks[-1])
        elif token == "}":
            if len(stack) > 1:
                stack.pop()
        elif token == ";":
            stack[-1].statements.append(" ".join(words))
        else:
            words.append(token)
            continue
        words = []
    return stack[0]
