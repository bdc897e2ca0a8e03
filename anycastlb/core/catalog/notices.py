"""Notices about a service whose documents are good, but will surprise the one who wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from anycastlb.core.model import Check, Combination, Service
from anycastlb.core.model.announce import most_failed

CREDENTIAL = re.compile(r"authorization|cookie|token|api-?key|secret|password", re.IGNORECASE)
"""Headers of such names hold what only a few may know."""
IN_A_PATH = re.compile(r"[?&](\w*token|api-?_?key|\w*secret|passw(or)?d|pwd)=", re.IGNORECASE)
IN_WHAT_IS_SENT = re.compile(
    r"(^|[^\w])(auth|pass|login|authorization|\w*token|passw(or)?d|\w*secret)\b", re.IGNORECASE
)
NAMED = "${secret:"
FTP = 21


def service_notices(service: Service) -> list[tuple[str, str]]:
    """What is allowed in a service but will surprise its owner one day, with its place in the document."""
    notices: list[tuple[str, str]] = []
    primaries = sum(not backend.fallback and backend.weight > 0 for backend in service.backends)
    least = service.announce.min_backends
    if service.max_failed is not None and primaries and most_failed(service.max_failed, primaries) < 1:
        text = f"a pool of {primaries} is too small for a floor of {service.max_failed}"
        notices.append(("max_failed", f"{text}: no backend will ever be taken out on health"))
    if least.percent is None and least.weight is None and service.backends and least.count > primaries:
        notices.append(("announce.min_backends", f"needs {least.count}, and there are {primaries}: never announced"))
    weight = sum(backend.weight for backend in service.backends if not backend.fallback)
    if least.weight is not None and service.backends and least.weight > weight:
        text = f"needs weight {least.weight}, and all have {weight}: never announced"
        notices.append(("announce.min_backends", text))
    if service.backends and (text := _never_again(service, primaries, weight)):
        notices.append(("announce.reopen", text))
    bare = dict.fromkeys(name for backend in service.backends for name in _bare_credentials(backend.check))
    read = "everybody who may read services reads its value"
    named = f"{read}: name a secret of node.toml, ${{secret:NAME}}"
    moved = f"{read}: send it in a header, and name a secret of node.toml there"
    notices += [(f"check.{name}", moved if name == "path" else named) for name in bare]
    unfilled = "a secret is filled in in headers and send only: this is sent as it stands"
    notices += [(f"check.{name}", unfilled) for name in dict.fromkeys(_unfilled(service))]
    if service.protocol == "tcp" and service.port == FTP and service.virtual.persistence:
        text = "with persistence IPVS takes the VIP's ports 20 and 1024 to 65535 for FTP's data, if no service has them"
        notices.append(("persistence", f"{text}, and sends their connections to the same ports of the backends"))
    return [*notices, *_of_backends(service)]


def _never_again(service: Service, primaries: int, weight: int) -> str:
    """What is wrong with a threshold for the gate's return that the pool cannot reach; empty if it can."""
    reopen = service.announce.reopen
    if reopen is None or reopen.percent is not None:
        return ""
    if reopen.weight is not None:
        return f"needs weight {reopen.weight}, and all have {weight}: it never opens" if reopen.weight > weight else ""
    return f"needs {reopen.count}, and there are {primaries}: it never opens" if reopen.count > primaries else ""


def _bare_credentials(check: Check) -> Iterator[str]:
    """The fields of a check that seem to hold a secret in so many words."""
    if isinstance(check.params, Combination):
        for part in check.params.checks:
            yield from _bare_credentials(part)
    for name, value in getattr(check.params, "headers", ()):
        if CREDENTIAL.search(name) and value and NAMED not in value:
            yield f"headers.{name}"
    for field, pattern in (("path", IN_A_PATH), ("send", IN_WHAT_IS_SENT)):
        text = getattr(check.params, field, "")
        if isinstance(text, str) and pattern.search(text) and NAMED not in text:
            yield field


def _unfilled(service: Service) -> Iterator[str]:
    """The fields of checks that name a secret where none is filled in."""
    for check in (part for backend in service.backends for part in _parts(backend.check)):
        for field in ("path", "host", "name", "command"):
            value = getattr(check.params, field, "")
            if NAMED in (value if isinstance(value, str) else "".join(map(str, value or ()))):
                yield field


def _parts(check: Check) -> Iterator[Check]:
    yield check
    if isinstance(check.params, Combination):
        for part in check.params.checks:
            yield from _parts(part)


def _of_backends(service: Service) -> Iterator[tuple[str, str]]:
    for backend in service.backends:
        at = f"backends.{backend.name}"
        mapped = getattr(backend.address, "ipv4_mapped", None)
        if mapped is not None:
            yield f"{at}.address", f"{backend.address} is an IPv4 address in IPv6 clothes: write {mapped}"
        if service.protocol != "fwmark" and service.port and backend.port != service.port and backend.forward != "nat":
            kept = f"{backend.forward} leaves the port as it is: packets for port {service.port} arrive at port"
            yield f"{at}.port", f"{kept} {service.port}, not {backend.port}; only nat changes it"
        if backend.check.address in service.vips:
            text = f"the check aims at the VIP {backend.check.address}, which this node itself answers for"
            yield f"{at}.check", f'{text}: leave its address out, or set "via": "forward"'
