"""The bridge reads three settings itself, and judges them as the daemon does."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from anycastlb import settings
from anycastlb.bridge.check import check
from anycastlb.bridge.settings import BridgeSettings, parse, read
from anycastlb.core.model import Problem, SettingsError

RANGES = '[node]\nvip_ranges = ["192.0.2.0/24", " 2001:db8::/64 "]\n'
GOOD = {
    "defaults": RANGES,
    "all three": f'{RANGES}[bgp]\nsocket = "/run/x.sock"\nhold = "1m30s"\n',
    "one line": 'node.vip_ranges = ["192.0.2.0/24"]\nbgp.hold = "2s"\n',
    "other keys": f'{RANGES}resync = "2s"\n[bgp]\ngroup = "exabgp"\n[api]\nlisten = "127.0.0.1:4672"\n',
}
BAD = {
    "nothing": "",
    "no ranges": "[node]\n",
    "empty ranges": "[node]\nvip_ranges = []\n",
    "host bits": '[node]\nvip_ranges = ["192.0.2.0/24", "192.0.2.1/24", 5]\n',
    "hold is a number": f"{RANGES}[bgp]\nhold = 15\n",
    "hold is no duration": f'{RANGES}[bgp]\nhold = "3 parsecs"\n',
    "hold is too long": f'{RANGES}[bgp]\nhold = "11m"\n',
    "hold is too short": f'{RANGES}[bgp]\nhold = "0s"\n',
    "socket is a number": f"{RANGES}[bgp]\nsocket = 5\n",
    "all at once": '[node]\nvip_ranges = ["x"]\n[bgp]\nhold = "x"\nsocket = []\n',
    "no TOML": "[node\n",
}
TABLES = {
    "node": "node = 3\n",
    "bgp": 'bgp = 3\nnode.vip_ranges = ["192.0.2.0/24"]\n',
    "node.vip_ranges": '[node]\nvip_ranges = "192.0.2.0/24"\n',
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_values_are_those_of_the_daemon(text: str) -> None:
    daemon = settings.parse(text)
    assert parse(text, "node.toml") == BridgeSettings(daemon.node.vip_ranges, daemon.bgp.socket, daemon.bgp.hold)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_problems_are_those_of_the_daemon(text: str) -> None:
    assert sorted(map(str, problems(text))) == sorted(map(str, problems(text, daemon=True)))


@pytest.mark.parametrize(("path", "text"), TABLES.items(), ids=TABLES)
def test_a_value_of_another_shape_is_told_at_the_same_place(path: str, text: str) -> None:
    problem, daemon = problems(text)[0], problems(text, daemon=True)[0]
    assert (problem.key, problem.path, problem.line) == (daemon.key, path, daemon.line)
    assert problem.expected.startswith("expected a ")


def test_keys_that_the_bridge_does_not_need_cannot_stop_it() -> None:
    text = f'{RANGES}resync = "never"\n[consul]\nadress = 5\n'
    assert problems(text, daemon=True)
    assert parse(text, "node.toml").vip_ranges == (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(OSError, match=r"node\.toml: expected UTF-8 text"):
        read(str(path))
    with pytest.raises(FileNotFoundError, match="missing"):
        read(str(tmp_path / "missing.toml"))


def problems(text: str, daemon: bool = False) -> tuple[Problem, ...]:
    with pytest.raises(SettingsError) as error:
        settings.parse(text) if daemon else parse(text, "node.toml")
    return error.value.problems


FITS = """
process anycastlb { run /opt/anycastlb/bin/anycastlb-bridge; encoder json; }
neighbor 198.51.100.1 { local-as 1; api { processes [ anycastlb ]; neighbor-changes; } }
"""


@pytest.mark.parametrize(
    ("text", "serious", "told"),
    [
        (FITS, False, "fits the bridge"),
        (FITS.replace("encoder json", "encoder text"), True, "set encoder json; in process anycastlb"),
        (FITS.replace("processes [ anycastlb ]; ", ""), True, "neighbor 198.51.100.1 does not use the bridge"),
        (FITS.replace("neighbor-changes;", ""), False, "add neighbor-changes; to its api block"),
        (FITS.replace("anycastlb-bridge", "other"), True, "it runs no anycastlb-bridge"),
    ],
)
def test_check_looks_at_what_exabgp_is_told(
    text: str, serious: bool, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "exabgp.conf"
    config.write_text(text)
    why = check(str(tmp_path / "socket"), str(config))
    assert bool(why) is serious and told in (why or "") + capsys.readouterr().out


@pytest.mark.parametrize(("config", "told"), [("/nonexistent", "was not looked at"), ("", "no daemon listens")])
def test_check_needs_no_exabgp_conf(config: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(str(tmp_path / "socket"), config) is None and told in capsys.readouterr().out
