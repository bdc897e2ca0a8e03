"""An ExaBGP that answers its process API as ExaBGP 5 does, in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import ip_address

from anycastlb.core.model import Address


class FakeExaBGP:
    """Answers like ExaBGP 5. ``refuse`` gives the lines it answers ``error`` to; ``silent`` those it never answers."""

    def __init__(self, *peers: str) -> None:
        self.peers = list(peers)
        self.rib: dict[str, dict[str, str]] = {peer: {} for peer in peers}
        self.version = "exabgp 5.0.15"
        self.refuse: Callable[[str], bool] = lambda line: False
        self.silent: Callable[[str], bool] = lambda line: False
        self.noise: list[str] = []
        """Said between the lines of every answer."""
        self.said: list[str] = []

    def answer(self, line: str) -> list[str]:
        self.said.append(line)
        if self.silent(line):
            return []
        if self.refuse(line):
            return [*self.noise, "error"]
        if line == "version":
            return [self.version, *self.noise, "done"]
        if line == "enable-ack":
            return [*self.noise, "done"]
        if line == "show neighbor json":
            return [*self.noise, json.dumps([neighbor(peer) for peer in self.peers]), *self.noise, "done"]
        if line.startswith("show adj-rib out "):
            return [*self.listing(line.split()[3]), *self.noise, "done"]
        return [*self.noise, "done" if self.obey(line) else "error"]

    def obey(self, line: str) -> bool:
        """Change the routes of every neighbor that the selectors name and that is configured. Was there any?"""
        selectors, verb, rest = re.split(r" (announce|withdraw) attributes next-hop self ?", line)
        chosen = [peer for peer in re.findall(r"neighbor (\S+)", selectors) if peer in self.rib]
        words = rest.split()
        prefixes = words[words.index("nlri") + 1 :]
        assert len(prefixes) <= 98
        for peer in chosen:
            for prefix in prefixes:
                if verb == "announce":
                    self.rib[peer][prefix] = listed(words[: words.index("nlri")])
                else:
                    self.rib[peer].pop(prefix, None)
        return bool(chosen)

    def listing(self, start: str) -> list[str]:
        """As ExaBGP does it: of every neighbor whose address begins so."""
        return [
            f"neighbor {peer} local-ip x local-as 65001 peer-as 65000 router-id x family-allowed in-open "
            f"ipv{ip_address(peer).version} unicast {prefix} next-hop x {attributes}".rstrip()
            for peer, prefixes in self.rib.items()
            if peer.startswith(start)
            for prefix, attributes in prefixes.items()
        ]

    def announced(self, peer: str) -> set[Address]:
        return {ip_address(prefix.split("/")[0]) for prefix in self.rib[peer]}


def listed(words: list[str]) -> str:
    """Attributes as ExaBGP lists them: the path in round brackets."""
    return re.sub(r"as-path \[ ([0-9 ]+) \]", r"as-path ( \1 )", " ".join(words))


def neighbor(peer: str) -> dict[str, object]:
    family = f"ipv{ip_address(peer).version} unicast"
    local, remote = {"families": {family: True}, "as": 65001}, {"address": peer, "as": 65000}
    return {"state": "up", "duration": 5, "local": local, "peer": remote}


def state(peer: str, word: str, reason: str = "") -> str:
    told = {"address": {"peer": peer}, "state": word, "reason": reason}
    return "{ " + json.dumps({"exabgp": "5.0.0", "type": "state", "neighbor": told})[1:]
