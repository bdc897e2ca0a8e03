"""The top-of-rack router of the lab: BIRD 2 with ECMP into its kernel, and questions to both.

What is announced is read from the kernel's route table, which is what forwards; how often it was announced, from
BIRD's own counters.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from anycastlb.model import Address
from tests.lab.namespaces import LabError, Namespace, run
from tests.lab.process import Process, until
from tests.lab.topology import uplink

AS, NODE_AS = 65000, 65001
SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin"

HEAD = f"""
log stderr all;
router id 10.8.0.1;
protocol device {{ scan time 1; }}
protocol direct {{ ipv4; ipv6; }}
filter lb4 {{
    if net !~ [ 192.0.2.0/24{{32,32}} ] then reject;
    if (65535, 0) ~ bgp_community then bgp_local_pref = 0;
    accept;
}}
filter lb6 {{
    if net !~ [ 2001:db8:2::/64{{128,128}} ] then reject;
    if (65535, 0) ~ bgp_community then bgp_local_pref = 0;
    accept;
}}
protocol kernel k4 {{
    ipv4 {{ export filter {{ if source = RTS_BGP then accept; reject; }}; }};
    merge paths on limit 16;
}}
protocol kernel k6 {{
    ipv6 {{ export filter {{ if source = RTS_BGP then accept; reject; }}; }};
    merge paths on limit 16;
}}
template bgp lb {{
    local as {AS};
    hold time 9;
    check link yes;
    connect delay time 1; connect retry time 2; error wait time 1, 2;
    graceful restart off; long lived graceful restart off;
}}
"""
PEER = """
protocol bgp {node}v{version} from lb {{
    local {router}; neighbor {node_address} as {asn};
    ipv{version} {{ import filter lb{version}; export none; import limit 1000 action block; }};
}}
"""


def config(nodes: Iterable[str]) -> str:
    peers = [
        PEER.format(
            node=node, version=version, asn=NODE_AS,
            router=uplink(node, version, router=True), node_address=uplink(node, version),
        )
        for node in nodes
        for version in (4, 6)
    ]  # fmt: skip
    return HEAD + "".join(peers)


class Router:
    def __init__(self, namespace: Namespace, directory: Path, nodes: Iterable[str]) -> None:
        self.namespace = namespace
        self._nodes = tuple(nodes)
        self._socket = directory / "bird.ctl"
        self._config = directory / "bird.conf"
        bird, self._birdc = (shutil.which(name, path=SBIN) for name in ("bird", "birdc"))
        if not bird or not self._birdc:
            raise LabError("no bird: install the package bird2")
        argv = [bird, "-f", "-c", str(self._config), "-s", str(self._socket), "-P", str(directory / "bird.pid")]
        self.process = Process("bird", namespace, argv, directory / "bird.log")

    def start(self) -> None:
        self._config.write_text(config(self._nodes))
        self.process.start()
        self.process.until(self._socket.exists, 5, "BIRD has its control socket")

    def stop(self) -> None:
        self.process.end()

    def routes(self, vip: Address) -> frozenset[str]:
        """The names of the nodes the kernel forwards this VIP's flows to; empty = no route."""
        found = self.table(vip.version).get(str(vip), frozenset())
        return frozenset(node for node in self._nodes if uplink(node, vip.version) in found)

    def table(self, version: int = 4) -> dict[str, frozenset[str]]:
        """All routes BIRD put into the kernel: VIP -> gateways."""
        rows = json.loads(run("ip", "-n", self.namespace.full, f"-{version}", "-j", "route", "show", "proto", "bird"))
        return {
            row["dst"]: frozenset(hop["gateway"] for hop in row.get("nexthops", [row]) if "gateway" in hop)
            for row in rows
        }

    def show(self, vip: Address) -> str:
        """The route as ``ip route`` shows it, for people."""
        return self.namespace.run("ip", f"-{vip.version}", "route", "show", str(vip)).rstrip()

    def until(self, vip: Address, nodes: set[str], within: float = 10) -> float:
        """Wait until the VIP's route leads to exactly these nodes; the time (``time.monotonic()``) it was seen."""
        shown = ", ".join(sorted(nodes)) or "no node"
        until(lambda: self.routes(vip) == nodes, within, f"the route to {vip} leads to {shown}", every=0.005)
        return time.monotonic()

    def birdc(self, *words: str) -> str:
        assert self._birdc
        return self.namespace.run(self._birdc, "-s", str(self._socket), *words)

    def sessions(self) -> set[str]:
        """The BGP sessions that are up: ``lb1v4``, ``lb1v6``, ..."""
        found = re.findall(r"^(\w+)\s+BGP\s+\S+\s+\S+\s+\S+\s+Established", self.birdc("show", "protocols"), re.M)
        return set(found)

    def updates(self, node: str) -> tuple[int, int]:
        """How many route updates and withdrawals BIRD ever received from a node, over both its sessions."""
        updates = withdrawals = 0
        for version in (4, 6):
            text = self.birdc("show", "protocols", "all", f"{node}v{version}")
            if not (found := re.search(r"Import updates:\s+(\d+)", text)):
                raise LabError(f"BIRD has no counters for {node}:\n{text}")
            updates += int(found[1])
            if found := re.search(r"Import withdraws:\s+(\d+)", text):
                withdrawals += int(found[1])
        return updates, withdrawals

    def all_updates(self) -> dict[str, tuple[int, int]]:
        return {node: self.updates(node) for node in self._nodes}
