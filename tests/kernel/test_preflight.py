"""Preflight and the sysctl driver where everything is real: each finding's own command must mend it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anycastlb import settings
from anycastlb.adapters.drivers.ipvs.driver import connect
from anycastlb.adapters.drivers.sysctls import TAKEOVER, SysctlDriver
from anycastlb.core.model import Change
from anycastlb.doctor.preflight import preflight
from tests.kernel.netns import run

pytestmark = pytest.mark.usefixtures("netns")
SETTINGS = settings.parse('[node]\nvip_ranges = ["192.0.2.0/24"]')
UNMANAGED = settings.parse('[node]\nvip_ranges = ["192.0.2.0/24"]\n[ipvs]\nmanage_sysctls = false')


def lacks(*args: object, **kwargs: object) -> list[str]:
    return [str(finding) for finding in preflight(*args, **kwargs)]  # type: ignore[arg-type]


def test_a_machine_that_lacks_nothing() -> None:
    connect().close()
    assert lacks(SETTINGS) == []


def test_unmanaged_sysctls_are_named_with_the_command_that_sets_them() -> None:
    connect().close()
    found = preflight(UNMANAGED)
    assert {finding.level for finding in found} == {"warning"}
    assert any("sloppy_tcp is 0" in finding.what for finding in found)
    for finding in found:
        run(*finding.mend.split())
    assert lacks(UNMANAGED) == []


def test_nat_needs_forwarding() -> None:
    connect().close()
    for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        Path("/proc/sys", name).write_text("0")
    found = preflight(SETTINGS, nat=True)
    assert len(found) == 2
    assert {finding.level for finding in found} == {"error"}
    for finding in found:
        run(*finding.mend.split())
    assert lacks(SETTINGS, nat=True) == []


def test_a_strict_reverse_path_filter_is_a_warning() -> None:
    connect().close()
    run("ip", "link", "add", "up0", "type", "dummy")
    Path("/proc/sys/net/ipv4/conf/up0/rp_filter").write_text("1")
    (finding,) = preflight(SETTINGS)
    assert "up0" in finding.what
    run(*finding.mend.split())
    assert lacks(SETTINGS) == []


def test_a_scheduler_the_kernel_lacks_is_an_error() -> None:
    connect().close()
    (finding,) = preflight(SETTINGS, schedulers=("mh", "rr", "foo"))
    assert finding.level == "error"
    assert (finding.what, finding.mend) == ('the kernel has no IPVS scheduler "foo"', "modprobe ip_vs_foo")


def test_without_the_capability_that_is_the_first_finding(require: Callable[[str], str]) -> None:
    code = (
        "from anycastlb import settings; from anycastlb.doctor.preflight import preflight\n"
        "for finding in preflight(settings.parse('[node]\\nvip_ranges = [\"192.0.2.0/24\"]')): print(finding)"
    )
    command = [require("setpriv"), "--bounding-set=-net_admin", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith("error: this process lacks CAP_NET_ADMIN")


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
