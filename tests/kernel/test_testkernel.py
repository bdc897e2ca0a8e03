"""The test kernel seen from inside: what a test that runs there may rely on."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig import testkernel
from tests.rig.require import require

NESTED = [sys.executable, testkernel.__file__, "run", "--kernel", "host"]


@pytest.fixture(scope="module", autouse=True)
def kernel() -> str:
    return require("kernel")


def sh(script: str) -> str:
    return subprocess.check_output(["sh", "-euc", script], text=True)


def test_ipvs_takes_services_and_loads_schedulers_as_asked() -> None:
    listed = sh("unshare -n sh -euc 'ipvsadm -A -t 192.0.2.1:80 -s mh -b mh-port; ipvsadm -Ln'")
    assert "TCP  192.0.2.1:80 mh (mh-port)" in listed


def test_links_and_tunnels_load_their_modules() -> None:
    make = "ip link add left type veth peer name right; ip tunnel add pipe mode ipip local 192.0.2.1"
    listed = sh(f"unshare -n sh -euc '{make}; ip -br link'")
    assert "left@right" in listed
    assert "pipe@NONE" in listed


def test_named_network_namespaces() -> None:
    assert "lo" in sh("ip netns add rig-$$; ip netns exec rig-$$ ip -br link; ip netns del rig-$$")


def test_loopback_is_up_and_many_files_may_be_open() -> None:
    assert int(Path("/sys/class/net/lo/flags").read_text(), 16) & 1
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 65536


def test_temporary_files_are_in_memory(tmp_path: Path) -> None:
    assert os.environ["TMPDIR"] == "/run/tmp"
    assert tmp_path.is_relative_to("/run/tmp")


def test_on_a_kernel_with_ipvs_root_gets_the_hosts_kernel() -> None:
    assert testkernel.choose().kernel == "host"


def test_the_hosts_kernel_is_used_without_touching_its_network() -> None:
    changes = "ipvsadm -A -t 192.0.2.77:80; ip link add rigged type dummy; touch /run/rigged; hostname changed"
    script = f"set -e; {changes}; ipvsadm -Ln; exit 7"
    done = subprocess.run([*NESTED, "--", "sh", "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert "192.0.2.77:80" in done.stdout
    assert "192.0.2.77" not in Path("/proc/net/ip_vs").read_text()
    assert not Path("/sys/class/net/rigged").exists()
    assert not Path("/run/rigged").exists()
    assert os.uname().nodename == "testkernel"


def test_on_the_hosts_kernel_too_nothing_stays_after_a_time_out() -> None:
    done = subprocess.run(
        [*NESTED, "--timeout", "1", "--", "sh", "-c", "trap '' INT; sleep 4321; sleep 4321"],
        check=False,
        capture_output=True,
    )
    assert done.returncode == testkernel.TIMED_OUT
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"4321" in path.read_bytes()]
