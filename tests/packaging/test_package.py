"""Wheel and Debian package hold what they should and no more; building, too, what ``tests/machine`` needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rig import bareroot, package
from tests.support.documented import typed_blocks

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "configs/systemd").glob("*.service"))
SHARED = ("node.toml", "exabgp.conf", "systemd/anycastlb.service", "systemd/anycastlb-exabgp.service",
          "systemd/anycastlb-haproxy.service",
          "sysusers.d/anycastlb.conf", "tmpfiles.d/anycastlb.conf", "sysctl.d/50-anycastlb.conf",
          "modules-load.d/anycastlb.conf", "modprobe.d/anycastlb.conf",
          "consul/node.hcl", "consul/operator.hcl", "consul/reader.hcl")  # fmt: skip


def run(*command: str, **more: str) -> str:
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **more}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def sources() -> set[str]:
    """Every file of the package that git or setuptools could know."""
    paths = (path for path in (ROOT / "anycastlb").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(ROOT)) for path in paths}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", str(folder), ".")
    return next(folder.glob("*.whl"))


def test_the_wheel_is_whole(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if name.startswith("anycastlb/")} == sources()
    assert not {name for name in SHARED if not any(n.endswith(f"share/anycastlb/{name}") for n in names)}
    assert not {name for name in names if "tests/" in name}


def test_pipx_installs_it(wheel: Path, require: Callable[[str], str], tmp_path: Path) -> None:
    pipx, home = require("pipx"), tmp_path / "home"
    run(pipx, "install", f"{wheel}[bgp,grpc]", PIPX_HOME=str(home), PIPX_BIN_DIR=str(tmp_path / "bin"))
    assert {path.name for path in (tmp_path / "bin").iterdir()} >= {"anycastlb", "anycastlb-bridge"}
    assert run(str(tmp_path / "bin/anycastlb"), "--version").startswith("anycastlb")
    environment = home / "venvs/anycastlb"
    assert not [name for name in SHARED if not (environment / "share/anycastlb" / name).exists()]
    assert (environment / "bin/exabgp").exists()
    put_in_place(environment, tmp_path)


def put_in_place(environment: Path, folder: Path) -> None:
    """What docs/INSTALL.md says to do then, as it stands, below a root of its own; systemd is told nothing."""
    root, programs = folder / "root", folder / "programs"
    for name in ("usr/local/bin", "usr/share", "etc/systemd/system"):
        (root / name).mkdir(parents=True)
    programs.mkdir()
    for name in ("systemd-sysusers", "systemd-tmpfiles", "systemctl"):
        (programs / name).write_text("#!/bin/sh\nexit 0\n")
        (programs / name).chmod(0o755)
    (typed,) = [block.text for block in typed_blocks() if block.text.startswith("venv=")]
    here = re.sub(r" (?=/(usr|etc)/)", f" {root}", typed).replace("/opt/pipx/venvs/anycastlb", str(environment))
    run("bash", "-e", "-c", here, PATH=f"{programs}:{os.environ['PATH']}")
    assert {path.name for path in (root / "etc/systemd/system").iterdir()} == {unit.name for unit in UNITS}
    assert all((root / "usr/share/anycastlb" / name).exists() for name in SHARED)
    parts = [name for name in SHARED if name.partition("/")[0].endswith(".d")]
    assert len(parts) == 5 and all((root / "etc" / name).exists() for name in parts)
    assert (root / "usr/local/bin/exabgp").exists()


@pytest.fixture(params=bareroot.releases())
def release(request: pytest.FixtureRequest, require: Callable[[str], str]) -> str:
    """This machine's own, unless others are asked for: a package for another one is built in a bare root."""
    if request.param != bareroot.release():
        require("rootfs")
    return str(request.param)


def test_the_debian_package_is_whole(release: str) -> None:
    made = str(package.build(release))
    listed = run("dpkg-deb", "-c", made)
    names = {line.split()[5].removeprefix(".") for line in listed.splitlines()}
    home = next(name for name in names if name.endswith("/site-packages/"))
    ours = {name.removeprefix(home) for name in names if name.startswith(f"{home}anycastlb/")}
    assert {name for name in ours if not name.endswith("/")} == sources()
    for name in ("/usr/bin/anycastlb", "/usr/bin/anycastlb-bridge", "/usr/bin/exabgp", "/etc/anycastlb/node.toml",
                 "/usr/lib/systemd/system/anycastlb.service", "/usr/lib/sysusers.d/anycastlb.conf"):  # fmt: skip
        assert name in names
    assert not {name for name in names if "__pycache__" in name or name.startswith(("/usr/local", "/tmp"))}
    assert all(line.split()[1] == "root/root" for line in listed.splitlines())
    fields = run("dpkg-deb", "-f", made)
    minor = int(bareroot.PYTHONS[release].removeprefix("3."))
    assert "Conflicts: exabgp" in fields and f"python3 (>= 3.{minor}), python3 (<< 3.{minor + 1})" in fields


def test_nothing_in_the_debian_package_knows_where_it_was_built(release: str, tmp_path: Path) -> None:
    run("dpkg-deb", "-x", str(package.build(release)), str(tmp_path))
    home = tmp_path / "usr/lib/anycastlb"
    for path in [*(home / "bin").iterdir(), home / "pyvenv.cfg"]:
        if not path.is_symlink():
            text = path.read_text()
            assert not [place for place in ("/tmp/", "/root/", str(ROOT)) if place in text], f"{path.name}: {text}"
    assert (home / "bin/anycastlb").read_text().startswith("#!/usr/lib/anycastlb/bin/python")


def test_the_packaged_settings_name_no_ranges_of_ours() -> None:
    """A node that nobody has configured must not start."""
    from anycastlb.core.model import SettingsError
    from anycastlb.settings import parse

    with pytest.raises(SettingsError, match="vip_ranges"):
        parse((ROOT / "configs/debian/node.toml").read_text())


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_sandbox_is_tight(unit: Path, require: Callable[[str], str]) -> None:
    run(require("systemd-analyze"), "security", "--offline=true", "--threshold=25", "--no-pager", str(unit))


def test_a_bare_debian_can_be_made(release: str, require: Callable[[str], str]) -> None:
    """And has neither Python nor anything else that an installation should bring."""
    if bareroot.find(release) is None:
        require("mmdebstrap")
    names = run("tar", "-tf", str(bareroot.obtain(release))).splitlines()
    assert "./lib/systemd/systemd" in names or "./usr/lib/systemd/systemd" in names
    assert not {name for name in names if name.startswith(("./usr/bin/python", "./usr/bin/exabgp"))}
