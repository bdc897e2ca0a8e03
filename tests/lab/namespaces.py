"""Network namespaces: make them, wire them, and do things inside them.

Touches namespaces named ``lab-*`` only, and nothing of the host's own network. Addresses exist inside the
namespaces alone.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PREFIX = "lab-"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The lab itself is broken (not the thing under test); its text says what and shows the evidence."""


def run(
    *argv: str,
    check: bool = True,
    input: str | None = None,
    timeout: float = 600,
    env: Mapping[str, str] | None = None,
) -> str:
    """The standard output of a command. Raises ``LabError`` with its error output if it fails and ``check``.

    ``env``: variables for it, besides those that are there.
    """
    whole = {**os.environ, **env} if env else None
    done = subprocess.run(argv, capture_output=True, text=True, input=input, timeout=timeout, env=whole)
    if check and done.returncode:
        raise LabError(f"{' '.join(argv)}: exit status {done.returncode}\n{input or ''}{done.stdout}{done.stderr}")
    return done.stdout


class Namespace:
    """One network namespace, which is one machine of the lab."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.full = PREFIX + name

    def create(self, sysctls: Mapping[str, str] | None = None) -> None:
        """Make it, with its loopback up; ``sysctls``: those it begins with, if not ``SYSCTLS``."""
        if Path("/run/netns", self.full).exists():
            if busy := run("ip", "netns", "pids", self.full).split():
                raise LabError(f"namespace {self.full} is in use by process {busy[0]}: is another lab running? End it")
            run("ip", "netns", "del", self.full)
        run("ip", "netns", "add", self.full)
        self.sysctl(SYSCTLS if sysctls is None else sysctls)
        self.ip("link set lo up")

    def delete(self) -> None:
        run("ip", "netns", "del", self.full, check=False)

    def argv(self, *argv: str) -> list[str]:
        """The command that runs ``argv`` inside."""
        return ["ip", "netns", "exec", self.full, *argv]

    def run(
        self,
        *argv: str,
        check: bool = True,
        input: str | None = None,
        timeout: float = 600,
        env: Mapping[str, str] | None = None,
    ) -> str:
        return run(*self.argv(*argv), check=check, input=input, timeout=timeout, env=env)

    def ip(self, *commands: str, check: bool = True) -> str:
        """Several ``ip`` commands in one go: ``"addr add 192.0.2.1/32 dev lo"``."""
        force = () if check else ("-force",)
        return run("ip", "-n", self.full, *force, "-batch", "-", input="\n".join(commands) + "\n", check=check)

    def sysctl(self, values: Mapping[str, str]) -> None:
        """Set sysctls by their path under ``/proc/sys``."""
        with self.inside():
            for name, value in values.items():
                Path("/proc/sys", name).write_text(value)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that this thread opens in the block belong to this namespace, for as long as they live."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            there = os.open(f"/run/netns/{self.full}", os.O_RDONLY)
            try:
                _enter(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise LabError(f"setns: {os.strerror(code)}: the lab needs root")


SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/rp_filter": "0",  # replies of dr and tunnel come from where the VIP is not routed to
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv6/conf/all/accept_dad": "0",  # addresses usable at once
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/all/keep_addr_on_down": "1",  # a pulled cable does not make a machine forget its addresses
    "net/ipv6/conf/default/keep_addr_on_down": "1",
    "net/ipv4/conf/all/arp_ignore": "1",  # a VIP on lo is nobody else's business
    "net/ipv4/conf/all/arp_announce": "2",
}


def connect(near: Namespace, near_name: str, far: Namespace, far_name: str) -> None:
    """A cable: one veth pair, each end in its own namespace from the start."""
    near.ip(f"link add {near_name} type veth peer name {far_name} netns {far.full}")


def address(namespace: Namespace, interface: str, *addresses: str) -> None:
    """Set the interface up with these addresses (``10.0.0.1/24``)."""
    lines = [f"addr add {item} dev {interface}" + (" nodad" if ":" in item else "") for item in addresses]
    namespace.ip(f"link set dev {interface} up", *lines)


def delete(namespaces: Sequence[Namespace]) -> None:
    for namespace in namespaces:
        namespace.delete()
