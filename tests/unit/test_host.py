"""What is said of kernel modules by what modprobe finds, and by what is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from anycastlb import settings
from anycastlb.doctor.collect import host


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of what is loaded: a module ``ip_vs``, and ``ip_vs_rr``, which is built in."""
    for name in ("ip_vs", "ip_vs_rr"):
        (tmp_path / name).mkdir()
    (tmp_path / "ip_vs/initstate").write_text("live\n")
    monkeypatch.setattr(host, "MODULES", tmp_path)
    return tmp_path


def finds(names: str, directory: Path, patch: pytest.MonkeyPatch) -> None:
    """A modprobe that finds these modules."""
    script = directory / "modprobe"
    script.write_text(
        f'#!/bin/sh\n[ "$1" != --version ] || exit 0\ncase " {names} " in *" $3 "*) exit 0;; esac\nexit 1\n'
    )
    script.chmod(0o755)
    patch.setattr(host, "modprobe", lambda: str(script))


@pytest.mark.parametrize(
    ("module", "found", "available"),
    [
        ("ip_vs_rr", "ip_vs", True),
        ("ip_vs_mh", "ip_vs ip_vs_mh", True),
        ("ip_vs_mh", "ip_vs", False),
        ("ip_vs_mh", "", True),
    ],
    ids=["built in", "to be loaded", "missing", "hidden by a sandbox"],
)
def test_a_module_is_missing_only_where_others_are_found(
    module: str, found: str, available: bool, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finds(found, modules, monkeypatch)
    assert host.loadable(module) is available


def test_a_kernel_that_was_told_to_load_nothing_has_what_is_loaded(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "modprobe", lambda: "/bin/false")
    assert host.loadable("ip_vs_rr")
    assert not host.loadable("ip_vs_mh")


def test_without_ip_vs_nothing_is_taken_for_hidden(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (modules / "ip_vs/initstate").unlink()
    finds("", modules, monkeypatch)
    assert not host.loadable("ip_vs_mh")


def test_keys_that_every_user_may_read(tmp_path: Path) -> None:
    """R28."""
    folder = tmp_path / "certificates"
    node = f'[node]\nvip_ranges = ["192.0.2.0/24"]\n[http]\ncertificate_dir = "{folder}"\n'
    assert host.exposed_secrets(settings.parse(node)) == (), "there is no directory"
    folder.mkdir(0o755)
    for name, mode, text in (
        ("closed", 0o640, "-----BEGIN PRIVATE KEY-----\n"),
        ("open", 0o644, "-----BEGIN CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n"),
        ("chain", 0o644, "-----BEGIN CERTIFICATE-----\n"),
    ):
        (folder / f"{name}.pem").write_text(text)
        (folder / f"{name}.pem").chmod(mode)
    (folder / "notes").write_text("-----BEGIN PRIVATE KEY-----")
    assert host.exposed_secrets(settings.parse(node)) == (str(folder / "open.pem"),)
    folder.chmod(0o750)
    assert host.exposed_secrets(settings.parse(node)) == (), "nobody else may enter the directory"
