"""Every role of the Vagrant lab, run to its end on a bare Debian root: what Vagrant runs on a box, without the box.

The packages and files on this machine's own network; then the network part in the test kernel, whose interfaces have
the names and addresses that a box would have.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.topology import CONSUL, own, uplink, vip
from tests.rig import debian, rootfs, testkernel
from tests.rig import wheels as rig_wheels
from tests.rig.require import require

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "/usr/src/anycastlb"
BOX = ("systemd-sysv", "iproute2")
"""What every box has and ``minbase`` has not."""
PLUGGED = """
set -e
number=0
for mac in {macs}; do
    number=$((number + 1))
    ip link add eth$number address $mac type dummy
done
"""


@dataclass(frozen=True)
class Machine:
    """A role on one machine, with the cables it has and what must be true when its script has ended."""

    role: str
    name: str
    cables: dict[str, str]
    """port -> the MAC address of its interface"""
    files: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)


LAN = {"lan": "02:00:00:00:00:01"}
UPLINKS = {"client": "02:00:00:00:01:00", "lb1-uplink": "02:00:00:00:01:01", "lb2-uplink": "02:00:00:00:01:02"}
TOR = ("10.1.0.254/24", "10.9.0.1/24", "10.8.1.1/30", "10.8.2.1/30", "fd00:8:2::1/64")
MACHINES = {
    "router on BIRD": Machine(
        "router",
        "tor",
        LAN | UPLINKS,
        units=("bird",),
        users=("bird",),
        runs=("bird -p -c /etc/bird/bird.conf",),
        addresses=TOR,
    ),
    "router on FRR": Machine(
        "router",
        "tor",
        LAN | UPLINKS,
        units=("frr",),
        users=("frr",),
        runs=("vtysh -C -f /etc/frr/frr.conf", "grep -q ^bgpd=yes /etc/frr/daemons"),
        addresses=TOR,
        settings={"FLAVOUR": "frr"},
    ),
    "node": Machine(
        "node",
        "lb1",
        {"lan": "02:00:00:00:00:11", "uplink": "02:00:00:00:01:01"},
        files=("/etc/anycastlb/node.toml", "/etc/exabgp/exabgp.conf", "/etc/exabgp/exabgp.env"),
        units=tuple(unit.stem for unit in (ROOT / "configs/systemd").glob("*.service")),
        runs=(
            "anycastlb validate /etc/anycastlb/node.toml",
            "exabgp validate -nrv /etc/exabgp/exabgp.conf",
            "anycastlb-bridge --help",
            "command -v ipvsadm",
        ),
        addresses=(f"{own('lb1')}/24", f"{own('lb1', 6)}/64", f"{uplink('lb1')}/30", f"{uplink('lb1', 6)}/64"),
    ),
    "consul": Machine(
        "consul",
        "consul",
        LAN,
        files=("/etc/consul/consul.json",),
        units=("consul",),
        users=("consul",),
        runs=("consul version", "consul validate /etc/consul/consul.json"),
        addresses=(f"{CONSUL}/24",),
    ),
    "backend": Machine(
        "backend",
        "b3",
        LAN,
        files=("/usr/local/lib/anycastlb-lab/server.py", "/etc/modules-load.d/anycastlb-lab.conf"),
        units=("backend",),
        addresses=(f"{own('b3')}/24", f"{own('b3', 6)}/64", f"{vip(0)}/32", f"{vip(15)}/32", f"{vip(15, 6)}/128"),
    ),
    "client": Machine(
        "client",
        "client",
        {"tor": "02:00:00:00:01:00"},
        runs=("curl --version", "ping -V"),
        addresses=("10.9.0.2/24", "fd00:9::2/64"),
    ),
}


@pytest.fixture(scope="module")
def box() -> rootfs.Rootfs:
    require("rootfs")
    require("testkernel")

    def make(directory: Path, suite: str) -> None:
        root = rootfs.bare(suite).copy(directory)
        script = f"apt-get -qq update && apt-get -qq -y --no-install-recommends install {' '.join(BOX)}"
        done = root.run("sh", "-c", script)
        if done.returncode:
            raise debian.Unavailable(done.stdout[-2000:])

    return rootfs.cached("box", None, make)


@pytest.fixture(scope="module")
def wheels(box: rootfs.Rootfs) -> Path:
    """The Python packages of a node, for the Python of that Debian, from where this machine's pip gets them."""
    version = re.search(r"^Version: (\d+\.\d+)", box.run("apt-cache", "show", "python3").stdout, re.M)
    assert version
    return rig_wheels.obtain(version[1], rig_wheels.requirements("bgp"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as Vagrant brings it: what is in the working tree, and may be written to. Git may not be installed."""
    there = tmp_path_factory.mktemp("source")
    ignored = [Path(line).name for line in (ROOT / ".gitignore").read_text().splitlines()]
    shutil.copytree(ROOT, there, ignore=shutil.ignore_patterns(".git", *ignored), dirs_exist_ok=True)
    return there


@pytest.fixture
def root(box: rootfs.Rootfs, tree: Path, tmp_path: Path) -> Iterator[rootfs.Rootfs]:
    root = box.copy(tmp_path / "root")
    root.binds[SOURCE] = (str(tree), "rw")
    root.binds["/var/cache/anycastlb-lab"] = (str(debian.cache()), "rw")
    yield root
    root.remove()


@pytest.mark.parametrize("which", MACHINES)
def test_a_role_runs_to_its_end(which: str, root: rootfs.Rootfs, request: pytest.FixtureRequest) -> None:
    machine = MACHINES[which]
    env = {
        "MACHINE": machine.name,
        "PORTS": " ".join(f"{port}={mac}" for port, mac in machine.cables.items()),
        "SYSTEMD_OFFLINE": "1",  # there is no systemd to talk to: units are enabled, and starting them is a word
        **machine.settings,
    }
    if machine.role == "node":
        house = request.getfixturevalue("wheels")
        root.binds["/srv/wheels"] = (str(house), "ro")
        env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/srv/wheels"}
    script = f"{SOURCE}/vagrant/roles/{machine.role}"

    installed = root.run(script, "install", env=env)
    assert installed.returncode == 0, installed.stdout

    for file in (*machine.files, "/etc/anycastlb-lab.env", "/etc/sysctl.d/60-anycastlb-lab.conf"):
        assert root.file(file).exists(), file
    for unit in (*machine.units, "anycastlb-lab-network"):
        assert succeeds(root, f"systemctl is-enabled {unit}.service")
        assert succeeds(root, f"systemd-analyze verify --man=no {unit}.service")
    for user in machine.users:
        assert succeeds(root, f"getent passwd {user}")
    for command in machine.runs:
        assert succeeds(root, command)

    again = root.run(script, "install", env=env)
    assert again.returncode == 0, again.stdout

    shown = in_the_test_kernel(root, machine, env)
    for address in machine.addresses:
        assert f" {address} " in shown
    for port in machine.cables:
        assert re.search(rf"^\d+: {port}: <.*\bUP\b.*>", shown, re.M), port


def succeeds(root: rootfs.Rootfs, command: str) -> bool:
    done = root.run("sh", "-c", command)
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return True


def in_the_test_kernel(root: rootfs.Rootfs, machine: Machine, env: dict[str, str]) -> str:
    """Network and start, as at a first boot and once more; then what ``ip address`` shows.

    It is told not to use colours, for what it writes to looks like a terminal.
    """
    network = f"/usr/local/lib/anycastlb-lab/roles/{machine.role}"
    script = PLUGGED.format(macs=" ".join(machine.cables.values()))
    script += f"{network} network; {network} network; {network} start; ip -color=never address\n"
    command = root.argv("bash", "-c", script, network=False, env=env)
    runner = [sys.executable, testkernel.__file__, "run", "--timeout", "120", "--"]
    done = subprocess.run(
        [*runner, *command], capture_output=True, text=True, timeout=180, env=os.environ, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
