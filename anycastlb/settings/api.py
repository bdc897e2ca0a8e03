"""``[api]``: where the API listens, and who may use it."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from anycastlb.core.fields import Document, Whole, one_or_many, shown
from anycastlb.core.model import Address, Network


def _listen(value: Any) -> tuple[str, int]:
    """Parse an address of the node and a port. "Every address" is refused, since that would include its VIPs."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\s]*)):(\d{1,5})", str(value).strip())
    if not match or int(match[3]) > 65535:
        raise ValueError(f'an address and port such as "127.0.0.1:4672", not {shown(value)}')
    host, port = match[1] or match[2], int(match[3])
    if host == "localhost":
        host = "127.0.0.1"
    try:
        everywhere = not host or _unmapped(host).is_unspecified
    except ValueError:
        raise ValueError(f'an IP address and port such as "10.0.0.1:4672", not {shown(value)}') from None
    if everywhere:
        raise ValueError(
            f"the node's own addresses, not {shown(value)}: every address would include its VIPs; "
            'list those the API shall have, such as ["127.0.0.1:4672", "10.0.0.1:4672"]'
        )
    return host, port


def _unmapped(host: str) -> Address:
    """The address; an IPv4-mapped IPv6 address as the IPv4 address. Raises ``ValueError``."""
    address = ip_address(host)
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


Listen = Annotated[Any, BeforeValidator(_listen)]
Words = Annotated[tuple[str, ...], BeforeValidator(one_or_many)]


class ApiSettings(Document):
    listen: Annotated[tuple[Listen, ...], BeforeValidator(one_or_many)] = (("127.0.0.1", 4672),)
    """Each is (address, port). The API uses plain HTTP on the loopback and TLS everywhere else."""
    socket: str = "/run/anycastlb/api.sock"
    """The unix socket for local administrators; empty: none."""
    group: str | None = None
    """Its members may write through the socket and over the loopback, as root may."""
    loopback: Literal["user", "read", "none"] = "user"
    """The rights of a connection over the loopback without credentials: those of its user, reading, or none."""
    names: Words = ()
    """Names that a plain request may have in its Host header, besides addresses, localhost and the node's name."""
    read_token_file: str | None = None
    write_token_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    """The key of the certificate; None: it is in the same file."""
    tls_client_ca_file: str | None = None
    """Clients with a certificate of this authority may read."""
    tls_writers: Words = ()
    """Clients whose certificate has one of these names (CN or SAN) may write."""
    rate: Annotated[Whole, Field(ge=1, le=1_000_000)] = 100
    """Requests per second of one caller; twice as many at once."""
    max_requests: Annotated[Whole, Field(ge=1, le=10_000)] = 64
    """Requests in progress at the same time, for each listener."""
    max_connections: Annotated[Whole, Field(ge=8, le=100_000)] = 256
    """Connections of each listener. Above it, the connection that was idle longest is closed."""
    max_streams: Annotated[Whole, Field(ge=1, le=10_000)] = 32
    """Readers that follow events at the same time, for each listener."""

    @property
    def apart(self) -> tuple[tuple[str, int], ...]:
        """The listeners that are not on the loopback."""
        return tuple((host, port) for host, port in self.listen if not _unmapped(host).is_loopback)

    def faults(self, vip_ranges: tuple[Network, ...]) -> list[tuple[tuple[str | int, ...], Any, str]]:
        """The settings that do not go together, each as (path, value, what was expected)."""
        faults: list[tuple[tuple[str | int, ...], Any, str]] = []
        for at, (host, port) in enumerate(self.listen):
            for vips in vip_ranges:
                if _unmapped(host) in vips:
                    expected = (
                        f"one of the node's own addresses, and {host} lies in node.vip_ranges ({vips}), where every "
                        "node would answer; list an address that belongs to this node alone"
                    )
                    faults.append((("listen", at), host, expected))
            if (host, port) in self.apart and self.tls_cert_file is None:
                expected = (
                    f"an address of the loopback, and {host} is none: over a network the API speaks only TLS; set "
                    "tls_cert_file and tls_key_file, or listen on 127.0.0.1"
                )
                faults.append((("listen", at), host, expected))
        if self.tls_cert_file is None:
            for name in ("tls_key_file", "tls_client_ca_file"):
                if (value := getattr(self, name)) is not None:
                    faults.append(((name,), value, "tls_cert_file beside it: set it, or remove this"))
        if self.tls_writers and self.tls_client_ca_file is None:
            expected = "tls_client_ca_file beside it, the authority whose certificates are believed: set it"
            faults.append((("tls_writers",), self.tls_writers, expected))
        return faults
