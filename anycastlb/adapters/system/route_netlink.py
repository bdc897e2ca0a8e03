"""A netlink socket for interfaces and what hangs on them: addresses, filters of packets."""

from __future__ import annotations

import errno
import fcntl
import struct

from anycastlb.adapters.system.netlink import Netlink
from anycastlb.core.model import DriverError

NETLINK_ROUTE = 0
SIOCGIFINDEX = 0x8933
_INDEX = struct.Struct("=16si20x")
"""struct ifreq: the name of an interface, and its number."""


class InterfaceMissing(DriverError):
    """There is no interface of this name."""


class RouteNetlink(Netlink):
    def __init__(self) -> None:
        """Raises ``DriverError``."""
        super().__init__(NETLINK_ROUTE)

    def index_of(self, interface: str) -> int:
        """The number of an interface. No other socket is opened for it. Raises ``DriverError``."""
        try:
            told = fcntl.ioctl(self._socket.fileno(), SIOCGIFINDEX, _INDEX.pack(interface.encode(), 0))
        except OSError as exc:
            if exc.errno == errno.ENODEV:
                raise InterfaceMissing(f"there is no interface {interface}") from exc
            raise DriverError(f"interface {interface}: {exc.strerror}") from exc
        index: int = _INDEX.unpack(told)[1]
        return index
