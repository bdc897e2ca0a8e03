"""docs/INSTALL.md, as written: from a bare Debian to a node that serves, is upgraded, and leaves nothing behind.

Each test goes on where the one before it ended.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from anycastlb.doctor.rules.kernel import CAP_NET_ADMIN
from tests.lab.process import until
from tests.lab.topology import vip
from tests.machine.document import boxes
from tests.machine.world import NODE, World
from tests.rig import package

CAP_KILL, CAP_NET_BIND_SERVICE = 5, 10
VIP = vip(0)
UNITS = ("anycastlb.service", "anycastlb-exabgp.service")


def daemon(world: World, unit: str = "anycastlb.service") -> int:
    """The main process of a unit, as numbered on the node; 0 if there is none."""
    return int(world.node.show(unit, "MainPID")["MainPID"])


def status(world: World, pid: int) -> dict[str, str]:
    lines = world.node.sh(f"cat /proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def checker(world: World) -> int:
    """The daemon's only child, its checker; 0 while there is none."""
    pid = daemon(world)
    return int(world.node.sh(f"cat /proc/{pid}/task/{pid}/children", check=False).strip() or 0)


def bridge(world: World) -> int:
    """The bridge's process; 0 while there is none."""
    script = """
        for pid in $(cat /sys/fs/cgroup/system.slice/anycastlb-exabgp.service/cgroup.procs); do
            if tr '\\0' ' ' 2>/dev/null </proc/$pid/cmdline | grep -q anycastlb-bridge; then echo $pid; fi
        done
    """
    return int(world.node.sh(script, check=False).strip() or 0)


def replaced(world: World, before: int, within: float = 60) -> int:
    """Wait until systemd has another, ready, main process of the node."""

    def now() -> int:
        told = world.node.show("anycastlb.service", "MainPID", "ActiveState")
        return int(told["MainPID"]) if told["ActiveState"] == "active" and told["MainPID"] != str(before) else 0

    return until(now, f"a successor of process {before} is ready", within, every=0.2)


def serving(world: World) -> None:
    until(lambda: "200" in world.node.sh(READY, check=False), "the node is ready to serve", every=0.2)


READY = """python3 - <<'END'
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:4672/readyz").status)
END"""


def test_installed_as_written_it_serves(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (world.node.root / "root" / package.find().name).write_bytes(package.find().read_bytes())
    started = time.monotonic()
    for box in boxes():
        if box.where != "node, at the end":
            world.perform(box)
    world.lab.router.until(VIP, {NODE})
    assert set(world.lab.client.spread(20, VIP)) == {"b1", "b2"}
    serving(world)
    with capsys.disabled():
        print(f"\n  installed, and serving after {time.monotonic() - started:.0f} s")


def test_the_sandboxes_hold_and_suffice(world: World) -> None:
    node = world.node
    node.sh("systemd-analyze verify --man=no anycastlb.service anycastlb-exabgp.service")
    for unit, user, capabilities in (
        (UNITS[0], "anycastlb", 1 << CAP_NET_ADMIN | 1 << CAP_KILL),
        (UNITS[1], "exabgp", 1 << CAP_NET_BIND_SERVICE),
    ):
        node.sh(f"systemd-analyze security --threshold=25 --no-pager {unit}")
        held = status(world, daemon(world, unit))
        assert held["Uid"].split()[0] == node.sh(f"id -u {user}").strip()
        assert int(held["CapEff"], 16) == int(held["CapBnd"], 16) == capabilities
        assert held["Seccomp"] == "2" and held["NoNewPrivs"] == "1"
    assert status(world, daemon(world))["CapAmb"] == "0" * 16, "programs of checks would inherit it"
    held = status(world, checker(world))
    assert int(held["CapEff"], 16) == int(held["CapPrm"], 16) == 1 << CAP_NET_ADMIN and held["CapAmb"] == "0" * 16
    assert held["Seccomp"] == "2" and held["NoNewPrivs"] == "1"
    # It writes the sysctls it needs through the sandbox, and repairs them.
    node.namespace.sysctl({"net/ipv4/vs/sloppy_tcp": "0"})
    until(lambda: node.sh("cat /proc/sys/net/ipv4/vs/sloppy_tcp").strip() == "1", "sloppy_tcp is set again")


def test_the_token_is_nowhere_to_be_seen(world: World) -> None:
    pid = daemon(world)
    shown = world.node.sh(
        f"journalctl --no-pager; systemctl show anycastlb; tr '\\0' '\\n' </proc/{pid}/environ; "
        f"tr '\\0' ' ' </proc/{pid}/cmdline; cat /etc/anycastlb/node.toml; ls -laR /var/lib/anycastlb"
    )
    assert world.secret not in shown
    refused = world.node.sh("setpriv --reuid exabgp --clear-groups cat /run/credentials/anycastlb.service/* || echo no")
    assert refused.strip() == "no"


def test_a_hand_over_moves_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    before, updates = daemon(world), world.lab.router.updates(NODE)
    started = time.monotonic()
    with world.lab.client.load(VIP) as load:
        world.node.sh("systemctl kill --kill-whom=main -s SIGUSR1 anycastlb")
        replaced(world, before)
        serving(world)
    assert load.sent > 20 and not load.failed, load
    assert world.lab.router.updates(NODE) == updates
    with capsys.disabled():
        print(f"\n  handed over and ready after {time.monotonic() - started:.1f} s; {load}")


def test_an_upgrade_moves_nothing(world: World) -> None:
    newer = package.newer()
    (world.node.root / "root" / newer.name).write_bytes(newer.read_bytes())
    before, speaker, relay = daemon(world), daemon(world, UNITS[1]), bridge(world)
    updates = world.lab.router.updates(NODE)
    with world.lab.client.load(VIP) as load:
        world.node.sh(f"apt-get install -y ./{newer.name}")
        replaced(world, before)
        serving(world)
    assert load.sent > 20 and not load.failed, load
    assert world.lab.router.updates(NODE) == updates
    assert daemon(world, UNITS[1]) == speaker and bridge(world) != relay
    assert 'vip_ranges = ["192.0.2.0/24"' in world.node.sh("cat /etc/anycastlb/node.toml"), (
        "the operator's own settings"
    )


def test_reload_rereads(world: World) -> None:
    pid, index = daemon(world), world.lab.router.updates(NODE)
    world.node.sh("systemctl reload anycastlb")
    world.node.sh("systemctl reload anycastlb-exabgp")
    serving(world)
    assert daemon(world) == pid and world.lab.router.updates(NODE) == index
    assert world.lab.client.get(VIP) in ("b1", "b2")


def test_a_hung_bridge_is_replaced(world: World) -> None:
    """The daemon may kill it, though it runs as another user."""
    hung = bridge(world)
    world.node.sh(f"kill -STOP {hung}")
    until(lambda: bridge(world) not in (0, hung), "another bridge runs")
    serving(world)
    world.lab.router.until(VIP, {NODE})


def test_a_hung_checker_is_replaced(world: World) -> None:
    """The sandbox lets the daemon end it and start another, and no route moves."""
    hung, updates = checker(world), world.lab.router.updates(NODE)
    world.node.sh(f"kill -STOP {hung}")
    until(lambda: checker(world) not in (0, hung), "another checker runs")
    serving(world)
    assert world.lab.router.updates(NODE) == updates


def test_a_hung_daemon_is_replaced(world: World) -> None:
    hung, updates = daemon(world), world.lab.router.updates(NODE)
    world.node.sh(f"kill -STOP {hung}")
    replaced(world, hung)
    serving(world)
    assert world.lab.router.updates(NODE) == updates, "it came back within hold, and took over what it found"
    assert "watchdog" in world.node.sh("journalctl --no-pager -u anycastlb").lower()


def test_removed_as_written_it_leaves_nothing(world: World) -> None:
    for box in boxes():
        if box.where == "node, at the end":
            world.perform(box)
    assert world.lab.router.routes(VIP) == frozenset()
    assert str(VIP) not in world.node.namespace.ip("addr show dev lo")
    assert "192.0.2." not in Path(f"/proc/{world.node.init}/net/ip_vs").read_text()
    left = world.node.sh(
        "ls -d /var/lib/anycastlb /usr/lib/anycastlb /run/anycastlb /etc/anycastlb/node.toml", check=False
    )
    assert left == ""
    assert world.node.sh("systemctl list-unit-files --no-legend 'anycastlb*'", check=False) == ""
