"""The rules about the paths of packets: interfaces, MTU and tunnel overhead, reverse paths, ARP, forwarding. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from ipaddress import ip_interface

from anycastlb.adapters.drivers.interfaces import Interface
from anycastlb.core.model import Address
from anycastlb.doctor.facts import MAX_ROUTES, Facts, Needs, Unseen
from anycastlb.doctor.finding import Finding, Level

OUTER = {4: 20, 6: 40}
"""Bytes of the outer IP header, by its family."""
INNER = {"tunnel": 0, "gre": 4, "gue": 12}
"""Bytes between the outer IP header and the packet: GRE without options; UDP and GUE."""
MIN_MTU = {4: 576, 6: 1280}
"""The packet that every IPv4 host must accept, and the smallest MTU of IPv6."""
HEADERS = {4: 40, 6: 60}
"""IP and TCP, without options."""

LEAVE_LOOPBACK = {
    "systemd-networkd": r"printf '[Match]\nName=lo\n[Link]\nUnmanaged=yes\n' > /etc/systemd/network/00-lo.network; "
    "networkctl reload",
    "NetworkManager": r"printf '[keyfile]\nunmanaged-devices=interface-name:lo\n' > "
    "/etc/NetworkManager/conf.d/lo.conf; nmcli general reload",
}
"""How each network manager is told to leave the loopback alone."""


def judge(facts: Facts) -> Iterator[Finding]:
    yield from _namespace(facts)
    yield from _ipv6(facts)
    yield from reverse_path(facts)
    yield from _manager(facts)
    if isinstance(facts.links, Unseen):
        yield Finding("notice", "network", "interfaces and routes could not be seen", facts.links.why, "run it as root")
        return
    yield from _loopback(facts, facts.links)
    if isinstance(facts.needs, Needs):
        yield from _arp(facts, facts.links, facts.needs)
        yield from forwarding(facts)
        yield from _unreachable(facts, facts.needs)
        yield from _tunnels(facts, facts.links, facts.needs)


def _namespace(facts: Facts) -> Iterator[Finding]:
    node = facts.node
    if node is None:
        return
    if not node.namespace:
        evidence = f"/proc/{node.pid}/ns/net may not be read"
        yield Finding("notice", "network", "the node's network namespace could not be seen", evidence, "run it as root")
    elif node.namespace != facts.me.namespace:
        what = "the node runs in another network namespace: IPVS, sysctls and interfaces shown here are not its own"
        evidence = f"process {node.pid}: {node.namespace}, here: {facts.me.namespace}"
        yield Finding("warning", "network", what, evidence, f"nsenter -t {node.pid} -n anycastlb doctor")


def _loopback(facts: Facts, links: tuple[Interface, ...]) -> Iterator[Finding]:
    lo = next((link for link in links if link.name == "lo"), None)
    if lo is None or not lo.up:
        what = "the loopback, on which the VIPs are, is down"
        yield Finding("error", "network", what, "lo: down" if lo else "no interface lo", "ip link set lo up")
    else:
        yield Finding("ok", "network", "the loopback is up", f"lo: up, {len(lo.addresses)} addresses")


def _manager(facts: Facts) -> Iterator[Finding]:
    """A network manager that configures an interface removes the addresses that it did not give it."""
    mend = LEAVE_LOOPBACK.get(facts.loopback_manager)
    if mend is not None:
        what = f"{facts.loopback_manager} configures lo, and may take the VIPs away from it"
        yield Finding("warning", "network", what, f"{facts.loopback_manager}: lo is managed", mend)


def _ipv6(facts: Facts) -> Iterator[Finding]:
    if facts.settings is None or not any(network.version == 6 for network in facts.settings.node.vip_ranges):
        return
    for name in ("all", "lo"):
        value = facts.kernel.sysctls.get(f"net/ipv6/conf/{name}/disable_ipv6")
        if value != "0":
            evidence = f"net.ipv6.conf.{name}.disable_ipv6 = {value}" if value else "no net.ipv6 in /proc/sys"
            what = "IPv6 is off, and vip_ranges has IPv6 networks"
            yield Finding("error", "network", what, evidence, f"sysctl -w net.ipv6.conf.{name}.disable_ipv6=0")
            return


def reverse_path(facts: Facts) -> Iterator[Finding]:
    """The kernel takes the larger of ``all`` and the interface's own value; 1 is strict."""
    sysctls = facts.kernel.sysctls
    everywhere = sysctls.get("net/ipv4/conf/all/rp_filter", "0")
    own = {name.split("/")[-2]: value for name, value in sysctls.items() if name.endswith("/rp_filter")}
    values = {name: max(everywhere, value) for name, value in own.items() if name not in ("all", "lo")}
    strict = sorted(name for name, value in values.items() if value == "1")
    if strict:
        through = isinstance(facts.needs, Needs) and facts.needs.through
        also = '; answers to checks with "via": "forward" too' if through else ""
        names = ", ".join(strict)
        what = f"rp_filter is strict on {names}: traffic that comes and goes by different ways is dropped{also}"
        evidence = f"net.ipv4.conf.all.rp_filter = {everywhere}, " + ", ".join(
            f"{name} = {own[name]}" for name in strict
        )
        mend = "sysctl -w " + " ".join(f"net/ipv4/conf/{name}/rp_filter=2" for name in strict)
        yield Finding("warning", "network", what, evidence, mend)
    elif values:
        evidence = ", ".join(f"{name} {value}" for name, value in sorted(values.items())[:8])
        yield Finding("ok", "network", "rp_filter is not strict anywhere", evidence)


def _arp(facts: Facts, links: tuple[Interface, ...], needs: Needs) -> Iterator[Finding]:
    sysctls = facts.kernel.sysctls
    shared = _on_link(links, needs.vips)
    direct = any(forward == "dr" for _, forward in needs.forwards)
    if not shared and not direct:
        return
    why = f"VIP {shared[0]} lies in the network of {shared[1]}" if shared else "backends reached by dr share the VIPs"
    for name, good, value in (("arp_ignore", ("1", "2"), "1"), ("arp_announce", ("2",), "2")):
        actual = sysctls.get(f"net/ipv4/conf/all/{name}", "")
        evidence = f"net.ipv4.conf.all.{name} = {actual}; {why}"
        if actual and actual not in good:
            what = (
                "this node answers ARP for VIPs on any interface, beside the routers and other nodes"
                if name == "arp_ignore"
                else "this node's ARP requests may carry a VIP as their source, which misleads neighbours"
            )
            level: Level = "warning" if shared else "notice"
            yield Finding(level, "network", what, evidence, f"sysctl -w net.ipv4.conf.all.{name}={value}")
        elif actual:
            yield Finding("ok", "network", f"{name} keeps VIPs out of ARP", evidence)


def _on_link(links: tuple[Interface, ...], vips: tuple[Address, ...]) -> tuple[Address, str] | None:
    for link in links:
        for text in link.addresses if link.name != "lo" else ():
            network = ip_interface(text).network
            for vip in vips:
                if vip.version == network.version == 4 and vip in network:
                    return vip, f"{link.name} ({network})"
    return None


def forwarding(facts: Facts) -> Iterator[Finding]:
    """Replies of ``nat`` backends pass through this node, so it must forward packets."""
    if isinstance(facts.needs, Unseen):
        return
    families = sorted({address.version for address, forward in facts.needs.forwards if forward == "nat"})
    for family in families:
        name = "net/ipv4/ip_forward" if family == 4 else "net/ipv6/conf/all/forwarding"
        dotted, value = name.replace("/", "."), facts.kernel.sysctls.get(name)
        if value == "0":
            what = f"{dotted} is 0, so replies of nat backends are dropped"
            yield Finding("error", "network", what, f"{dotted} = 0", f"sysctl -w {dotted}=1")
        elif value is not None:
            yield Finding("ok", "network", "replies of nat backends are forwarded", f"{dotted} = {value}")


def _unreachable(facts: Facts, needs: Needs) -> Iterator[Finding]:
    first = {address: name for (address, _), name in reversed(list(needs.forwards.items()))}
    for address, name in first.items():
        route = facts.routes.get(address)
        if route is not None and route.error:
            what = f"there is no way to backend {name}"
            evidence = f"ip route get {address}: {route.error}"
            yield Finding("error", "network", what, evidence, f"ip route add {address} via GATEWAY")
    if len(first) > MAX_ROUTES:
        what = f"only the ways to {MAX_ROUTES} of {len(first)} backends were looked at"
        yield Finding("notice", "network", what, "doctor asks the kernel for no more", "ip route get ADDRESS")


def _tunnels(facts: Facts, links: tuple[Interface, ...], needs: Needs) -> Iterator[Finding]:
    """One finding for each interface, forwarding method and address family."""
    arriving = max((link.mtu for link in links if link.up and link.name != "lo"), default=1500)
    arriving = min(arriving, 1500) if arriving > 1500 else arriving  # clients are further away than jumbo frames
    groups: dict[tuple[str, int, str, int], list[str]] = defaultdict(list)
    for (address, forward), name in needs.forwards.items():
        route = facts.routes.get(address)
        if forward in INNER and route is not None and not route.error and route.interface != "lo":
            groups[route.interface, route.mtu, forward, address.version].append(name)
    family = 6 if any(vip.version == 6 for vip in needs.vips) else 4
    discovers = facts.kernel.sysctls.get("net/ipv4/vs/pmtu_disc", "1")
    for (interface, mtu, tunnel, version), names in sorted(groups.items()):
        added = OUTER[version] + INNER[tunnel]
        room = mtu - added
        examples = f"{names[0]} and {len(names) - 1} others" if len(names) > 1 else names[0]
        evidence = (
            f"{interface}: mtu {mtu}, {tunnel} over IPv{version} adds {added}, leaves {room}; "
            f"packets arrive with up to {arriving} ({examples})"
        )
        mend = f"ip link set dev {interface} mtu {arriving + added}"
        tunnel = f"{tunnel} on {interface}"
        mss = f"or on the backends: ip route change default ... advmss {room - HEADERS[family]}"
        if room >= arriving:
            yield Finding("ok", "network", f"full packets fit through {tunnel}", evidence)
        elif room < MIN_MTU[family]:
            what = f"packets of {MIN_MTU[family]} bytes, which IPv{family} needs, do not fit through {tunnel}"
            yield Finding("error", "network", what, evidence, mend)
        elif mtu < arriving or discovers == "0":
            what = f"full packets do not fit through {tunnel}, by more than what the tunnel adds"
            if discovers == "0":
                what = f"full packets are cut in pieces on their way through {tunnel} (pmtu_disc is 0)"
            yield Finding("warning", "network", what, evidence, f"{mend}  # {mss}")
        else:
            what = (
                f"full packets do not fit through {tunnel}: clients are told by ICMP to send smaller "
                "ones, and those that do not hear it hang, unless backends announce a smaller MSS"
            )
            yield Finding("notice", "network", what, evidence, f"{mend}  # {mss}")
