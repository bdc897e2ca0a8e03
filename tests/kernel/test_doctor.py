"""The doctor where things are really amiss: one thing is broken, and the finding's own command mends it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.drivers.ipvs.driver import connect
from anycastlb.cli.settings_file import load
from anycastlb.doctor import Finding, collect, diagnose
from tests.lab.process import until
from tests.support.netns import run

pytestmark = pytest.mark.usefixtures("netns")
NODE = """\
[node]
name = "lb1"
vip_ranges = ["192.0.2.0/24", "2001:db8:2::/64"]
state_dir = "{folder}"
[catalog]
source = "file"
path = "{folder}/catalog"
[bgp]
socket = "{folder}/bgp.sock"
[api]
listen = "127.0.0.1:1"
"""


TABLE = "conn_tab_bits = 12"
"""What the doctor shows of a table of connections of the size that the kernel has by itself."""


class Patient:
    """A namespace with one interface up0 (mtu 1600) towards 10.1.0.0/24 and fd00::/64, and a catalog."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "node.toml"
        self.config.write_text(NODE.format(folder=folder))
        self.services = folder / "catalog/services"
        self.services.mkdir(parents=True)
        connect().close()
        run("ip", "link", "add", "up0", "mtu", "1600", "up", "type", "dummy")
        run("ip", "addr", "add", "10.1.0.254/24", "dev", "up0")
        run("ip", "addr", "add", "fd00::254/64", "dev", "up0", "nodad")
        for name in ("arp_ignore", "arp_announce"):
            self.sysctl(f"net/ipv4/conf/all/{name}", "0")
        self.serve("web", backends={"b1": {"address": "10.1.0.1"}})

    def serve(self, name: str, **document: Any) -> None:
        (self.services / f"{name}.json").write_text(json.dumps({"vip": "192.0.2.1", "port": 80, **document}))

    def sysctl(self, name: str, value: str) -> None:
        Path("/proc/sys", name).write_text(value)

    def amiss(self) -> list[Finding]:
        """What is worse than a notice, of the kernel, the network and the catalog.

        But not the size of the table of connections, which was set when the module was loaded.
        """
        findings = diagnose(collect(str(self.config), load(str(self.config))))
        worse = [f for f in findings if f.level in ("warning", "error") and f.area in ("kernel", "network", "catalog")]
        return [finding for finding in worse if finding.evidence != TABLE]


@pytest.fixture
def patient(tmp_path: Path, netns: None) -> Iterator[Patient]:
    yield Patient(tmp_path)


def test_a_small_table_of_connections_is_told(patient: Patient) -> None:
    findings = diagnose(collect(str(patient.config), load(str(patient.config))))
    (finding,) = [finding for finding in findings if finding.evidence == TABLE]
    assert finding.level == "warning" and "options ip_vs conn_tab_bits=20" in finding.mend


def mend(finding: Finding) -> None:
    run(*shlex.split(finding.mend, comments=True))


def test_a_good_namespace_has_nothing_amiss(patient: Patient) -> None:
    assert patient.amiss() == []
    findings = diagnose(collect(str(patient.config), load(str(patient.config))))
    text = "\n".join(f"{f.what}: {f.evidence}" for f in findings)
    assert "IPVS is there: IP Virtual Server version" in text
    assert "up0: mtu 1600, tunnel over IPv4 adds 20, leaves 1580" in text
    assert "the node will set IPVS time-outs when it starts: tcp_timeout 300 s, tcpfin_timeout 60 s" in text
    assert "tcp 900 s, tcpfin 120 s, udp 300 s" in text


def test_a_strict_reverse_path(patient: Patient) -> None:
    patient.sysctl("net/ipv4/conf/up0/rp_filter", "1")
    (finding,) = patient.amiss()
    assert "rp_filter is strict on up0" in finding.what
    mend(finding)
    assert patient.amiss() == []


@pytest.mark.parametrize(
    ("forward", "address", "added"),
    [("tunnel", "10.1.0.1", 20), ("gre", "10.1.0.1", 24), ("gue", "10.1.0.1", 32),
     ("tunnel", "fd00::1", 40), ("gre", "fd00::1", 44), ("gue", "fd00::1", 52)],
)  # fmt: skip
def test_a_small_mtu(patient: Patient, forward: str, address: str, added: int) -> None:
    patient.serve("web", forward=forward, backends={"b1": {"address": address}})
    run("ip", "link", "add", "clients", "mtu", "1500", "up", "type", "dummy")
    run("ip", "link", "set", "up0", "mtu", "1400")
    (finding,) = patient.amiss()
    assert finding.level == "warning"
    assert f"adds {added}, leaves {1400 - added}; packets arrive with up to 1500 (web/b1)" in finding.evidence
    mend(finding)
    assert patient.amiss() == []


def test_a_route_with_an_mtu_of_its_own(patient: Patient) -> None:
    run("ip", "route", "add", "10.9.0.0/24", "via", "10.1.0.7", "mtu", "1300")
    patient.serve("web", backends={"b1": {"address": "10.9.0.1"}})
    (finding,) = patient.amiss()
    assert "up0: mtu 1300" in finding.evidence


def test_ipv6_does_not_fit_at_all(patient: Patient) -> None:
    run("ip", "link", "set", "up0", "mtu", "1310")
    patient.serve("six", vip="2001:db8:2::1", backends={"b1": {"address": "fd00::1"}})
    levels = {(f.level, "IPv6 needs" in f.what) for f in patient.amiss()}
    assert ("error", True) in levels


def test_no_way_to_a_backend(patient: Patient) -> None:
    patient.serve("web", backends={"b1": {"address": "10.77.0.1"}})
    (finding,) = patient.amiss()
    assert finding.level == "error"
    assert "no way to backend web/b1" in finding.what
    assert "network is unreachable" in finding.evidence


def test_nat_without_forwarding(patient: Patient) -> None:
    patient.serve("web", forward="nat", backends={"b1": {"address": "10.1.0.1"}})
    patient.sysctl("net/ipv4/ip_forward", "0")
    (finding,) = patient.amiss()
    assert finding.level == "error"
    mend(finding)
    assert patient.amiss() == []


def test_vips_in_the_network_of_an_interface(patient: Patient) -> None:
    run("ip", "addr", "add", "192.0.2.250/24", "dev", "up0")
    findings = patient.amiss()
    assert [finding.evidence.split(" = ")[0] for finding in findings] == [
        "net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.all.arp_announce",
    ]  # fmt: skip
    for finding in findings:
        mend(finding)
    assert patient.amiss() == []


def test_a_loopback_that_is_down(patient: Patient) -> None:
    run("ip", "link", "set", "lo", "down")
    findings = patient.amiss()
    assert any("loopback" in finding.what for finding in findings)
    for finding in findings:
        if "loopback" in finding.what:
            mend(finding)
    assert patient.amiss() == []


def test_sysctls_nobody_manages(patient: Patient) -> None:
    patient.config.write_text(patient.config.read_text() + "[ipvs]\nmanage_sysctls = false\n")
    findings = patient.amiss()
    assert any("sloppy_tcp" in finding.what for finding in findings)
    for finding in findings:
        mend(finding)
    assert patient.amiss() == []


def test_settings_of_ipvs_nobody_manages(patient: Patient) -> None:
    def amiss() -> list[Finding]:
        findings = diagnose(collect(str(patient.config), load(str(patient.config))))
        words = ("IPVS time-outs", "connection sync", "net.ipv4.vs.")
        return [f for f in findings if f.level != "ok" and any(word in f.what for word in words)]

    text = patient.config.read_text() + "[ipvs]\nmanage_sysctls = false\n"
    patient.config.write_text(text)
    for finding in patient.amiss():
        mend(finding)
    (finding,) = amiss()
    assert (finding.level, "tcp_timeout 300 s, tcpfin_timeout 60 s" in finding.what) == ("notice", True)
    mend(finding)
    assert amiss() == []
    run("ipvsadm", "--start-daemon", "backup", "--mcast-interface", "lo", "--syncid", "3")
    (finding,) = amiss()
    assert "does not ask for" in finding.what
    more = 'sync_interface = "lo"\nsync_ttl = 2\nsync_refresh = "1m"\ntcp_timeout = "8m"\n'
    patient.config.write_text(text + more)
    findings = amiss()
    assert [finding.level for finding in findings] == ["warning"] * 5  # two sysctls, the time-outs, two daemons
    for finding in findings:
        for command in finding.mend.split("; "):
            mend(replace(finding, mend=command))
    assert amiss() == []


def test_a_scheduler_whose_module_is_missing(patient: Patient) -> None:
    program = Path("/proc/sys/kernel/modprobe")
    before = program.read_text()
    patient.serve("web", scheduler="ovf", backends={"b1": {"address": "10.1.0.1"}})
    assert patient.amiss() == []
    program.write_text("/bin/false")
    try:
        (finding,) = patient.amiss()
    finally:
        program.write_text(before)
    assert finding.what == 'the kernel has no IPVS scheduler "ovf"'


def test_documents_with_problems_are_told(patient: Patient) -> None:
    patient.serve("bad", port="many")
    (finding,) = patient.amiss()
    assert "bad.json" in finding.evidence
    (patient.services / "bad.json").unlink()
    assert patient.amiss() == []


@pytest.mark.parametrize("lost", ["-net_admin", "-all"])
def test_without_privilege_it_says_what_it_lacks_and_ends_with_2(
    patient: Patient, require: Callable[[str], str], lost: str
) -> None:
    argv = [require("setpriv"), f"--bounding-set={lost}", sys.executable, "-m", "anycastlb", "doctor"]
    done = subprocess.run(
        [*argv, "--config", str(patient.config), "-o", "json"], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stderr) == (2, "")
    told = json.loads(done.stdout)
    found = {f["what"]: f for f in told["findings"]}
    assert told["worst"] == "error"
    assert found["this process lacks CAP_NET_ADMIN, which IPVS and addresses need"]["level"] == "error"
    assert "IPVS time-outs and connection sync could not be seen" in found


def test_a_node_in_another_namespace_is_told(patient: Patient, tmp_path: Path) -> None:
    """The daemon is where the machine is, and the doctor was called from a namespace of a container."""
    script = tmp_path / "anycastlb"
    script.write_text(f"#!{sys.executable}\nimport signal; signal.pause()\n")
    script.chmod(0o755)
    process = subprocess.Popen(["unshare", "-n", str(script), "run", "--config", str(patient.config)])
    try:
        (finding,) = until(
            lambda: [found for found in patient.amiss() if "another network namespace" in found.what], "it is seen"
        )
        assert finding.mend == f"nsenter -t {process.pid} -n anycastlb doctor"
    finally:
        process.kill()
        process.wait()
