"""A generic-netlink socket: it resolves a family by its name, and speaks to that family."""

from __future__ import annotations

import struct
import sys
from functools import cache

from anycastlb.adapters.system.netlink import HEADER, Netlink, NetlinkRefused, attribute, attributes
from anycastlb.core.model import DriverError

NETLINK_GENERIC = 16
GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 3, 1, 2

_COMMAND = struct.Struct("=BBH")
"""struct genlmsghdr: command, version, reserved."""
PAYLOAD = HEADER.size + _COMMAND.size
"""Where the attributes of a message begin."""


class GenericNetlink(Netlink):
    """A socket bound to one family. ``family`` is its name (``IPVS``); ``version`` goes into every request."""

    def __init__(self, family: str, version: int = 1) -> None:
        """Raises ``FamilyMissing`` if the kernel has no such family, ``DriverError`` if it does not answer."""
        super().__init__(NETLINK_GENERIC)
        self._version, self._family = version, GENL_ID_CTRL
        try:
            self._family = self._resolve(family)
        except DriverError:
            self.close()
            raise

    def _head(self, command: int) -> tuple[int, int, bytes]:
        return self._family, 0, _command(command, self._version)

    def _resolve(self, name: str) -> int:
        try:
            data = self.ask(CTRL_CMD_GETFAMILY, attribute(CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0"))
        except NetlinkRefused as exc:
            raise FamilyMissing(exc.number, name) from exc
        for kind, start, end in attributes(data, PAYLOAD, len(data)):
            if kind == CTRL_ATTR_FAMILY_ID:
                return int.from_bytes(data[start:end], sys.byteorder)
        raise DriverError(f"generic netlink family {name}: the kernel's answer names no family id")


class FamilyMissing(NetlinkRefused):
    """The kernel has no generic netlink family of this name (its module is not loaded)."""

    def __init__(self, number: int, name: str) -> None:
        super().__init__(number)
        self.name = name


@cache
def _command(command: int, version: int) -> bytes:
    return _COMMAND.pack(command, version, 0)
