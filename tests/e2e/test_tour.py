"""The tour of ``vagrant/README.md``, command for command in the lab, and what other pages tell to type beside ours."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.namespaces import Namespace
from tests.lab.topology import vip
from tests.lab.tour import ROOT, Guide
from tests.rig.tour import README, steps
from tests.support.documented import PAGES, spans, typed_blocks

BY_HAND = ("birdc", "consul", "ip", "ipvsadm")


def test_the_tour_goes_as_written(lab: Lab, tmp_path: Path) -> None:
    tour = list(steps(README.read_text()))
    assert len(tour) > 30
    guide = Guide(lab, tmp_path)
    for step in tour:
        if "vagrant rsync" in step.command:  # "and no request fails"
            with lab.client.load(vip(0), pause=0.05) as load:
                guide.perform(step)
            assert load.sent > 20, load
            assert not load.failed, load
        else:
            guide.perform(step)
    for node in lab.nodes.values():
        assert "keepalive" not in node.exabgp.log.read_text(), "ExaBGP says each of them"


NOT_TYPED = {
    "birdc show bfd sessions": "the lab's sessions have no BFD; tests/parts/test_routers.py asks it where they have",
    "consul kv put": "is named only",
    "consul snapshot save": "is named only",
    "ip -6": "is named only",
    "ip address del": "is named only",
    "ip nexthop ... type resilient": "is what the routers do not do",
    "ip route flush proto bgp": "takes the routes of a router that is to be started anew",
    "ipvsadm -C": "is what nobody shall type",
    "ipvsadm -R": "is named only",
    "ipvsadm -Sn | anycastlb convert --from ipvsadm -": "tests/unit/test_cli_documented.py types it",
}
ROUTER = re.compile(r"birdc |ip (route|nexthop)")


def test_what_operators_look_at_is_there(lab: Lab, tmp_path: Path) -> None:
    """Every command of Consul's, BIRD's, ``ip`` and ``ipvsadm`` in the sentences of every page."""
    guide = Guide(lab, tmp_path)
    (tmp_path / "web.json").write_text((ROOT / "vagrant/web.json").read_text())
    lines = dict.fromkeys(line for page in PAGES for line in spans(page) if line.split()[0] in BY_HAND)
    assert set(NOT_TYPED) <= set(lines)
    ours = [line for line in lines if line not in NOT_TYPED]
    assert len(ours) > 15
    for line in sorted(
        ours, key=lambda line: ("web.json" not in line, "/drain/" in line)
    ):  # what is looked at comes first
        machine = "tor" if ROUTER.match(line) else "consul" if line.startswith("consul ") else "lb1"
        told = guide.types(machine, f"cd {tmp_path} && {line.replace('iif eth1', 'iif client')}")
        assert not re.search(r"syntax error|[Uu]sage:|^Error", told), f"{line}\n{told}"
        if "services/web" in line:
            lab.settle(vip(0))
        if line.startswith("ipvsadm -Ln"):
            assert str(vip(0)) in told, line


def test_backends_are_set_up_as_the_pages_say(lab: Lab, tmp_path: Path) -> None:
    """In a fresh namespace. The kernel of the tests has no modules to load."""
    (tmp_path / "modprobe").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "modprobe").chmod(0o755)
    found = [block.text for block in typed_blocks() if block.text.startswith("modprobe ipip")]
    assert len(found) == 2
    for number, text in enumerate(found):
        machine = Namespace(f"typed{number}")
        machine.create()
        try:
            machine.run("bash", "-e", "-c", text, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
            assert "UP" in machine.ip("link show dev tunl0")
            assert machine.run("sysctl", "-n", "net.ipv4.conf.tunl0.rp_filter").strip() == "0"
        finally:
            machine.delete()
