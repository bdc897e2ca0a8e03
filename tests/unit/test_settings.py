"""node.toml: everything has a default but vip_ranges, and every problem is told at once, with its line."""

from ipaddress import ip_address, ip_network

import pytest

from anycastlb import settings
from anycastlb.core.model import SettingsError, Share, SyncDaemon

LEAST = '[node]\nvip_ranges = ["192.0.2.0/24"]\n'


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings.parse(text)
    return [str(problem) for problem in caught.value.problems]


def test_everything_has_a_default_but_vip_ranges() -> None:
    given = settings.parse(LEAST, host="lb7")
    assert given.node.name == "lb7" and given.node.vip_ranges == (ip_network("192.0.2.0/24"),)
    assert given.catalog.max_shrink == Share(percent=50.0) and given.catalog.confirm == 300.0
    assert given.consul.address == "http://127.0.0.1:8500" and given.consul.prefix == "anycastlb/"
    assert given.bgp.hold == 15.0 and given.api.listen == (("127.0.0.1", 4672),)
    assert problems("") == ["node.toml: node.vip_ranges: missing; expected a value here"]


def test_all_problems_at_once_with_their_lines() -> None:
    text = """[node]
name = "lb 1"
vip_ranges = ["192.0.2.1/24"]

[bgp]
hold = 15
socked = "/run/x"

[api]
listen = "nowhere"

[catalogue]
"""
    findings = problems(text)
    assert [line.split(": ")[0] for line in findings] == [
        "node.toml:2", "node.toml:3", "node.toml:6", "node.toml:7", "node.toml:10", "node.toml:12",
    ]  # fmt: skip
    assert 'bgp.hold: expected a duration such as "500ms", "2s" or "5m", not 15' in findings[2]


@pytest.mark.parametrize("text", ["[node", "a = 1 = 2", "\x00", '[node]\nname = "a"\nname = "b"'])
def test_what_is_no_toml_is_one_problem(text: str) -> None:
    (problem,) = problems(text)
    assert "expected TOML" in problem


@pytest.mark.parametrize(
    ("line", "table"),
    [
        ("vip_ranges = []", "node"), ("resync = \"1h\"", "node"), ("fwmark_ranges = [\"9-1\"]", "node"),
        ("max_shrink = \"101%\"", "catalog"), ("confirm = \"soon\"", "catalog"), ("source = \"etcd\"", "catalog"),
        ("address = \"localhost\"", "consul"), ("prefix = \"/\"", "consul"), ("hold = \"0s\"", "bgp"),
        ("max_withdrawals = \"most\"", "cluster"), ("max_withdrawals = \"weight 5\"", "cluster"),
    ],
)  # fmt: skip
def test_values_out_of_bounds(line: str, table: str) -> None:
    text = f"[{table}]\n{line}\n" if table == "node" else f"{LEAST}[{table}]\n{line}\n"
    findings = problems(text)
    assert any(f"{table}." in problem and "expected" in problem for problem in findings), findings


def test_values_in_their_other_forms() -> None:
    text = (
        '[node]\nvip_ranges = ["192.0.2.0/24", "2001:db8::/64"]\nfwmark_ranges = [7, "100-199"]\n'
        '[catalog]\nmax_shrink = 3\nconfirm = "never"\n[consul]\nprefix = "lb"\n[api]\nlisten = "[::1]:4672"\n'
    )
    given = settings.parse(text)
    assert given.node.fwmark_ranges == ((7, 7), (100, 199))
    assert given.catalog.confirm is None and given.catalog.max_shrink == Share(count=3)
    assert given.consul.prefix == "lb/" and given.api.listen == (("::1", 4672),)


@pytest.mark.parametrize(
    ("text", "budget"),
    [("0", None), ('"off"', None), ('"0%"', None), ("3", Share(3)), ('"3"', Share(3)), ('"10%"', Share(percent=10.0))],
)
def test_the_budget_of_withdrawals(text: str, budget: Share | None) -> None:
    assert settings.parse(f"{LEAST}[cluster]\nmax_withdrawals = {text}\n").cluster.max_withdrawals == budget
    assert settings.parse(LEAST).cluster.max_withdrawals is None


IPVS = LEAST + "[ipvs]\n"


def test_connection_sync_and_time_outs() -> None:
    default = settings.parse(LEAST).ipvs
    assert (default.config, default.sysctls) == ({}, {})
    assert default.cached_config == {"tcp_timeout": 300, "tcpfin_timeout": 60}
    own = settings.parse(IPVS + 'tcp_timeout = "2m"\ntcpfin_timeout = "auto"\nudp_timeout = "20s"').ipvs
    assert own.config == {"tcp_timeout": 120, "udp_timeout": 20} and own.cached_config == {"tcpfin_timeout": 60}
    sync = settings.parse(IPVS + 'sync_interface = "lan"\nsync_id = "9"\nsync_group = "ff02::81"\nsync_ttl = 4').ipvs
    assert sync.config == dict.fromkeys(
        ("sync_master", "sync_backup"), SyncDaemon("lan", 9, ip_address("ff02::81"), 8848, 4)
    )
    assert sync.cached_config == {}
    for text, threshold, refresh in (
        ("", "2 50", "0"),
        ('sync_threshold = " 3  100 "', "3 100", "0"),
        ('sync_refresh = "1m"', "2 0", "60"),
        ('sync_refresh = "1m"\nsync_threshold = "3 0"', "3 0", "60"),
    ):
        given = settings.parse(f'{IPVS}sync_interface = "lan"\n{text}').ipvs.sysctls
        assert given == {"net/ipv4/vs/sync_threshold": threshold, "net/ipv4/vs/sync_refresh_period": refresh}


@pytest.mark.parametrize(
    "line",
    [
        'tcp_timeout = "1500ms"', 'tcp_timeout = "2d"', "tcp_timeout = 0", 'udp_timeout = "soon"',
        'sync_interface = ""', 'sync_interface = "a/b"', 'sync_interface = "averyveryverylong"',
        "sync_id = 0", "sync_id = 256", 'sync_threshold = "2"', 'sync_threshold = "50 50"',
        "sync_threshold = 2", 'sync_group = "10.0.0.1"',
        "sync_port = 0", "sync_ttl = 256", 'sync_refresh = "0s"', 'sync_refresh = "auto"',
    ],
)  # fmt: skip
def test_bad_connection_sync_and_time_outs(line: str) -> None:
    (problem,) = problems(IPVS + line)
    assert problem.startswith(f"node.toml:4: ipvs.{line.split()[0]}: expected ")


def test_sync_by_packets_and_by_time_at_once() -> None:
    (problem,) = problems(IPVS + 'sync_threshold = "2 50"\nsync_refresh = "1m"')
    assert problem.startswith("node.toml:3: ipvs: expected with sync_refresh a sync_threshold whose second number is 0")


def test_sharing_the_connections_of_gateways() -> None:
    assert settings.parse(LEAST).http is None
    alone = settings.parse(f"{LEAST}[http]\n").http
    assert alone is not None and alone.address is None and alone.ingress == ()
    given = settings.parse(f'{LEAST}[http]\naddress = "10.0.0.1"\ningress = "eth0"\nmarks = "7-9"\n').http
    assert given is not None and (str(given.address), given.ingress, given.marks) == ("10.0.0.1", ("eth0",), (7, 9))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('address = "10.0.0.1"', "address needs ingress"),
        ('ingress = ["eth0"]', "ingress needs address"),
        ('address = "10.0.0.1"\ningress = ["eth 0"]', "http.ingress"),
        ('address = "lb1"\ningress = ["eth0"]', "http.address"),
        ('address = "10.0.0.1"\ningress = ["eth0"]\nmarks = "1095565311-1095565320"', "outside of node.fwmark_ranges"),
    ],
)
def test_bad_sharing(lines: str, expected: str) -> None:
    findings = problems(f"{LEAST}[http]\n{lines}\n")
    assert any(expected in problem for problem in findings), findings
