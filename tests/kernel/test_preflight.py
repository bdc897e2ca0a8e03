"""Preflight and the sysctl driver where everything is real: each finding's own command must mend it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anycastlb import daemon, settings
from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.drivers.ipvs.driver import connect
from anycastlb.adapters.drivers.sysctls import TAKEOVER, SysctlDriver
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.model import Catalog, Change, DriverError, Entry, Tree
from anycastlb.doctor.collect import startup
from anycastlb.doctor.collect.host import FORWARDING
from anycastlb.doctor.collect.startup import at_start
from anycastlb.doctor.diagnosis import preflight
from anycastlb.doctor.finding import Finding
from anycastlb.settings import Settings
from tests.support.netns import run

pytestmark = pytest.mark.usefixtures("netns")
SETTINGS = settings.parse('[node]\nvip_ranges = ["192.0.2.0/24", "2001:db8:2::/64"]')
UNMANAGED = settings.parse('[node]\nvip_ranges = ["192.0.2.0/24"]\n[ipvs]\nmanage_sysctls = false')


def found(config: Settings) -> tuple[Finding, ...]:
    return preflight(at_start(config))


def catalog(forward: str) -> Catalog:
    backends = {"b1": {"address": "10.1.0.1"}, "b2": {"address": "fd00::1"}}
    document = {"vip": ["192.0.2.1", "2001:db8:2::1"], "port": 80, "forward": forward, "backends": backends}
    tree = Tree({"services/web": Entry(json.dumps(document).encode())})
    parsed = parse_catalog(tree, Catalog(), SETTINGS.node.vip_ranges, (), PARAMS)
    assert not parsed.problems
    return parsed


def test_a_machine_that_lacks_nothing() -> None:
    connect().close()
    assert found(SETTINGS) == ()


def test_unmanaged_sysctls_are_named_with_the_command_that_sets_them() -> None:
    connect().close()
    findings = found(UNMANAGED)
    assert {finding.level for finding in findings} == {"warning"}
    assert any("sloppy_tcp is 0" in finding.what for finding in findings)
    for finding in findings:
        run(*finding.mend.split())
    assert found(UNMANAGED) == ()


def test_the_first_catalog_with_nat_backends_says_that_this_node_does_not_forward() -> None:
    """The daemon's own hook, as the node calls it: each finding is one event for as long as it lasts."""
    connect().close()
    for name in FORWARDING:
        Path("/proc/sys", name).write_text("0")
    journal = Journal()
    on_catalog = daemon.catalog_inspector(SETTINGS, journal)

    def reported() -> list[tuple[str, str, str]]:
        return [(r.event.kind, r.event.level, r.event.reason) for r in journal.records()]

    on_catalog(catalog("tunnel"))
    assert reported() == []
    on_catalog(catalog("nat"))
    mends = ["sysctl -w net.ipv4.ip_forward=1", "sysctl -w net.ipv6.conf.all.forwarding=1"]
    assert reported() == [("preflight", "error", mend) for mend in mends]
    on_catalog(catalog("nat"))
    assert len(reported()) == 2
    for mend in mends:
        run(*mend.split())
    on_catalog(catalog("nat"))
    assert len(reported()) == 2
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    on_catalog(catalog("nat"))
    assert len(reported()) == 3


async def test_a_node_starts_with_warnings_and_not_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the daemon does it, inside its event loop."""
    connect().close()
    journal = Journal()
    await daemon.inspect(UNMANAGED, journal)
    assert {record.event.level for record in journal.records()} == {"warning"}
    monkeypatch.setattr(startup, "DEFAULT_SCHEDULERS", ("mh", "rr", "foo"))
    with pytest.raises(DriverError, match=r'no IPVS scheduler "foo" \(mend: modprobe ip_vs_foo\)'):
        await daemon.inspect(UNMANAGED, journal)
    first = next(record.event for record in journal.records() if record.event.level == "error")
    assert (first.kind, first.subject, first.reason) == (
        "preflight",
        'the kernel has no IPVS scheduler "foo"',
        "modprobe ip_vs_foo",
    )


def test_a_strict_reverse_path_filter_is_a_warning() -> None:
    connect().close()
    run("ip", "link", "add", "up0", "type", "dummy")
    Path("/proc/sys/net/ipv4/conf/up0/rp_filter").write_text("1")
    (finding,) = found(SETTINGS)
    assert "up0" in finding.what
    run(*finding.mend.split())
    assert found(SETTINGS) == ()


def test_without_the_capability_that_is_the_first_finding(require: Callable[[str], str]) -> None:
    code = (
        "from anycastlb import settings; from anycastlb.doctor.diagnosis import preflight\n"
        "from anycastlb.doctor.collect.startup import at_start\n"
        "config = settings.parse('[node]\\nvip_ranges = [\"192.0.2.0/24\"]')\n"
        "for finding in preflight(at_start(config)): print(finding.level, finding.what)"
    )
    command = [require("setpriv"), "--bounding-set=-net_admin", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith("error this process lacks CAP_NET_ADMIN")


def test_without_the_capability_the_drivers_say_so(require: Callable[[str], str]) -> None:
    code = (
        "import asyncio; from ipaddress import ip_address, ip_network\n"
        "from anycastlb.core.model import *\n"
        "from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver\n"
        "from anycastlb.adapters.drivers.addresses import AddressDriver\n"
        "async def main():\n"
        "    change = Change('addresses', ip_address('192.0.2.1'), None, VipAddress())\n"
        "    for work in (IpvsDriver([ip_network('192.0.2.0/24')]).observe(), AddressDriver().apply([change])):\n"
        "        try: await work\n"
        "        except DriverError as exc: print(exc)\n"
        "asyncio.run(main())"
    )
    command = [require("setpriv"), "--bounding-set=-net_admin", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "read IPVS: it needs CAP_NET_ADMIN" in first
    assert "change addresses of lo: it needs CAP_NET_ADMIN" in second


async def test_a_sysctl_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    connect().close()
    (failure,) = await SysctlDriver().apply([Change("sysctls", "net/ipv4/vs/sloppy_tcp", "0", "many")])
    assert "does not accept the value 'many'" in failure.reason.text
    missing = SysctlDriver(TAKEOVER, root=tmp_path)
    assert (await missing.observe())["sysctls"] == {}
    (failure,) = await missing.apply([Change("sysctls", "net/ipv4/vs/sloppy_tcp", None, "1")])
    assert "modprobe ip_vs" in failure.reason.text
