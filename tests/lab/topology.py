"""Who is where: the machines of the lab, their addresses and cables.

::

    client ──── tor ──── uplink lb1 ┐
     10.9.0.2    │ └──── uplink lb2 ┤        uplinks 10.8.N.0/30, fd00:8:N::/64
                 └── lan (bridge in tor) ┴── b1 b2 b3 consul     10.1.0.0/24, fd00:1::/64

``dr`` and ``tunnel``: a backend holds the VIPs on its own ``lo`` and answers the client straight through ``tor``.
``nat``: the answer must pass the node that the request came through; a backend knows it by the MAC address the
request came from, marks it, and returns by that mark (``tcp_fwmark_accept``).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from anycastlb.model import Address
from tests.lab.namespaces import Namespace, address, connect

NODES = ("lb1", "lb2")
"""Who is there unless a lab asks for others, such as ``lb1`` to ``lb3``."""
BACKENDS = ("b1", "b2", "b3")
VIP_RANGES = ("192.0.2.0/24", "2001:db8:2::/64")
VIPS_OF_EACH_FAMILY = 16
CONSUL = "10.1.0.100"
LAN_MTU = 1600  # room for a tunnel's header


def vip(number: int, version: int = 4) -> Address:
    """The lab's VIPs, numbered from 0: the backends hold the first ``VIPS_OF_EACH_FAMILY`` of each family."""
    return ip_address(f"192.0.2.{10 + number}" if version == 4 else f"2001:db8:2::{10 + number}")


def own(name: str, version: int = 4) -> str:
    """A backend's or node's own address in the LAN."""
    host = int(name[-1]) + (10 if name.startswith("lb") else 0)
    return f"10.1.0.{host}" if version == 4 else f"fd00:1::{host:x}"


def uplink(node: str, version: int = 4, router: bool = False) -> str:
    """A node's address towards the router, or the router's towards it."""
    host = 1 if router else 2
    return f"10.8.{node[-1]}.{host}" if version == 4 else f"fd00:8:{node[-1]}::{host}"


def mac(node: str) -> str:
    return f"02:00:00:00:00:1{node[-1]}"


class Topology:
    """All namespaces, wired. ``create`` before use, ``delete`` after."""

    def __init__(self, nodes: Sequence[str] = NODES) -> None:
        self.client, self.tor, self.consul = Namespace("client"), Namespace("tor"), Namespace("consul")
        self.nodes = {name: Namespace(name) for name in nodes}
        self.backends = {name: Namespace(name) for name in BACKENDS}

    @property
    def all(self) -> list[Namespace]:
        return [self.client, self.tor, self.consul, *self.nodes.values(), *self.backends.values()]

    def create(self) -> None:
        for namespace in self.all:
            namespace.create()
        self._core()
        for name, namespace in self.nodes.items():
            self._node(name, namespace)
        for name, namespace in self.backends.items():
            self._backend(name, namespace)
        self._lan(self.consul, "consul", f"{CONSUL}/24", "fd00:1::64/64")

    def delete(self) -> None:
        for namespace in self.all:
            namespace.delete()

    def _core(self) -> None:
        self.tor.sysctl(
            {"net/ipv4/fib_multipath_hash_policy": "1", "net/ipv6/fib_multipath_hash_policy": "1"}  # by flow
        )
        self.tor.ip("link add lan type bridge forward_delay 0", f"link set lan mtu {LAN_MTU}")
        address(self.tor, "lan", "10.1.0.254/24", "fd00:1::fe/64")
        connect(self.tor, "client", self.client, "tor")
        address(self.tor, "client", "10.9.0.1/24", "fd00:9::1/64")
        self.client.ip("link set tor mtu 1400")  # so that a full segment still fits a tunnel
        address(self.client, "tor", "10.9.0.2/24", "fd00:9::2/64")
        self.client.ip("route add default via 10.9.0.1", "route add default via fd00:9::1")

    def _lan(self, namespace: Namespace, name: str, *addresses: str) -> None:
        connect(self.tor, name, namespace, "lan")
        self.tor.ip(f"link set {name} mtu {LAN_MTU} master lan up")
        namespace.ip(f"link set lan mtu {LAN_MTU}")
        address(namespace, "lan", *addresses)

    def _node(self, name: str, namespace: Namespace) -> None:
        connect(self.tor, f"{name}-uplink", namespace, "uplink")
        address(self.tor, f"{name}-uplink", f"{uplink(name, 4, True)}/30", f"{uplink(name, 6, True)}/64")
        address(namespace, "uplink", f"{uplink(name)}/30", f"{uplink(name, 6)}/64")
        self._lan(namespace, name, f"{own(name)}/24", f"{own(name, 6)}/64")
        namespace.ip(f"link set lan address {mac(name)}")
        self.route(name)

    def route(self, name: str) -> None:
        """A node's way back to the clients; setting a link down takes it away."""
        for version in (4, 6):
            self.nodes[name].ip(f"route replace default via {uplink(name, version, True)}")

    def answer(self, node: str, through: str) -> None:
        """What came through one node is answered through another from now on, as when the backends' gateway moves."""
        table = 101 + list(self.nodes).index(node)
        for backend in self.backends.values():
            for version, any_way in ((4, "default"), (6, "::/0")):
                backend.ip(f"route replace {any_way} via {own(through, version)} table {table}")

    def _backend(self, name: str, namespace: Namespace) -> None:
        self._lan(namespace, name, f"{own(name)}/24", f"{own(name, 6)}/64")
        namespace.ip("route add default via 10.1.0.254", "route add default via fd00:1::fe")
        namespace.run("ip", "tunnel", "add", "tunl0", "mode", "ipip", check=False)  # loads the module, which makes it
        namespace.run("ip", "-6", "tunnel", "add", "ip6tnl0", "mode", "ip6ip6", check=False)
        namespace.ip("link set tunl0 up", "link set ip6tnl0 up")
        vips = [vip(number, version) for version in (4, 6) for number in range(VIPS_OF_EACH_FAMILY)]
        namespace.ip(*(f"addr add {item}/{item.max_prefixlen} dev lo" for item in vips))
        self._answer_through_the_node(name, namespace)

    def _answer_through_the_node(self, name: str, namespace: Namespace) -> None:
        namespace.sysctl({"net/ipv4/tcp_fwmark_accept": "1"})
        namespace.run("tc", "qdisc", "add", "dev", "lan", "ingress")
        for mark, node in enumerate(self.nodes, 1):
            for version, protocol, any_way in ((4, "ip", "default"), (6, "ipv6", "::/0")):
                namespace.run(
                    *("tc", "filter", "add", "dev", "lan", "ingress", "protocol", protocol, "flower"),
                    *("src_mac", mac(node), "dst_ip", own(name, version), "ip_proto", "tcp"),
                    *("action", "skbedit", "mark", str(mark)),
                )
                table = str(100 + mark)
                namespace.run("ip", f"-{version}", "rule", "add", "fwmark", str(mark), "lookup", table)
                namespace.ip(f"route add {any_way} via {own(node, version)} table {table}")
