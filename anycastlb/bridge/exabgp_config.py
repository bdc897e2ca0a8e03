"""What an exabgp.conf says of the bridge: which processes run it, and which neighbors use them.

Pure, and no check of the whole file, which ``exabgp validate`` is for: what is not understood is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

TOKEN = re.compile(r"[{};]|\[[^\]]*\]|[^\s{};\[]+")
COMMENT = re.compile(r"#.*")
OFF = frozenset({"false", "disable", "disabled"})
"""What ExaBGP takes for no."""
RUNS_BRIDGE = re.compile(r"\banycastlb[-.]bridge\b")


@dataclass(frozen=True, slots=True)
class Neighbor:
    """What a neighbor tells processes, and what keeps its routes when this node is gone."""

    processes: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    """Regular expressions that the name of a process may match instead (``processes-match``)."""
    changes: bool = False
    """Its session's ups and downs are reported."""
    hold_time: str = ""
    graceful: str = ""
    """The time of ``graceful-restart``; without one ExaBGP takes the hold time. Empty: it is not mentioned."""

    def __or__(self, other: Neighbor) -> Neighbor:
        return Neighbor(
            self.processes | other.processes,
            self.patterns | other.patterns,
            self.changes or other.changes,
            other.hold_time or self.hold_time,
            other.graceful or self.graceful,
        )

    def uses(self, process: str) -> bool:
        return process in self.processes or any(_matches(pattern, process) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class ExabgpConfig:
    encoders: dict[str, str] = field(default_factory=dict)
    """Process -> its encoder; empty if none is set."""
    bridges: frozenset[str] = frozenset()
    """The processes that run the bridge."""
    mortal: frozenset[str] = frozenset()
    """Those of them that are not started again when they end."""
    neighbors: dict[str, Neighbor] = field(default_factory=dict)
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
        block.name.partition(" ")[2]: _neighbor(block, {})
        for top in root.within("template")
        for block in top.within("neighbor")
    }
    return ExabgpConfig(
        {name: (block.values("encoder") or [""])[-1] for name, block in processes.items()},
        frozenset(name for name, block in processes.items() if any(map(RUNS_BRIDGE.search, block.values("run")))),
        frozenset(name for name, block in processes.items() if OFF & set(block.values("respawn")[-1:])),
        {block.name.partition(" ")[2]: _neighbor(block, templates) for block in root.within("neighbor")},
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
        if process in config.mortal:
            what = "respawn is off: without the bridge ExaBGP announces for ever what it announced last"
            yield Trouble(False, what, f"process {process}", f"set respawn true; in process {process}")
    if not config.neighbors:
        yield Trouble(False, "it has no neighbor: nothing is announced to anybody", "no neighbor", "add the routers")
    for neighbor, api in config.neighbors.items():
        yield from _survives(neighbor, api)
        if not any(map(api.uses, config.bridges)):
            what = f"neighbor {neighbor} does not use the bridge: it gets no route"
            remedy = f"add api {{ processes [ {' '.join(sorted(config.bridges))} ]; neighbor-changes; }} to it"
            yield Trouble(True, what, f"neighbor {neighbor}", remedy)
        elif not api.changes:
            what = f"ExaBGP does not report the session with {neighbor}: it counts as unknown"
            remedy = "add neighbor-changes; to its api block, or to its template's"
            yield Trouble(False, what, f"neighbor {neighbor}: no neighbor-changes", remedy)


def _survives(name: str, neighbor: Neighbor) -> Iterator[Trouble]:
    """Does the router keep routes of a node that is gone?"""
    if neighbor.hold_time == "0":
        what = f"neighbor {name} has no hold time: the router keeps the routes of a dead machine for ever"
        yield Trouble(False, what, f"neighbor {name}: hold-time 0", "set hold-time 9;")
    if neighbor.graceful and neighbor.graceful not in OFF:
        what = f"graceful restart is on for {name}: a dead node keeps attracting traffic"
        yield Trouble(False, what, f"neighbor {name}: graceful-restart", "set graceful-restart disable;")


def _neighbor(block: _Block, templates: dict[str, Neighbor]) -> Neighbor:
    made = Neighbor()
    for inherited in block.values("inherit"):
        for name in _listed([inherited]):
            made |= templates.get(name, Neighbor())
    for api in block.within("api"):
        names, patterns = (_listed(api.values(keyword)) for keyword in ("processes", "processes-match"))
        made |= Neighbor(names, patterns, "neighbor-changes" in api.statements)
    graceful = [value or "0" for inner in block.within("capability") for value in inner.values("graceful-restart")]
    return made | Neighbor(hold_time="".join(block.values("hold-time")[-1:]), graceful="".join(graceful[-1:]))


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
