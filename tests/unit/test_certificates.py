import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from anycastlb.adapters.certificates import CertificateFiles, fingerprint, not_after
from anycastlb.adapters.system.certificates import VARIABLE, unread_certificates
from tests.lab.harm import no_descriptors
from tests.support.authority import Authority


def known() -> int:
    return len(ssl.create_default_context().get_ca_certs())


def test_the_systems_certificates_are_read_only_afterwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(Authority(tmp_path).file))
    assert known() == 1
    with unread_certificates():
        assert known() == 0
    assert known() == 1


def test_a_variable_that_nobody_has_set_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    before = known()
    with unread_certificates():
        assert known() == 0
    assert known() == before


def authority(folder: Path, name: str) -> Authority:
    (folder / name).mkdir()
    return Authority(folder / name, name)


def test_files_come_change_and_go(tmp_path: Path) -> None:
    own, other = authority(tmp_path, "a"), authority(tmp_path, "b")
    folder = tmp_path / "certificates"
    files = CertificateFiles(folder, fingerprint)
    assert files.look() == {}, "there is no directory"
    folder.mkdir()
    (folder / "shop.pem").write_text(own.file.read_text())
    (folder / "notes.txt").write_text("no certificate")
    (folder / "bad.pem").write_text("no certificate either")
    first = files.look()
    assert list(first) == ["shop"]
    assert files.look() is first
    (folder / "shop.pem").write_text(other.file.read_text())
    os.utime(folder / "shop.pem", ns=(1, 1))
    assert files.look()["shop"] != first["shop"]
    (folder / "shop.pem").unlink()
    assert files.look() == {}


def test_a_process_that_can_open_nothing_more_knows_what_it_knew(tmp_path: Path) -> None:
    (tmp_path / "shop.pem").write_text(authority(tmp_path, "a").file.read_text())
    files = CertificateFiles(tmp_path, fingerprint)
    known = files.look()
    assert list(known) == ["shop"]
    with no_descriptors(os.getpid):
        assert files.look() is known
    os.utime(tmp_path / "shop.pem", ns=(1, 1))
    with no_descriptors(os.getpid):
        assert files.look() is known


def test_when_a_certificate_ends(tmp_path: Path) -> None:
    (tmp_path / "shop.pem").write_text(authority(tmp_path, "a").file.read_text())
    (end,) = CertificateFiles(tmp_path, not_after).look().values()
    assert end > datetime.now(UTC).timestamp()
