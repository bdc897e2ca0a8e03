"""The steps of HAProxy's configuration in Python: what docs/decisions/0019-http-tier.md says of them, and no more.

It knows the maps and the request, and nothing of graphs or documents.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from anycastlb.core.http.graph import Graph, Node
from anycastlb.core.model import MapEntry
from tests.support.pcre2 import compiled

STEPS = 16


@dataclass
class Outcome:
    """Where a request ends: a status, or a section, with everything that is changed on the way."""

    node: str
    path: str
    section: str = ""
    what: dict[str, str] = field(default_factory=dict)
    """The entries of the map ``do`` for this leaf."""


@dataclass
class WireRequest:
    """What fetches of HAProxy return; None where there is nothing."""

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    source: bytes = b"\x7f\x00\x00\x01"
    chance: int = 0
    """What rand(10000) returns."""

    def fetch(self, subject: str) -> str | None:
        kind, _, name = subject.partition(".")
        match kind:
            case "p":
                return self.path
            case "m":
                return self.method
            case "h":
                lines = [value for one, value in self.headers if one.lower() == name]
                return lines[-1] if lines else None
            case "q":
                found = re.search(rf"(?:^|[&;?]){re.escape(name)}=([^&;?]*)", self.query)
                return found[1] if found else None
            case "c":
                return str(self.chance + 10000)
            case "cs":
                return str(zlib.crc32(self.source) % 10000 + 10000)
            case "cc":
                cookies = [value for one, value in self.headers if one.lower() == "cookie"]
                found_all = re.findall(rf"(?:^|; *){re.escape(name)}=([^;]*)", "; ".join(cookies))
                return str(zlib.crc32(found_all[-1].encode()) % 10000 + 10000) if found_all else self.fetch("c")
        raise AssertionError(f"the configuration knows no subject {subject}")


class Machine:
    """All maps, as files that HAProxy has read."""

    def __init__(self, entries: Iterable[MapEntry]) -> None:
        self.maps: dict[str, dict[str, str]] = {}
        for entry in entries:
            # What a line of a map file is for HAProxy: a key without white space, and the rest.
            key, value = f"{entry.key} {entry.value}".split(" ", 1)
            known = self.maps.setdefault(entry.map, {}).setdefault(key, value.strip())
            assert (key, known) == (entry.key, entry.value), entry

    def run(self, root: str, request: WireRequest) -> Outcome:
        node, path = root, request.path
        for _ in range(STEPS + 1):
            if node[0] in "!>~":
                return self._end(node, path)
            subject, op, _own, *rest = node.split(":")
            word = path if subject == "p" else request.fetch(subject)
            s = "" if word is None else f"={word}"
            if op == "e":
                s = self.maps.get("eq", {}).get(f"{node}|{s}", "")
            elif op != "t":
                number, subject_text = op.removeprefix("w"), s
                found = self._regex(f"re{number}", rest[0], subject_text)
                s = "1" if found else ""
                if op[0] == "w" and found:
                    path = _expanded(*found)
            node = self._longest(f"{node}|{s}?")
        raise AssertionError("no step is left")

    def _regex(self, name: str, pattern: str, subject: str) -> tuple[str, list[str]] | None:
        """The value of the first key that matches, and its groups."""
        for key, value in self.maps.get(name, {}).items():
            if (groups := compiled(key).groups(f"{pattern}|{subject}")) is not None:
                return value, groups
        return None

    def _longest(self, key: str) -> str:
        table = self.maps["next"]
        return next(table[key[:end]] for end in range(len(key), 0, -1) if key[:end] in table)

    def _end(self, node: str, path: str) -> Outcome:
        if node[0] == "!":
            return Outcome(node, path)
        do = self.maps.get("do", {})
        what = {key.removeprefix(f"{node}|"): value for key, value in do.items() if key.startswith(f"{node}|")}
        if "path" in what:
            path = what["path"]
        elif "strip" in what:
            count, _, put = what["strip"].partition(":")
            parts, keep = path.split("/"), int(count) + 1
            path = _one_slash(f"{put}/{'/'.join(parts[keep:])}") if len(parts) > keep else put or "/"
        elif "rw" in what:
            number, pattern = what["rw"].split(":")
            if found := self._regex(f"re{number}", pattern, f"={path}"):
                path = _expanded(*found)
        return Outcome(node, path, self.maps.get("leaf", {}).get(node, ""), what)


def node_of(graph: Graph, name: str) -> Node:
    """The node that has this id in the maps."""
    return graph.nodes[int(name.split(":")[-1].rpartition(".")[2])]


def _expanded(template: str, groups: list[str]) -> str:
    def group(reference: re.Match[str]) -> str:
        return groups[int(reference[1])] if int(reference[1]) < len(groups) else ""

    return _one_slash(re.sub(r"\\(\d)", group, template))


def _one_slash(path: str) -> str:
    return re.sub("^/*", "/", path)
