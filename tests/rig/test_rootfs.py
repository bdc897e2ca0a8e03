"""A bare Debian root: bare, the machine's own suite, and apart from the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import bareroot, rootfs
from tests.rig.require import require


@pytest.fixture(scope="module", autouse=True)
def maker() -> str:
    return require("rootfs")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[rootfs.Rootfs]:
    root = rootfs.bare().copy(tmp_path / "root")
    yield root
    root.remove()


def test_a_copy_is_the_machines_own_suite_and_nothing_more(root: rootfs.Rootfs) -> None:
    said = root.run("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME; hostname; ls /home; command -v ip python3")
    assert said.stdout.split() == [bareroot.release(), "bare"]


def test_what_is_done_to_a_copy_is_not_done_to_its_original(root: rootfs.Rootfs) -> None:
    before = rootfs.bare().run("dpkg", "--verify").stdout
    done = root.run("sh", "-c", "rm /usr/bin/tac; echo new >/usr/bin/more.new; echo new >/etc/hostname; dpkg --verify")
    assert "/usr/bin/tac" in done.stdout
    assert rootfs.bare().run("dpkg", "--verify").stdout == before
    assert not rootfs.bare().file("/usr/bin/more.new").exists()
    assert rootfs.bare().file("/etc/hostname").read_text() != "new\n"


def test_what_is_bound_is_there_while_a_command_runs_and_only_written_where_it_may_be(
    root: rootfs.Rootfs, tmp_path: Path
) -> None:
    (tmp_path / "given").write_text("given")
    root.binds["/srv"] = (str(tmp_path), "ro")
    assert root.run("cat", "/srv/given").stdout == "given"
    assert root.run("touch", "/srv/more").returncode != 0
    root.binds["/srv"] = (str(tmp_path), "rw")
    assert root.run("touch", "/srv/more").returncode == 0
    assert (tmp_path / "more").exists()
    assert not list(root.file("/srv").iterdir())


def test_without_network_it_has_a_loopback_of_its_own(root: rootfs.Rootfs) -> None:
    said = root.run("sh", "-c", "ls /sys/class/net; cat /proc/net/dev", network=False)
    assert "lo:" in said.stdout
    assert "eth0" not in said.stdout


def test_it_can_make_roots_and_machines_of_its_own(root: rootfs.Rootfs) -> None:
    assert root.run("unshare", "--mount", "--pid", "--fork", "true").stdout == ""
