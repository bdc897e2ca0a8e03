"""The kernel's settings, by the reconciler and the real drivers: set, repaired, and given back as they were found."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from anycastlb import settings
from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver, connect
from anycastlb.adapters.drivers.saved_settings import NAME
from anycastlb.adapters.drivers.sysctls import TAKEOVER, read
from anycastlb.core.model import Change, Destination, DestinationKey, ServiceKey, VirtualService
from anycastlb.settings import Settings
from tests.support.daemon import Daemon
from tests.support.netns import fresh, run
from tests.support.site import until

pytestmark = pytest.mark.usefixtures("netns")
THRESHOLD = "net/ipv4/vs/sync_threshold"
LO = 'sync_interface = "lo"\nsync_id = 9\n'


def node_toml(state_dir: Path, ipvs: str = "") -> Settings:
    return settings.parse(f'[node]\nvip_ranges = ["192.0.2.0/24"]\nstate_dir = "{state_dir}"\n[ipvs]\n{ipvs}')


def timeouts() -> tuple[int, ...]:
    """As ipvsadm says."""
    match = re.search(r"Timeout \(tcp tcpfin udp\): (\d+) (\d+) (\d+)", run("ipvsadm", "-L", "--timeout"))
    assert match
    return tuple(map(int, match.groups()))


def daemons() -> set[str]:
    """As ipvsadm says: ``master sync daemon (mcast=lo, syncid=9, ...)``."""
    return set(run("ipvsadm", "-L", "--daemon").splitlines())


def sysctls(*names: str) -> dict[str, str | None]:
    return {name: read(name) for name in names}


@pytest.fixture
def found() -> Iterator[dict[str, Any]]:
    """What is there before any daemon, an operator's own values among them."""
    connect().close()
    run("ipvsadm", "--set", "700", "0", "250")
    run("sysctl", "-qw", "net.ipv4.vs.conn_reuse_mode=2")
    before = everything()
    assert before["timeouts"] == (700, 120, 250) and before["daemons"] == set()
    yield before


def everything() -> dict[str, Any]:
    return {"timeouts": timeouts(), "daemons": daemons(), "sysctls": sysctls(*TAKEOVER, THRESHOLD)}


async def test_what_is_set_is_given_back_at_a_stop_and_at_no_other_end(tmp_path: Path, found: dict[str, Any]) -> None:
    config = node_toml(tmp_path, LO + 'tcp_timeout = "400s"\nudp_timeout = "1m"\nsync_ttl = 3\nsync_port = 9999\n')
    daemon = Daemon(config)
    assert await daemon.cycle() == []
    wanted = everything()
    assert wanted["timeouts"] == (400, 120, 60)
    assert {re.sub(r"maxlen=\d+", "maxlen", line) for line in wanted["daemons"]} == {
        "master sync daemon (mcast=lo, syncid=9, maxlen, group=224.0.0.81, port=9999, ttl=3)",
        "backup sync daemon (mcast=lo, syncid=9, maxlen, group=224.0.0.81, port=9999, ttl=3)",
    }
    assert wanted["sysctls"] == {**TAKEOVER, THRESHOLD: "2 50"}
    assert await daemon.cycle() == [] and not daemon.reconciler.snapshot.plan
    for _ in range(2):
        daemon.die()
        assert everything() == wanted
        daemon = Daemon(config)
        assert await daemon.cycle() == [] and not daemon.reconciler.snapshot.plan
    await daemon.stop()
    assert everything() == found
    assert json.loads((tmp_path / NAME).read_text())["rows"] == {}
    assert daemon.complaints == []


async def test_drift_is_repaired_and_the_original_stays_the_original(tmp_path: Path, found: dict[str, Any]) -> None:
    daemon = Daemon(node_toml(tmp_path, LO + 'tcp_timeout = "400s"\n'))
    await daemon.cycle()
    wanted = everything()
    for value in ("1", "700"):  # a third value, and by chance the original one
        run("ipvsadm", "--set", value, "0", "0")
        run("ipvsadm", "--stop-daemon", "master")
        run("sysctl", "-qw", "net.ipv4.vs.conn_reuse_mode=2", "net.ipv4.vs.sync_threshold=3 50")
        assert everything() != wanted
        assert await daemon.cycle() == []
        assert everything() == wanted
    run("ipvsadm", "--stop-daemon", "backup")
    run("ipvsadm", "--start-daemon", "backup", "--mcast-interface", "lo", "--syncid", "1")
    assert await daemon.cycle() == []
    assert everything() == wanted
    await daemon.stop()
    assert everything() == found


async def test_what_node_toml_asks_for_no_more_is_given_back_at_once(tmp_path: Path, found: dict[str, Any]) -> None:
    daemon = Daemon(node_toml(tmp_path, LO + 'tcp_timeout = "400s"\nudp_timeout = "1m"\n'))
    await daemon.cycle()
    daemon.die()
    daemon = Daemon(node_toml(tmp_path, 'tcp_timeout = "500s"\n'))
    assert await daemon.cycle() == []
    assert everything() == {**found, "timeouts": (500, 120, 250), "sysctls": {**TAKEOVER, THRESHOLD: "3 50"}}
    run("ipvsadm", "--set", "0", "0", "77")  # nobody's business any more
    assert await daemon.cycle() == [] and timeouts() == (500, 120, 77)
    await daemon.stop()
    assert timeouts() == (700, 120, 77)


async def test_unmanaged_nothing_is_written(tmp_path: Path, found: dict[str, Any]) -> None:
    daemon = Daemon(node_toml(tmp_path, LO + 'tcp_timeout = "400s"\nmanage_sysctls = false\n'))
    assert await daemon.cycle() == []
    await daemon.stop()
    assert everything() == found and not (tmp_path / NAME).exists()


async def test_the_operator_takes_over_what_is_managed_no_more(tmp_path: Path, found: dict[str, Any]) -> None:
    daemon = Daemon(node_toml(tmp_path, LO))
    await daemon.cycle()
    wanted = everything()
    daemon.die()
    for text in ("manage_sysctls = false\n", ""):
        daemon = Daemon(node_toml(tmp_path, text))
        await daemon.cycle()
        await daemon.stop()
        assert everything() == wanted


async def test_a_sync_daemon_of_somebody_else_is_left_alone(tmp_path: Path, found: dict[str, Any]) -> None:
    run("ipvsadm", "--start-daemon", "backup", "--mcast-interface", "lo", "--syncid", "1")
    theirs = daemons()
    daemon = Daemon(node_toml(tmp_path))
    assert await daemon.cycle() == []
    await daemon.stop()
    assert daemons() == theirs
    daemon = Daemon(node_toml(tmp_path, LO))
    assert await daemon.cycle() == [] and not daemons() & theirs
    await daemon.stop()
    assert daemons() == theirs


async def test_what_was_found_in_another_namespace_is_not_given_back_here(tmp_path: Path) -> None:
    config = node_toml(tmp_path, 'tcp_timeout = "400s"\n')
    with fresh():
        connect().close()
        run("ipvsadm", "--set", "111", "0", "0")
        daemon = Daemon(config)
        await daemon.cycle()
        daemon.die()
    with fresh():
        connect().close()
        run("ipvsadm", "--set", "222", "0", "0")
        daemon = Daemon(config)
        await daemon.cycle()
        assert timeouts()[0] == 400
        await daemon.stop()
        assert timeouts()[0] == 222


async def test_a_state_dir_that_cannot_be_written_is_told_and_hinders_nothing(
    tmp_path: Path, found: dict[str, Any]
) -> None:
    (tmp_path / "file").write_text("")
    daemon = Daemon(node_toml(tmp_path / "file", 'tcp_timeout = "400s"\n'))
    assert await daemon.cycle() == [] and timeouts()[0] == 400
    assert [what for what in daemon.complaints if "cannot be written" in what] == daemon.complaints[1:] != []
    await daemon.stop()
    assert everything() == found


async def test_an_interface_that_is_not_there_yet(tmp_path: Path, found: dict[str, Any]) -> None:
    daemon = Daemon(node_toml(tmp_path, 'sync_interface = "lan"\n'))
    failures = await daemon.cycle()
    assert len(failures) == 2 and all("no interface lan" in reason for reason in failures)
    assert sysctls(*TAKEOVER) == TAKEOVER
    run("ip", "link", "add", "lan", "type", "dummy")
    run("ip", "address", "add", "10.0.0.1/24", "dev", "lan")
    run("ip", "link", "set", "lan", "up")
    assert await daemon.cycle() == []
    assert len(daemons()) == 2
    await daemon.stop()
    assert everything() == found


async def test_mixed_families_and_sync_exclude_each_other_in_words(tmp_path: Path, found: dict[str, Any]) -> None:
    key = ServiceKey("tcp", ip_address("192.0.2.10"), 80)
    real = DestinationKey(key, ip_address("2001:db8:1::1"), 80)
    service = Change("services", key, None, VirtualService("mh"))
    mixed = Change("destinations", real, None, Destination("tunnel", 1, 1))
    daemon = Daemon(node_toml(tmp_path, LO))
    await daemon.cycle()
    by_hand = IpvsDriver([ip_network("192.0.2.0/24")])
    by_hand.open()
    (failure,) = await by_hand.apply([service, mixed])
    assert failure.change == mixed and "sync_interface" in failure.reason.text
    daemon.die()
    daemon = Daemon(node_toml(tmp_path))
    await daemon.cycle()
    assert daemons() == set()
    assert await by_hand.apply([mixed]) == []
    by_hand.close()
    daemon.die()
    daemon = Daemon(node_toml(tmp_path, LO))  # adopts the service, to drain it
    failures = await daemon.cycle()
    assert len(failures) == 2 and all("other address family" in reason for reason in failures)
    daemon.die()


async def test_time_outs_are_lowered_only_where_every_entry_is_a_cache(tmp_path: Path, found: dict[str, Any]) -> None:
    daemon = Daemon(node_toml(tmp_path))
    for scheduler, options, seen in (
        ("mh", [], (300, 60, 250)),
        ("rr", [], (700, 120, 250)),
        ("mh", ["-p", "60"], (700, 120, 250)),
        ("mh", [], (300, 60, 250)),
    ):
        run("ipvsadm", "-C")
        run("ipvsadm", "-A", "-t", "192.0.2.10:80", "-s", scheduler, *options)
        daemon.die()
        daemon = Daemon(node_toml(tmp_path))  # adopts what it finds, to drain it
        assert await daemon.cycle() == []
        assert timeouts() == seen
    daemon.die()


async def test_the_real_process_gives_back_at_sigterm_only(tmp_path: Path, found: dict[str, Any]) -> None:
    """``anycastlb run``: handed over, killed, and at last stopped for good."""
    services = tmp_path / "catalog" / "services"
    services.mkdir(parents=True)
    web = {"vip": "192.0.2.10", "port": 80, "check": {"type": "none"}, "drain": "1s", "scheduler": "mh"}
    (services / "web.json").write_text(json.dumps({**web, "backends": {"b1": {"address": "10.1.0.1"}}}))
    config = tmp_path / "node.toml"
    config.write_text(
        f'[node]\nvip_ranges = ["192.0.2.0/24"]\nstate_dir = "{tmp_path}/state"\n'
        f'[catalog]\nsource = "file"\npath = "{tmp_path}/catalog"\n[bgp]\nsocket = "{tmp_path}/bgp.sock"\n'
        f'[api]\nsocket = "{tmp_path}/api.sock"\n[ipvs]\n{LO}udp_timeout = "20s"\n'
    )
    wanted: dict[str, Any] | None = None
    for life, ending in enumerate((signal.SIGUSR1, signal.SIGKILL, signal.SIGTERM), 1):
        with (tmp_path / "log").open("a") as log:
            command = [sys.executable, "-m", "anycastlb", "run", "--config", str(config)]
            process = subprocess.Popen(command, stderr=log)
        try:
            assert await until(lambda: timeouts() == (700, 120, 20) and len(daemons()) == 2), everything()
            assert await until(lambda: "192.0.2.10:80" in run("ipvsadm", "-Ln"))
            assert await until(lambda: (tmp_path / "log").read_text().count("kind=gate") == life)  # noqa: B023
            assert wanted in (None, everything())
            wanted = everything()
            assert wanted["sysctls"] == {**TAKEOVER, THRESHOLD: "2 50"}
        finally:
            process.send_signal(ending)
            code = await asyncio.to_thread(process.wait, 300)
        if ending != signal.SIGTERM:
            assert everything() == wanted
    assert (code, everything()) == (0, found), (tmp_path / "log").read_text()
