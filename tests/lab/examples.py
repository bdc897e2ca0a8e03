"""The router configurations of ``configs/routers``, edited as they tell an operator to: addresses, AS numbers, names,
options turned on. Nothing else of them is changed, so what is proven with them is what is shipped.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.namespaces import LabError

SHIPPED = Path(__file__).resolve().parents[2] / "configs" / "routers"


@dataclass(frozen=True)
class Peer:
    """A node as its router sees it."""

    name: str
    v4: str
    v6: str
    asn: int = 65001

    def address(self, version: int) -> str:
        return self.v4 if version == 4 else self.v6


DOCUMENTED = (
    Peer("lb1", "198.51.100.2", "2001:db8:ffff::2"),
    Peer("lb2", "198.51.100.3", "2001:db8:ffff::3"),
)
"""The nodes in the examples. Every line that names one is that node's own: to be copied for each node."""
ROUTER = Peer("router", "198.51.100.1", "2001:db8:ffff::1", 65000)


def edited(
    text: str, peers: Iterable[Peer] = DOCUMENTED, options: Collection[str] = (), edits: Mapping[str, str] | None = None
) -> str:
    """An example with the lines of its first node once for each peer, these options on, and literal ``edits`` made.

    Raises ``LabError`` for an option or an edit that the example does not have.
    """
    lines = [line for before in text.splitlines() for line in _for_each(before, tuple(peers))]
    text = "\n".join([*lines, ""])
    for old, new in {**{f"#{option} ": "" for option in options}, **(edits or {})}.items():
        if old not in text:
            raise LabError(f"the example has no {old!r} to be replaced by {new!r}")
        text = text.replace(old, new)
    return text


def _for_each(line: str, peers: Iterable[Peer]) -> list[str]:
    first, *others = DOCUMENTED
    if any(_names(line, other) for other in others):
        return []
    if not _names(line, first):
        return [line]
    return [_renamed(line, first, peer) for peer in peers]


def _names(line: str, peer: Peer) -> bool:
    return re.search(rf"(?<![\w.:])({re.escape(peer.v4)}|{re.escape(peer.v6)})(?![\w.:])", line) is not None


def _renamed(line: str, old: Peer, new: Peer) -> str:
    line = line.replace(old.v4, new.v4).replace(old.v6, new.v6).replace(old.name, new.name)
    return re.sub(rf"\b{old.asn}\b", str(new.asn), line)
