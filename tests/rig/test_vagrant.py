"""Vagrant itself accepts the Vagrantfile, and shellcheck its scripts. No provider is needed, and none is here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.rig.require import require

VAGRANT = Path(__file__).resolve().parents[2] / "vagrant"
ROLES = ("settings", "common", "backend", "client", "consul", "node", "router")


def validated(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **settings, "HOME": str(home), "VAGRANT_HOME": str(home / "vagrant.d")}
    env |= {"VAGRANT_CWD": str(VAGRANT), "VAGRANT_DOTFILE_PATH": str(home / "dot"), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    argv = [require("vagrant"), "validate", "--ignore-provider"]
    return subprocess.run(
        argv, cwd=home, env=env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"NODES": "1", "BACKENDS": "1", "FAMILIES": "4", "DRIVER": "qemu"},
        {"NODES": "5", "FAMILIES": "6", "FLAVOUR": "frr"},
    ],
)
def test_the_vagrantfile_is_valid(settings: dict[str, str], tmp_path: Path) -> None:
    done = validated(tmp_path, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    for number in range(1, int(settings.get("NODES", 2)) + 1):
        assert f"==> lb{number}: " in done.stdout
    assert not (VAGRANT / ".vagrant").exists()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("NODES", "6", "[1, 2, 3, 4, 5]"),
        ("FLAVOUR", "quagga", '["bird", "frr"]'),
        ("FAMILIES", "5", '"4 6"'),
        ("DRIVER", "xen", "qemu"),
    ],
)
def test_a_setting_it_cannot_have_is_refused_in_words(name: str, value: str, expected: str, tmp_path: Path) -> None:
    done = validated(tmp_path, **{name: value})
    assert done.returncode != 0
    assert f"Vagrantfile: {name} is " in done.stderr
    assert expected in done.stderr


def test_the_scripts_pass_shellcheck() -> None:
    argv = [require("shellcheck"), "--external-sources", "../box.sh", *ROLES]
    done = subprocess.run(argv, cwd=VAGRANT / "roles", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
