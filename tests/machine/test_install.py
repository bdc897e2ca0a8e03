"""docs/INSTALL.md, as written: from a bare Debian to a node that serves, is upgraded, and leaves nothing behind.

Each test goes on where the one before it ended. ``make test`` has one node, of the release that it runs on. ``make
test-install`` has two in one cluster, a Debian 12 and a Debian 13; when one of them is removed, the other serves on.
"""

from __future__ import annotations

import json
import ssl
import time
from pathlib import Path

import pytest

from anycastlb.doctor.rules.kernel import CAP_NET_ADMIN
from tests.lab.http import connect, get
from tests.lab.process import GIVE_UP, until
from tests.lab.topology import vip
from tests.machine.node import Node
from tests.machine.world import RELEASES, World
from tests.rig import package
from tests.support.authority import Authority

CAP_KILL, CAP_NET_BIND_SERVICE = 5, 10
VIP, FRONT, SECURE = vip(0), vip(30), vip(31)
"""The VIP of the document's service, that of its gateway, and one for a gateway with TLS."""
UNITS = ("anycastlb.service", "anycastlb-exabgp.service", "anycastlb-haproxy.service")


@pytest.fixture(params=RELEASES)
def node(request: pytest.FixtureRequest, world: World) -> Node:
    """Each of the nodes, one after the other."""
    return world.nodes[request.param]


@pytest.fixture
def first(world: World) -> Node:
    """The first node, for what is the same on both."""
    return next(iter(world.nodes.values()))


def test_installed_as_written_it_serves(
    world: World, node: Node, first: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    world.install(node, first=node is first)
    installed = {name for name in RELEASES if world.nodes[name].secret}
    world.lab.router.until(VIP, installed)
    node.serving()
    assert set(world.lab.client.spread(20, VIP)) == {"b1", "b2"}
    with capsys.disabled():
        print(f"\n  {node.name} ({node.suite}) is installed, and serves after {time.monotonic() - started:.0f} s")


def test_every_node_shows_the_cluster(node: Node) -> None:
    def shown() -> str:
        status = node.machine.sh("anycastlb status", check=False)
        return status if set(RELEASES) <= set(status.split()) else ""

    assert "1 of 1 VIP announced" in until(shown, f"{node.name} shows every node")


def test_the_sandboxes_hold_and_suffice(node: Node) -> None:
    node.machine.sh("systemd-analyze verify --man=no anycastlb.service anycastlb-exabgp.service")
    for unit, user, capabilities in (
        (UNITS[0], "anycastlb", 1 << CAP_NET_ADMIN | 1 << CAP_KILL),
        (UNITS[1], "exabgp", 1 << CAP_NET_BIND_SERVICE),
    ):
        node.machine.sh(f"systemd-analyze security --threshold=25 --no-pager {unit}")
        held = node.status(node.daemon(unit))
        assert held["Uid"].split()[0] == node.machine.sh(f"id -u {user}").strip()
        assert int(held["CapEff"], 16) == int(held["CapBnd"], 16) == capabilities
        assert held["Seccomp"] == "2" and held["NoNewPrivs"] == "1"
    assert node.status(node.daemon())["CapAmb"] == "0" * 16, "programs of checks would inherit it"
    held = node.status(node.checker())
    assert int(held["CapEff"], 16) == int(held["CapPrm"], 16) == 1 << CAP_NET_ADMIN and held["CapAmb"] == "0" * 16
    assert held["Seccomp"] == "2" and held["NoNewPrivs"] == "1"
    # It writes the sysctls it needs through the sandbox, and repairs them.
    node.machine.namespace.sysctl({"net/ipv4/vs/sloppy_tcp": "0"})
    setting = "cat /proc/sys/net/ipv4/vs/sloppy_tcp"
    until(lambda: node.machine.sh(setting).strip() == "1", "sloppy_tcp is set again")


def test_the_token_is_nowhere_to_be_seen(node: Node) -> None:
    pid = node.daemon()
    shown = node.machine.sh(
        f"journalctl --no-pager; systemctl show anycastlb; tr '\\0' '\\n' </proc/{pid}/environ; "
        f"tr '\\0' ' ' </proc/{pid}/cmdline; cat /etc/anycastlb/node.toml; ls -laR /var/lib/anycastlb"
    )
    assert node.secret and node.secret not in shown
    read = "setpriv --reuid exabgp --clear-groups cat /run/credentials/anycastlb.service/* || echo no"
    assert node.machine.sh(read).strip() == "no"


def test_a_hand_over_moves_nothing(world: World, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    before, updates = node.daemon(), world.lab.router.updates(node.name)
    started = time.monotonic()
    with world.lab.client.load(VIP) as load:
        node.machine.sh("systemctl kill --kill-whom=main -s SIGUSR1 anycastlb")
        node.replaced(before)
        node.serving()
    assert load.sent > 20 and not load.failed, load
    assert world.lab.router.updates(node.name) == updates
    with capsys.disabled():
        print(f"\n  {node.name} has handed over and is ready after {time.monotonic() - started:.1f} s; {load}")


def test_an_upgrade_moves_nothing(world: World, first: Node) -> None:
    newer = package.newer(first.suite)
    first.copy(newer)
    before, speaker, relay = first.daemon(), first.daemon(UNITS[1]), first.bridge()
    updates = world.lab.router.updates(first.name)
    with world.lab.client.load(VIP) as load:
        first.machine.sh(f"apt-get install -y ./{newer.name}")
        first.replaced(before)
        first.serving()
    assert load.sent > 20 and not load.failed, load
    assert world.lab.router.updates(first.name) == updates
    assert first.daemon(UNITS[1]) == speaker and first.bridge() != relay
    settings = first.machine.sh("cat /etc/anycastlb/node.toml")
    assert 'vip_ranges = ["192.0.2.0/24"' in settings, "the operator's own settings"


def test_reload_rereads(world: World, first: Node) -> None:
    pid, index = first.daemon(), world.lab.router.updates(first.name)
    first.machine.sh("systemctl reload anycastlb")
    first.machine.sh("systemctl reload anycastlb-exabgp")
    first.serving()
    assert first.daemon() == pid and world.lab.router.updates(first.name) == index
    assert world.lab.client.get(VIP) in ("b1", "b2")


def test_a_hung_bridge_is_replaced(world: World, first: Node) -> None:
    """The daemon may kill it, though it runs as another user."""
    hung = first.bridge()
    first.machine.sh(f"kill -STOP {hung}")
    until(lambda: first.bridge() not in (0, hung), "another bridge runs")
    first.serving()
    world.lab.router.until(VIP, set(RELEASES))


def test_a_hung_checker_is_replaced(world: World, first: Node) -> None:
    """The sandbox lets the daemon end it and start another, and no route moves."""
    hung, updates = first.checker(), world.lab.router.updates(first.name)
    first.machine.sh(f"kill -STOP {hung}")
    until(lambda: first.checker() not in (0, hung), "another checker runs")
    first.serving()
    assert world.lab.router.updates(first.name) == updates


def test_a_hung_daemon_is_replaced(world: World, first: Node) -> None:
    hung, updates = first.daemon(), world.lab.router.updates(first.name)
    first.machine.sh(f"kill -STOP {hung}")
    first.replaced(hung)
    first.serving()
    assert world.lab.router.updates(first.name) == updates, "it came back within hold, and took over what it found"
    assert "watchdog" in first.machine.sh("journalctl --no-pager -u anycastlb").lower()


def ask_front(world: World) -> str:
    return get(world.lab.client.namespace, str(FRONT), 80, name="shop.example")[1]


def test_with_haproxy_as_written_it_serves_a_gateway(world: World, first: Node) -> None:
    """HAProxy's unit counts as started before there is anything to serve."""
    with world.lab.router.always(VIP):
        world.add_gateways(first)
        world.lab.router.until(FRONT, {first.name})
        first.serving()
    until(lambda: {ask_front(world) for _ in range(4)} == {"b1", "b2"}, "both backends of the pool answer")
    held = first.status(first.daemon(UNITS[2]))
    assert held["Uid"].split()[0] == first.machine.sh("id -u anycastlb-haproxy").strip()
    assert int(held["CapEff"], 16) == int(held["CapBnd"], 16) == 1 << CAP_NET_BIND_SERVICE
    assert held["Seccomp"] == "2" and held["NoNewPrivs"] == "1"
    findings = json.loads(first.machine.sh("anycastlb doctor -o json", check=False))["findings"]
    assert "HAProxy runs, and answers the daemon" in [finding["what"] for finding in findings]
    assert not [finding for finding in findings if finding["level"] == "error"]


def test_haproxy_that_dies_takes_its_routes_and_brings_them_back(world: World, first: Node) -> None:
    before, daemon, withdrawn = first.daemon(UNITS[2]), first.daemon(), world.lab.router.updates(first.name)[1]
    with world.lab.router.always(VIP):
        first.machine.sh(f"kill -KILL {before}")
        until(lambda: first.daemon(UNITS[2]) not in (0, before), "systemd has started another")
        world.lab.router.until(FRONT, {first.name})
    assert ask_front(world) in ("b1", "b2") and first.daemon() == daemon
    assert world.lab.router.updates(first.name)[1] > withdrawn


def test_a_gateway_that_takes_a_reload_and_a_certificate(world: World, first: Node, tmp_path: Path) -> None:
    """By the sockets and files that the users of two units share."""
    place = first.machine.root / "etc/anycastlb/certificates/shop.pem"
    place.write_bytes(Authority(tmp_path).issue("shop.example").read_bytes())
    first.machine.sh("cd /etc/anycastlb/certificates; chgrp anycastlb-haproxy shop.pem; chmod 640 shop.pem")
    before = first.daemon(UNITS[2])
    gateway = {"vip": str(SECURE), "port": 443, "protocol": "https", "tls": {"certificates": ["shop"]}, "drain": "10s"}
    route = {"gateways": ["secure"], "hostnames": ["shop.example"], "rules": [{"backendRefs": [{"name": "shop"}]}]}
    for key, document in {"gateways/secure": gateway, "routes/secure": route}.items():
        world.consul(f"consul kv put anycastlb/{key} '{json.dumps(document)}'")
    with world.lab.router.always(FRONT):
        world.lab.router.until(SECURE, {first.name})
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with (
        connect(world.lab.client.namespace, str(SECURE), 443, GIVE_UP) as plain,
        trusting.wrap_socket(plain, server_hostname="shop.example") as tls,
    ):
        tls.sendall(b"GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n")
        answer = b"".join(iter(lambda: tls.recv(65536), b""))
    assert answer.split()[1] == b"200" and answer.split()[-1] in (b"b1", b"b2")
    assert first.daemon(UNITS[2]) == before, "it was reloaded, and not restarted"


def test_removed_as_written_it_leaves_nothing(world: World, node: Node) -> None:
    remaining = {other.name for other in world.nodes.values() if other.secret} - {node.name}
    with world.lab.client.load(VIP) as load:
        world.uninstall(node)
    node.secret = ""
    if remaining:
        assert load.sent > 20 and not load.failed, load
        assert set(world.lab.client.spread(20, VIP)) == {"b1", "b2"}
    assert world.lab.router.routes(VIP) == remaining
    assert str(VIP) not in node.machine.namespace.ip("addr show dev lo")
    assert "192.0.2." not in Path(f"/proc/{node.machine.init}/net/ip_vs").read_text()
    left = node.machine.sh(
        "ls -d /var/lib/anycastlb* /usr/lib/anycastlb /run/anycastlb* /etc/anycastlb/node.toml", check=False
    )
    assert left == ""
    assert node.machine.sh("systemctl list-unit-files --no-legend 'anycastlb*'", check=False) == ""
