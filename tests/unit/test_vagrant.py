"""What Vagrant is told and what its roles write is what the lab has: one set of names, addresses and configurations."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from anycastlb.settings import parse
from tests.lab import topology
from tests.lab.examples import SHIPPED, edited
from tests.lab.router import AS, NODE_AS, lab_peers
from tests.lab.speaker import exabgp_conf
from tests.lab.topology import BACKENDS, NODES, ROLES, mac, own, uplink, vip

SCRIPTS = ("backend", "client", "consul", "node", "router")
SHELL = (*SCRIPTS, "common", "settings")
VAGRANT = ROLES.parent


def said(*argv: str, code: int = 0, **env: str) -> str:
    """What a command says; with ``env`` and nothing else of this machine's settings but PATH."""
    whole = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **env}
    done = subprocess.run(argv, capture_output=True, text=True, env=whole, timeout=300, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def settings(script: str) -> list[str]:
    return said("bash", "-euc", f". {ROLES}/settings; {script}", MACHINE="lb1").split()


@pytest.mark.parametrize("version", [4, 6])
def test_names_have_the_same_addresses_in_python_and_bash(version: int) -> None:
    machines = [*NODES, *BACKENDS]
    script = f"for m in {' '.join(machines)}; do own $m {version}; echo $REPLY; done;"
    script += f"for m in {' '.join(NODES)}; do uplink $m {version}; echo $REPLY;"
    script += f"uplink $m {version} router; echo $REPLY; done; for n in 0 15; do vip $n {version}; echo $REPLY; done"
    expected = [own(name, version) for name in machines]
    expected += [uplink(name, version, end) for name in NODES for end in (False, True)]
    assert settings(script) == [*expected, str(vip(0, version)), str(vip(15, version))]


def test_the_rest_of_the_settings_is_the_same_too() -> None:
    script = "mac lb2; echo $REPLY $CONSUL $VIPS $LAN_MTU $ROUTER_AS $NODE_AS ${VIP_RANGES[*]} $NODES $BACKENDS"
    assert settings(script) == [
        mac("lb2"),
        topology.CONSUL,
        str(topology.VIPS_OF_EACH_FAMILY),
        str(topology.LAN_MTU),
        str(AS),
        str(NODE_AS),
        *topology.VIP_RANGES,
        *NODES,
        *BACKENDS,
    ]


@pytest.mark.parametrize("flavour", ["bird", "frr"])
def test_the_router_is_configured_as_in_the_lab(flavour: str) -> None:
    nodes = ("lb1", "lb2", "lb3")
    expected = edited((SHIPPED / f"{flavour}-ebgp.conf").read_text(), lab_peers(nodes))
    told = said(str(ROLES / "router"), "config", MACHINE="tor", NODES=" ".join(nodes), FLAVOUR=flavour)
    assert sorted(told.splitlines()) == sorted(expected.splitlines())
    only4 = said(str(ROLES / "router"), "config", MACHINE="tor", FLAVOUR=flavour, FAMILIES="4")
    assert "10.8.1.2" in only4
    assert "fd00:8:1::2" not in only4


def test_the_nodes_exabgp_is_configured_as_in_the_lab() -> None:
    told = said(str(ROLES / "node"), "exabgp", MACHINE="lb2", BRIDGE="/bin/bridge --config /x")
    assert told.split() == exabgp_conf("lb2", ["/bin/bridge", "--config", "/x"]).split()


@pytest.mark.parametrize(("families", "ranges"), [("4 6", 2), ("4", 1), ("6", 1)])
def test_the_nodes_settings_are_valid(families: str, ranges: int, tmp_path: Path) -> None:
    told = said(str(ROLES / "node"), "settings", MACHINE="lb2", FAMILIES=families)
    settings = parse(told)
    assert settings.node.name == "lb2"
    assert [str(net) for net in settings.node.vip_ranges] == list(
        topology.VIP_RANGES if ranges == 2 else topology.VIP_RANGES[families == "6" :][:1]
    )


def test_an_unknown_part_is_refused_in_words() -> None:
    told = said(str(ROLES / "client"), "instal", code=1)
    assert "expected: network, install, start" in told


@pytest.mark.parametrize("script", SHELL)
def test_roles_are_sound_shell(script: str) -> None:
    said("bash", "-n", str(ROLES / script))


def test_no_role_is_forgotten() -> None:
    assert {path.name for path in ROLES.iterdir()} == {*SHELL, "consul.json"}
    used = set(re.findall(r"=> \[\"(\w+)\"|= \[\"(\w+)\",", (VAGRANT / "Vagrantfile").read_text()))
    assert {a or b for a, b in used} == set(SCRIPTS)
