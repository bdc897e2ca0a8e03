"""Who is where: the machines of the lab, their addresses and cables.

::

    client ──── tor ──── uplink lb1 ┐
     10.9.0.2    │ └──── uplink lb2 ┤        uplinks 10.8.N.0/30, fd00:8:N::/64
                 └── lan (bridge in tor) ┴── b1 b2 b3 consul     10.1.0.0/24, fd00:1::/64

The names and addresses here are those of ``vagrant/roles/settings``; what each machine does with its cables is in the
scripts beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from anycastlb.core.model import Address
from tests.lab.namespaces import Namespace, connect

ROLES = Path(__file__).resolve().parents[2] / "vagrant/roles"
"""The scripts that set up the machines, here and under Vagrant."""
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
    """All namespaces, wired. ``create`` before use, ``delete`` after.

    The cables are laid here; what a machine makes of them is its role's own work, by the script that sets up the same
    machine under Vagrant.
    """

    def __init__(self, nodes: Sequence[str] = NODES) -> None:
        self.client, self.tor, self.consul = Namespace("client"), Namespace("tor"), Namespace("consul")
        self.nodes = {name: Namespace(name) for name in nodes}
        self.backends = {name: Namespace(name) for name in BACKENDS}

    @property
    def all(self) -> list[Namespace]:
        return [self.client, self.tor, self.consul, *self.nodes.values(), *self.backends.values()]

    def create(self) -> None:
        for namespace in self.all:
            namespace.create({})
        self._cables()
        self.role("router", self.tor)
        self.role("client", self.client)
        self.role("consul", self.consul)
        for namespace in self.nodes.values():
            self.role("node", namespace)
        for namespace in self.backends.values():
            self.role("backend", namespace)

    def delete(self) -> None:
        for namespace in self.all:
            namespace.delete()

    def role(self, role: str, namespace: Namespace, part: str = "network") -> str:
        """Run a part of a role's script in a machine; what it printed."""
        return namespace.run("bash", str(ROLES / role), part, env=self.environment(namespace))

    def environment(self, namespace: Namespace) -> dict[str, str]:
        """What tells a role's script about the machine and the lab. There is no way out of here but the router."""
        return {
            "MACHINE": namespace.name,
            "NODES": " ".join(self.nodes),
            "BACKENDS": " ".join(self.backends),
            "BEYOND": "0.0.0.0/0 ::/0",
        }

    def route(self, name: str) -> None:
        """A node's way back to the clients; setting a link down takes it away."""
        self.nodes[name].ip(*(f"route replace default via {uplink(name, version, True)}" for version in (4, 6)))

    def answer(self, node: str, through: str) -> None:
        """What came through one node is answered through another from now on, as when the backends' gateway moves."""
        table = 101 + list(self.nodes).index(node)
        for backend in self.backends.values():
            for version, any_way in ((4, "default"), (6, "::/0")):
                backend.ip(f"route replace {any_way} via {own(through, version)} table {table}")

    def _cables(self) -> None:
        self.tor.ip("link add lan type bridge forward_delay 0")
        connect(self.tor, "client", self.client, "tor")
        self._plug(self.consul)
        for name, namespace in self.nodes.items():
            connect(self.tor, f"{name}-uplink", namespace, "uplink")
            self._plug(namespace)
        for namespace in self.backends.values():
            self._plug(namespace)

    def _plug(self, namespace: Namespace) -> None:
        """Into the switch that all machines of the LAN share."""
        connect(self.tor, namespace.name, namespace, "lan")
        self.tor.ip(f"link set {namespace.name} mtu {LAN_MTU} master lan up")
