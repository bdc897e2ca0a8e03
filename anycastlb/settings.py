"""``node.toml`` as text to frozen settings, every problem found in one go, each with its line.

Pure: it reads no file and no clock; the caller hands it the text and the host's name.
"""

from __future__ import annotations

import re
import tomllib
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator

from anycastlb.documents import CountedShare, Document, Duration, Whole, one_or_many, problems, shown
from anycastlb.model import MARKS, Address, Network, Problem, SettingsError, Share


def _network(value: Any) -> Network:
    try:
        if not isinstance(value, str):
            raise ValueError
        return ip_network(value.strip())
    except ValueError:
        raise ValueError(f'a network such as "192.0.2.0/24" without host bits, not {shown(value)}') from None


def _mark_range(value: Any) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", str(value))
    if match:
        low, high = int(match[1]), int(match[2] or match[1])
        if 1 <= low <= high < 2**32:
            return low, high
    raise ValueError(f'a mark such as 7 or a range such as "100-199", not {shown(value)}')


def _listen(value: Any) -> tuple[str, int]:
    """One of the node's own addresses, never all of them: those would include its VIPs."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\s]*)):(\d{1,5})", str(value).strip())
    if not match or int(match[3]) > 65535:
        raise ValueError(f'an address and port such as "127.0.0.1:4672", not {shown(value)}')
    host, port = match[1] or match[2], int(match[3])
    if host == "localhost":
        host = "127.0.0.1"
    try:
        if not host or _unmapped(host).is_unspecified:
            raise ValueError(
                f"the node's own addresses, not {shown(value)}: every address would include its VIPs; "
                'list those the API shall have, such as ["127.0.0.1:4672", "10.0.0.1:4672"]'
            )
    except ValueError as exc:
        if "does not appear" in str(exc):
            raise ValueError(f'an IP address and port such as "10.0.0.1:4672", not {shown(value)}') from None
        raise
    return host, port


def _unmapped(host: str) -> Address:
    """The address, an IPv4 address in IPv6 clothes as what it is. Raises ValueError."""
    found = ip_address(host)
    return (isinstance(found, IPv6Address) and found.ipv4_mapped) or found


def _patience(value: Any) -> Any:
    return None if value == "never" else value


NetworkText = Annotated[Any, BeforeValidator(_network)]
MarkRange = Annotated[Any, BeforeValidator(_mark_range)]
Listen = Annotated[Any, BeforeValidator(_listen)]
Words = Annotated[tuple[str, ...], BeforeValidator(one_or_many)]


class NodeSettings(Document):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$")]
    """The node's name; the host name unless given."""
    vip_ranges: tuple[NetworkText, ...]
    """Only these may be put on the loopback or announced."""
    fwmark_ranges: tuple[MarkRange, ...] = ()
    """Firewall marks whose IPVS services are ours, as (low, high)."""
    state_dir: str = "/var/lib/anycastlb"
    resync: Duration = 5.0
    """How often the kernel is looked at even though nothing seems to have changed."""

    @field_validator("vip_ranges")
    @classmethod
    def _some(cls, value: tuple[Network, ...]) -> tuple[Network, ...]:
        if not value:
            raise ValueError('at least one network, such as ["192.0.2.0/24"]')
        return value

    @field_validator("resync")
    @classmethod
    def _resync(cls, value: float) -> float:
        if not 0.1 <= value <= 60:
            raise ValueError('a duration from "100ms" to "1m"')
        return value


class CatalogSettings(Document):
    source: Literal["consul", "file"] = "consul"
    path: str = "/etc/anycastlb/catalog"
    max_shrink: CountedShare = Share(percent=50.0)
    """A catalog that loses more VIPs than this at once is held back."""
    confirm: Annotated[Duration | None, BeforeValidator(_patience)] = 300.0
    """A held catalog that persists this long is believed; None (``"never"``): only ``anycastlb confirm`` lets it in."""


class ConsulSettings(Document):
    address: str = "http://127.0.0.1:8500"
    prefix: str = "anycastlb/"
    token_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    namespace: str | None = None
    datacenter: str | None = None
    wait: Duration = 60.0
    """How long one blocking query may wait."""

    @field_validator("address")
    @classmethod
    def _url(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/]+/?", value):
            raise ValueError(f'a URL such as "http://127.0.0.1:8500", not {shown(value)}')
        return value.rstrip("/")

    @field_validator("prefix")
    @classmethod
    def _slash(cls, value: str) -> str:
        if not value.strip("/") or value.startswith("/"):
            raise ValueError(f'a key prefix such as "anycastlb/", not {shown(value)}')
        return value.rstrip("/") + "/"


class BgpSettings(Document):
    socket: str = "/run/anycastlb/bgp.sock"
    hold: Duration = 15.0
    """How long routes outlive a silent daemon."""
    group: str | None = None
    """The group ExaBGP runs with, which may then connect to the socket; None: only the daemon's own user and root."""

    @field_validator("hold")
    @classmethod
    def _hold(cls, value: float) -> float:
        if not 1 <= value <= 600:
            raise ValueError('a duration from "1s" to "10m"')
        return value


class ApiSettings(Document):
    listen: Annotated[tuple[Listen, ...], BeforeValidator(one_or_many)] = (("127.0.0.1", 4672),)
    """(address, port) each: plain HTTP on the loopback, TLS everywhere else."""
    socket: str = "/run/anycastlb/api.sock"
    """The unix socket of the local admin; empty: none."""
    group: str | None = None
    """The group whose members may write, through the socket and over the loopback, as root may."""
    loopback: Literal["user", "read", "none"] = "user"
    """What a connection over the loopback without credentials may: what its user may, read, or nothing."""
    names: Words = ()
    """More names that a plain request may have in its Host header, beside addresses, localhost and the node's name."""
    read_token_file: str | None = None
    write_token_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    """The certificate's key; None: it is in the same file."""
    tls_client_ca_file: str | None = None
    """Whoever has a certificate of this authority may read."""
    tls_writers: Words = ()
    """The names (CN or SAN) in client certificates that may write."""
    rate: Annotated[Whole, Field(ge=1, le=1_000_000)] = 100
    """Requests a second of one caller, twice as many at once."""
    max_requests: Annotated[Whole, Field(ge=1, le=10_000)] = 64
    """Requests at work at the same time, through one listener."""
    max_connections: Annotated[Whole, Field(ge=8, le=100_000)] = 256
    """Connections of one listener; above it the one that was idle longest is closed."""
    max_streams: Annotated[Whole, Field(ge=1, le=10_000)] = 32
    """Readers that follow events at the same time, through one listener."""

    @property
    def apart(self) -> tuple[tuple[str, int], ...]:
        """The listeners that are not on the loopback."""
        return tuple((host, port) for host, port in self.listen if not _unmapped(host).is_loopback)

    def faults(self, vip_ranges: tuple[Network, ...]) -> list[tuple[tuple[str | int, ...], Any, str]]:
        """What does not go together: (path, value, what was expected)."""
        found: list[tuple[tuple[str | int, ...], Any, str]] = []
        for at, (host, port) in enumerate(self.listen):
            for vips in vip_ranges:
                if _unmapped(host) in vips:
                    expected = (
                        f"one of the node's own addresses, and {host} lies in node.vip_ranges ({vips}), where every "
                        "node would answer; list an address that belongs to this node alone"
                    )
                    found.append((("listen", at), host, expected))
            if (host, port) in self.apart and self.tls_cert_file is None:
                expected = (
                    f"an address of the loopback, and {host} is none: over a network the API speaks only TLS; set "
                    "tls_cert_file and tls_key_file, or listen on 127.0.0.1"
                )
                found.append((("listen", at), host, expected))
        if self.tls_cert_file is None:
            for name in ("tls_key_file", "tls_client_ca_file"):
                if (value := getattr(self, name)) is not None:
                    found.append(((name,), value, "tls_cert_file beside it: set it, or remove this"))
        if self.tls_writers and self.tls_client_ca_file is None:
            expected = "tls_client_ca_file beside it, the authority whose certificates are believed: set it"
            found.append((("tls_writers",), self.tls_writers, expected))
        return found


class IpvsSettings(Document):
    manage_sysctls: bool = True
    """Set the net.ipv4.vs sysctls that let a node take over flows; if false they are only checked."""


def _programs(value: Any) -> Any:
    """Patterns of absolute paths; a ``*`` stands for part of one name, never for a ``/``."""
    patterns = one_or_many(value)
    for pattern in patterns:
        parts = pattern.split("/") if isinstance(pattern, str) else []
        if len(parts) < 2 or parts[0] or not all(parts[1:]) or {".", ".."} & set(parts):
            raise ValueError(
                "absolute paths of programs, in which * stands for any part of a name, "
                f'such as "/usr/local/lib/anycastlb/checks/*", not {shown(pattern)}'
            )
    return tuple(patterns)


class ChecksSettings(Document):
    commands: Annotated[tuple[str, ...], BeforeValidator(_programs)] = ()
    """The programs that ``command`` checks may run on this node; none unless given."""
    marks: MarkRange = MARKS
    """Firewall marks for the probes of ``"via": "forward"``, as (low, high), one a backend; every IPVS service with
    such a mark is ours."""


class LogSettings(Document):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["logfmt", "json"] = "logfmt"


class Settings(Document):
    node: NodeSettings
    catalog: CatalogSettings = CatalogSettings()
    consul: ConsulSettings = ConsulSettings()
    bgp: BgpSettings = BgpSettings()
    api: Annotated[ApiSettings, Field(validate_default=True)] = ApiSettings()
    ipvs: IpvsSettings = IpvsSettings()
    checks: Annotated[ChecksSettings, Field(validate_default=True)] = ChecksSettings()
    log: LogSettings = LogSettings()

    @field_validator("api")
    @classmethod
    def _reachable(cls, value: ApiSettings, info: ValidationInfo) -> ApiSettings:
        node = info.data.get("node")
        ranges = node.vip_ranges if isinstance(node, NodeSettings) else ()
        if faults := value.faults(ranges):  # raised so, each keeps its own path and with it its line
            raise ValidationError.from_exception_data(
                "api",
                [
                    {"type": "value_error", "loc": at, "input": given, "ctx": {"error": ValueError(expected)}}
                    for at, given, expected in faults
                ],
            )
        return value

    @field_validator("checks")
    @classmethod
    def _apart(cls, value: ChecksSettings, info: ValidationInfo) -> ChecksSettings:
        node = info.data.get("node")
        low, high = value.marks
        for first, last in node.fwmark_ranges if isinstance(node, NodeSettings) else ():
            if first <= high and low <= last:
                raise ValueError(
                    f"marks for probes outside of node.fwmark_ranges, and {low}-{high} overlaps {first}-{last}; "
                    'set marks to a range that nothing else on this node uses, such as "65536-69631"'
                )
        return value


def parse(text: str, name: str = "node.toml", host: str = "localhost") -> Settings:
    """Settings from the text of ``node.toml``; ``host`` is the default node name.

    Raises ``SettingsError`` with every problem, each with its line.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        found = re.search(r"line (\d+)", str(exc))
        problem = Problem(name, "", f"expected TOML: {exc}", int(found[1]) if found else 0)
        raise SettingsError((problem,)) from exc
    node = document.setdefault("node", {})
    if isinstance(node, dict):
        node.setdefault("name", host)
    try:
        return Settings.model_validate(document)
    except ValidationError as exc:
        raise SettingsError(problems(exc, name, lambda path: line_of(text, path))) from exc


def line_of(text: str, path: str) -> int:
    """The 1-based line where ``table.key`` is set in a TOML text; its table's line if the key is absent; else 0."""
    table, _, rest = path.partition(".")
    key = rest.split(".")[0]
    inside = at = 0
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            current = header[1].replace('"', "")
            if current == table:
                inside = at = number
        elif (found := re.match(r'\s*"?([\w.-]+)"?\s*=', line)) and (
            (current == table and found[1] == key) or (not current and found[1] in (table, f"{table}.{key}"))
        ):
            return number
    return inside or at
