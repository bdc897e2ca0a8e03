"""What the daemon says to its service manager, and of settings that changed under it."""

from __future__ import annotations

import socket
from math import inf
from pathlib import Path

import pytest

from anycastlb import daemon, settings
from anycastlb.adapters.system.journal import Journal
from anycastlb.adapters.system.sd_notify import Notifier
from anycastlb.core.model import DriverError, SettingsError
from anycastlb.daemon import compare
from anycastlb.engine.parts import described
from tests.support.waiting import PATIENCE

LEAST = '[node]\nvip_ranges = ["192.0.2.0/24"]\n'


@pytest.fixture
def manager(tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE)
        yield sock


def test_the_service_manager_is_told(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname())
    notifier.ready()
    notifier.alive()
    notifier.stopping()
    notifier.handing_over()
    told = [manager.recv(1000).decode().splitlines()[0] for _ in range(4)]
    assert told == ["READY=1", "WATCHDOG=1", "STOPPING=1", "WATCHDOG_USEC=60000000"]


def test_an_abstract_address_and_a_deaf_manager_do_no_harm(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0anycastlb-test-" + tmp_path.name)
        sock.settimeout(PATIENCE)
        Notifier("@anycastlb-test-" + tmp_path.name).alive()
        assert sock.recv(100) == b"WATCHDOG=1"
    Notifier(str(tmp_path / "nobody")).alive()
    Notifier("").alive()


@pytest.mark.parametrize(("given", "seconds"), [("8000000", 8.0), ("0", inf), ("", inf), ("soon", inf)])
def test_how_long_the_service_manager_waits(monkeypatch: pytest.MonkeyPatch, given: str, seconds: float) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", given)
    assert Notifier("").watchdog == seconds


def test_a_changed_or_broken_settings_file_is_told_on_hang_up() -> None:
    running = settings.parse(LEAST)
    journal = Journal()
    compare(running, lambda: settings.parse(LEAST), journal)
    assert not journal.records()
    compare(running, lambda: settings.parse(LEAST + '[bgp]\nhold = "20s"\n'), journal)
    assert "SIGUSR1" in journal.records()[-1].event.reason

    def broken() -> settings.Settings:
        return settings.parse("[node")

    compare(running, broken, journal)
    assert journal.records()[-1].event.level == "error"


def test_a_node_that_cannot_start_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(*given: object) -> None:
        raise DriverError("this kernel has no IPVS (mend: modprobe ip_vs)")

    monkeypatch.setattr(daemon, "serve", refuse)
    assert daemon.main(settings.parse(LEAST)) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and "modprobe ip_vs" in told[0]


def test_sources_are_described_for_operators() -> None:
    assert described(settings.parse(LEAST)) == "consul http://127.0.0.1:8500 anycastlb/"
    files = LEAST + '[catalog]\nsource = "file"\npath = "/srv/catalog"\n'
    assert described(settings.parse(files)) == "file /srv/catalog"
    with pytest.raises(SettingsError):
        settings.parse("")
