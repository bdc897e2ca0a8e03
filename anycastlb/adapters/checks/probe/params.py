"""Validate the parameters of the web checks, and say what was expected where one is wrong. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from anycastlb.adapters.checks.probe.patterns import Pattern, Payload
from anycastlb.core.fields import Document, Duration, Whole, one_or_many, shown
from anycastlb.core.model import Address

OURS = ("host", "connection", "content-length", "transfer-encoding")
"""Headers that the check writes itself."""
MAX_HEADERS = 64
LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
"""One label of a host name. (Backends send names too, in redirects: nothing here may backtrack for long.)"""


@dataclass(frozen=True, slots=True)
class Codes:
    """Status codes, as ranges (low, high)."""

    ranges: tuple[tuple[int, int], ...]

    def __contains__(self, status: int) -> bool:
        return any(low <= status <= high for low, high in self.ranges)

    def __str__(self) -> str:
        return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in self.ranges)


def _codes(value: Any) -> Codes:
    """``200``, ``"200-299"`` or a list of both. Raises ValueError."""
    if isinstance(value, Codes):
        return value
    if isinstance(value, (list, tuple)) and not value:
        raise ValueError("at least one status code")
    return Codes(tuple(_range(item) for item in one_or_many(value)))


def _range(item: Any) -> tuple[int, int]:
    match = re.fullmatch(r"([1-5]\d\d)(?:\s*-\s*([1-5]\d\d))?", str(item).strip())
    if not match or isinstance(item, bool) or int(match[1]) > int(match[2] or match[1]):
        raise ValueError(f'a status code such as 200, a range such as "200-299", or a list of them, not {shown(item)}')
    return int(match[1]), int(match[2] or match[1])


def _headers(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    pairs = tuple(sorted(value.items(), key=lambda pair: str(pair[0])))
    names = [str(name).lower() for name, _ in pairs]
    if len(names) > MAX_HEADERS:
        raise ValueError(f"at most {MAX_HEADERS} headers, not {len(names)}")
    for name in names:
        if name in OURS:
            raise ValueError(f"headers without {name}: the check writes it itself (see the fields host and send)")
        if names.count(name) > 1:
            raise ValueError(f"each header once, not {name} twice")
    return pairs


def _plain(value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"printable text, not {shown(value)}")
    return value


def _name(value: str) -> str:
    """A name that a certificate can be for. Raises ValueError."""
    labels = value.removesuffix(".").split(".")
    if len(value) > 253 or not all(LABEL.fullmatch(label) for label in labels):
        try:
            ip_address(value)
        except ValueError:
            raise ValueError(f"a host name or an address, not {shown(value)}") from None
    return value


def _authority(value: str) -> str:
    """A name or address, with or without a port. Raises ValueError."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:\d{1,5})?", value)
    if not match:
        raise ValueError(f'a host such as "www.example.org", or with a port, not {shown(value)}')
    _name(match[1].strip("[]"))
    return value


def proxy_of(params: object) -> tuple[Address, int] | None:
    """The address and port of the proxy that a check goes through, if any."""
    text = getattr(params, "proxy", None)
    if text is None:
        return None
    host, _, port = text.removeprefix("http://").rstrip("/").rpartition(":")
    return ip_address(host.strip("[]")), int(port)


def _proxy(value: str) -> str:
    match = re.fullmatch(r"http://(\[[^\]]+\]|[^:/\[\]]+):(\d{1,5})/?", value)
    try:
        if match and 0 < int(match[2]) < 65536:
            ip_address(match[1].strip("[]"))
            return value
    except ValueError:
        pass
    raise ValueError(f'a proxy by its address, such as "http://192.0.2.8:3128", not {shown(value)}')


def url(value: str) -> tuple[str, str, str]:
    """Scheme, authority and path (with the query) of an absolute URL. Raises ValueError."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or not re.fullmatch(r"[!-~]+", value):
        raise ValueError(f'a URL such as "http://example.org/", not {shown(value)}')
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, _authority(parts.netloc), path


def _as_url(value: str) -> str:
    url(value)
    return value


Text = Annotated[str, Field(max_length=4096), AfterValidator(_plain)]
Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", max_length=256)]
File = Annotated[str, Field(pattern=r"^/[^\x00]*$", max_length=4096)]


class WebParams(Document):
    """What ``http`` and ``https`` have in common."""

    scheme: ClassVar[str] = "http"

    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT"] = "GET"
    """The request's method."""
    path: Annotated[str, Field(pattern=r"^/[!-~]*$", max_length=4096)] = "/"
    """The path, with the query if there is one; sent as it is written here."""
    host: Annotated[str, AfterValidator(_authority)] | None = None
    """The Host header; the backend's address and port unless given."""
    headers: Annotated[
        tuple[tuple[Token, Text], ...], BeforeValidator(_headers, json_schema_input_type=dict[str, str])
    ] = ()
    """Further request headers, as an object: ``{"X-Probe": "1"}``."""
    send: Payload = ""
    r"""The request's body, for POST and PUT; ``\r``, ``\n``, ``\t``, ``\0``, ``\\`` and ``\xNN`` are bytes."""
    expect: Annotated[Codes, BeforeValidator(_codes, json_schema_input_type=int | str | list[int | str])] = Codes(
        ((200, 200),)
    )
    """Status codes that mean up: a number, a range ``"200-299"``, or a list of them."""
    body: Pattern | None = None
    """What the answer's first 64 KiB of body must contain: text, or ``re:`` and a regular expression, in which ``^``
    and ``$`` match at every line. Without it the body is not read."""
    redirects: Annotated[Whole, Field(ge=0, le=10)] = 0
    """Follow at most so many redirects. Always on the backend itself: the next request asks it for the new host and
    path. A redirect to the other scheme (http to https) is not followed, but a failure."""
    proxy: Annotated[str, AfterValidator(_proxy)] | None = None
    """Go through this HTTP proxy, ``"http://192.0.2.8:3128"`` (an address: nothing is looked up in DNS)."""
    as_proxy: Annotated[str, Field(max_length=4096), AfterValidator(_as_url)] | None = None
    """The backend is an HTTP proxy: ask it for this URL, instead of ``host`` and ``path``."""

    @model_validator(mode="after")
    def _agrees(self) -> WebParams:
        if self.send and self.method not in ("POST", "PUT"):
            raise ValueError("method POST or PUT with send")
        if self.as_proxy is not None:
            if self.proxy is not None or self.host is not None or self.path != "/":
                raise ValueError("as_proxy without proxy, host and path: its URL says them")
            if url(self.as_proxy)[0] != self.scheme:
                raise ValueError(f"a URL of {self.scheme} as as_proxy, as the check's type is {self.scheme}")
        return self


class TlsParams(WebParams):
    """What only ``https`` has."""

    scheme: ClassVar[str] = "https"

    sni: Annotated[str, AfterValidator(_name)] | None = None
    """The name asked for in the TLS handshake, which the certificate must be for; that of ``host`` unless given."""
    verify: bool = True
    """Verify the certificate: its chain, its dates and its name."""
    ca_file: File | None = None
    """CA certificates (PEM, an absolute path on the node) to verify against, instead of the system's. Read again when
    the file changes."""
    cert_expiry: Annotated[Duration, Field(ge=0, le=10 * 365 * 86400)] | None = None
    """Down if the server's certificate has less than this to live, such as ``"14d"``."""
    cert_file: File | None = None
    """The client certificate to show (PEM, an absolute path on the node)."""
    key_file: File | None = None
    """Its private key, unencrypted; in ``cert_file`` unless given."""

    @model_validator(mode="after")
    def _fits(self) -> TlsParams:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("cert_file with key_file")
        if self.ca_file is not None and not self.verify:
            raise ValueError("either ca_file or verify: false")
        return self
