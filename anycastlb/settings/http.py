"""``[http]``: that this node serves gateways, and where its HAProxy is."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from anycastlb.core.fields import LABELS, Document, Duration, Ip, Whole, is_address, one_or_many, shown
from anycastlb.settings.marks import MarkRange

GATEWAY_MARKS = (1_095_565_312, 1_095_566_335)
"""Next to those for probes. They are ours also without ``[http]``: what a node leaves behind that had it is removed."""
Server = tuple[str, int]


def _server(value: Any) -> Server:
    """Parse the name or address of a server, and its port."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\s]+)):(\d{1,5})", value.strip()) if isinstance(value, str) else None
    host = (match[1] or match[2]) if match else ""
    if match is None or not 0 < int(match[3]) <= 65535 or not (is_address(host) or re.fullmatch(LABELS, host)):
        raise ValueError(f'a name or address and a port such as "127.0.0.1:8125", not {shown(value)}')
    return host, int(match[3])


Interface = Annotated[str, Field(pattern=r"^[^\s/:]{1,15}$")]


class HttpSettings(Document):
    program: str = "/usr/sbin/haproxy"
    directory: str = "/var/lib/anycastlb-haproxy"
    """What HAProxy starts with: the daemon writes its files, HAProxy reads them."""
    certificate_dir: str = "/etc/anycastlb/certificates"
    """``NAME.pem`` for each certificate that gateways name: its chain and its key."""
    socket: str = "/run/anycastlb-haproxy/admin.sock"
    """The Runtime API of the worker."""
    master_socket: str = "/run/anycastlb-haproxy/master.sock"
    threads: Annotated[Whole, Field(ge=0, le=64)] = 0
    """0: one for each processor."""
    hard_stop_after: Annotated[Duration, Field(ge=1, le=7 * 86400)] = 3600.0
    """The time after which a reload ends the connections of the worker before it."""

    address: Ip | None = None
    """This node's own address, where the other nodes send connections of gateways with ``spread: mh`` that it is to
    serve. Without it this node serves what reaches it, and shares nothing."""
    marks: MarkRange = GATEWAY_MARKS
    """The firewall marks for these connections, as (low, high); one for each gateway. Every IPVS service with such a
    mark is ours."""
    ingress: Annotated[
        tuple[Interface, ...], BeforeValidator(one_or_many), Field(max_length=64, validate_default=True)
    ] = ()
    """The interfaces by which clients' packets come in, where they are marked."""

    statsd: Annotated[Any, BeforeValidator(_server)] = None
    """The statsd server that gets the requests by hostname; None: nobody does."""
    statsd_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=100)] = "ELB"
    """What the names of its counters begin with."""

    @field_validator("ingress")
    @classmethod
    def _both(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        address = info.data.get("address")
        if (address is None) == bool(value):
            given, other = ("address", "ingress") if address else ("ingress", "address")
            raise ValueError(f"http.address and http.ingress together, or none of them: {given} needs {other}")
        return value

    @field_validator("program", "directory", "certificate_dir", "socket", "master_socket")
    @classmethod
    def _path(cls, value: str) -> str:
        if not re.fullmatch(r"/[A-Za-z0-9._/+@-]{1,200}", value):
            raise ValueError(
                f"an absolute path of letters, digits and . _ / + @ -, which HAProxy can read, not {shown(value)}"
            )
        return value.rstrip("/")
