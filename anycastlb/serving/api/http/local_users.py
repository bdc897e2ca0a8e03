"""The local user whose process is at the other end of a connection, and the groups of that user.

For a unix socket the kernel reports the user itself. For a TCP connection over the loopback, the kernel's socket tables
have the owner of the other end. This module reads only /proc and the user database, in blocking calls that take some
milliseconds on a busy machine.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

SO_PEERGROUPS = getattr(socket, "SO_PEERGROUPS", 59)
LIVE_STATES = frozenset({"01", "04", "05", "08"})
"""States of a TCP socket that can have sent us something: ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT."""
TRIES = 2


@dataclass(frozen=True, slots=True)
class User:
    """A local user. ``groups``: those its process has; empty where only the user is known."""

    uid: int
    groups: frozenset[int] = frozenset()

    def __str__(self) -> str:
        with suppress(KeyError):
            return f"uid {self.uid} ({pwd.getpwuid(self.uid).pw_name})"
        return f"uid {self.uid}"


def of_unix(connection: socket.socket) -> User:
    """The user who connected. Raises ``OSError``."""
    _, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    groups = {gid}
    with suppress(OSError):  # a kernel before 4.13; more than 1,024 groups
        packed = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4096)
        groups.update(struct.unpack(f"{len(packed) // 4}I", packed))
    return User(uid, frozenset(groups))


def of_tcp(local: tuple[str, int], remote: tuple[str, int], proc: Path = Path("/proc")) -> User | None:
    """The owner of the other end of the connection that is ``local`` to ``remote`` here; None if it is not found.

    The table is not read in one moment, so a socket may be missed while others come and go: it is read again.
    """
    for _ in range(TRIES):
        for name in ("tcp", "tcp6"):
            with suppress(OSError):
                uid = owner((proc / "net" / name).read_text(), remote, local)
                if uid is not None:
                    return User(uid)
    return None


def owner(table: str, local: tuple[str, int], remote: tuple[str, int]) -> int | None:
    """The uid of the socket ``local`` that is connected to ``remote``, from the text of /proc/net/tcp or tcp6.

    A socket whose process has closed it has inode 0, and the kernel shows uid 0 for it: nobody's, not root's.
    """
    near, far = _spellings(local), _spellings(remote)
    for pair in (f" {one} {other} " for one, other in zip(near, far, strict=True)):
        start = table.find(pair)  # and not line by line: a busy machine has many thousands
        while start >= 0:
            words = table[start : start + 200].partition("\n")[0].split()
            if len(words) >= 9 and words[2] in LIVE_STATES and words[8] != "0":
                return int(words[6])
            start = table.find(pair, start + 1)
    return None


def member(user: User, group: str) -> bool:
    """Is the user in this group, by its process or by the user database?"""
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return False
    if gid in user.groups:
        return True
    try:
        entry = pwd.getpwuid(user.uid)
    except KeyError:
        return False
    return gid in os.getgrouplist(entry.pw_name, entry.pw_gid)


def address(text: str) -> IPv4Address | IPv6Address:
    """An address without its zone, and an IPv4-mapped IPv6 address as IPv4. Raises ``ValueError``."""
    parsed = ip_address(text.partition("%")[0])
    return (isinstance(parsed, IPv6Address) and parsed.ipv4_mapped) or parsed


def _spellings(end: tuple[str, int]) -> tuple[str, ...]:
    """One end of a connection as /proc/net/tcp and tcp6 write it: ``0100007F:1240``, words in host byte order."""
    ip = address(end[0])
    packed = [ip.packed]
    if isinstance(ip, IPv4Address):
        packed.append(IPv6Address(f"::ffff:{ip}").packed)
    return tuple(
        "".join(f"{word:08X}" for word in struct.unpack(f"={len(octets) // 4}I", octets)) + f":{end[1]:04X}"
        for octets in packed
    )
