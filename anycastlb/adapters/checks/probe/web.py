"""Run one probe of the web checks: connect, ask, look at the answer, follow redirects within the backend.

It opens one connection at a time, each closed before the next, and keeps nothing but the TLS contexts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urljoin

from anycastlb.adapters.checks.probe import patterns, sockets
from anycastlb.adapters.checks.probe.http1 import Exchange, Response
from anycastlb.adapters.checks.probe.outcome import Down, Found
from anycastlb.adapters.checks.probe.params import TlsParams, WebParams, proxy_of, url
from anycastlb.adapters.checks.probe.patterns import Search
from anycastlb.adapters.checks.probe.stream import Stream, connected
from anycastlb.adapters.checks.probe.tls import Contexts, age, expiry, failure, openssl_text
from anycastlb.core.fields import shown
from anycastlb.core.model import Address, Check, ProbePath, endpoint

MAX_BODY = 64 * 1024
"""Bytes of a body that are looked at."""
REDIRECTS = (301, 302, 303, 307, 308)
CONTEXTS = Contexts()


@dataclass(frozen=True, slots=True)
class Hop:
    """One request: what is asked for, and of whom it is asked for."""

    method: str
    authority: str
    """Of the Host header."""
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Way:
    """Where the connection goes, and what lies between it and the server asked for."""

    address: Address
    port: int
    proxied: str | None = None
    """The server that the proxy is asked to reach; None = no proxy, or one that is asked for the hop's own."""
    proxy: bool = False


async def probe_web(check: Check, probe_path: ProbePath | None) -> Found:
    """The probe of ``http`` and ``https``."""
    params = check.params
    assert isinstance(params, WebParams)
    way, hop = start(check, params)
    if probe_path is not None and params.proxy is not None:
        raise Down('through a proxy a probe cannot go through IPVS: use either proxy or "via": "forward"')
    try:
        for followed in range(params.redirects + 1):
            answer = await _ask(way, hop, params, probe_path, followed)
            if isinstance(answer, Found):
                return answer
            hop = answer
    except OSError as exc:
        raise Down(openssl_text(exc) if not exc.errno or exc.errno < 0 else sockets.error_text(exc)) from exc
    raise AssertionError("the last hop is no redirect")


def start(check: Check, params: WebParams) -> tuple[Way, Hop]:
    """The first request of a check, and where it goes."""
    body = patterns.unescape(params.send)
    target = endpoint(check.address, check.port)
    if params.as_proxy is not None:
        _, authority, path = url(params.as_proxy)
        return Way(check.address, check.port, proxy=True), Hop(params.method, authority, path, body)
    hop = Hop(params.method, params.host or target, params.path, body)
    proxy = proxy_of(params)
    return (Way(check.address, check.port) if proxy is None else Way(*proxy, target, True)), hop


async def _ask(way: Way, hop: Hop, params: WebParams, probe_path: ProbePath | None, followed: int) -> Found | Hop:
    """What was found, or the next hop. Raises ``Down``, OSError."""
    async with connected(way.address, way.port, probe_path) as stream:
        expires = await _secure(stream, way, hop, params) if isinstance(params, TlsParams) else ""
        exchange = Exchange(stream)
        answer = await exchange.ask(hop.method, target_of(way, hop, params), headers_of(hop, params), hop.body)
        if answer.status in params.expect:
            body = await _search_body(exchange, answer, params.body) if params.body is not None else ""
            return Found(f"HTTP {answer.status}{body}{expires}")
        if params.redirects and answer.status in REDIRECTS:
            if followed == params.redirects:
                raise Down(f"HTTP {answer.status}, another redirect after {followed}")
            return _next(hop, answer, params.scheme)
        raise Down(f"HTTP {answer.status}, expected {params.expect}")


def target_of(way: Way, hop: Hop, params: WebParams) -> str:
    """What stands in the request line."""
    if way.proxy and not isinstance(params, TlsParams):
        return f"http://{way.proxied or hop.authority}{hop.path}"
    return hop.path


def headers_of(hop: Hop, params: WebParams) -> dict[str, str]:
    ours = {"Host": hop.authority, "User-Agent": "anycastlb", "Accept": "*/*", "Connection": "close"}
    if hop.body or hop.method in ("POST", "PUT"):
        ours["Content-Length"] = str(len(hop.body))
    given = {name.lower() for name, _ in params.headers}
    return {name: value for name, value in ours.items() if name.lower() not in given} | dict(params.headers)


async def _secure(stream: Stream, way: Way, hop: Hop, params: TlsParams) -> str:
    """The TLS handshake, through the proxy if there is one; what to tell of the certificate."""
    context = CONTEXTS.get(params.verify, params.ca_file or "", params.cert_file or "", params.key_file or "")
    if way.proxy:
        await _tunnel(stream, way.proxied or _with_port(hop.authority))
    try:
        await stream.encrypt(context, params.sni or _hostname(hop.authority))
    except OSError as exc:  # before ValueError: a certificate that fails is both
        raise Down(failure(exc)) from exc
    except ValueError as exc:
        raise Down(f"no TLS server name in {shown(hop.authority)}: give sni") from exc
    if params.cert_expiry is None:
        return ""
    try:
        until = expiry(stream.certificate() or b"")
    except (ValueError, StopIteration) as exc:
        raise Down("the certificate has no date of expiry that can be read") from exc
    if why := age(until, datetime.now(UTC), params.cert_expiry):
        raise Down(why)
    return f", certificate expires {until:%Y-%m-%d}"


async def _tunnel(stream: Stream, authority: str) -> None:
    answer = await Exchange(stream).ask("CONNECT", authority, {"Host": authority, "User-Agent": "anycastlb"})
    if not 200 <= answer.status <= 299:
        raise Down(f"the proxy answered HTTP {answer.status} for {authority}")


def _with_port(authority: str) -> str:
    return authority if authority.rpartition(":")[2].isdigit() and not authority.endswith("]") else f"{authority}:443"


def _hostname(authority: str) -> str:
    """Without the port: what a certificate is for."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


async def _search_body(exchange: Exchange, answer: Response, pattern: str) -> str:
    search, seen = Search(pattern), 0
    async for piece in exchange.body():
        piece = piece[: MAX_BODY - seen]
        seen += len(piece)
        if search.feed(piece):
            break
        if seen >= MAX_BODY:
            raise Down(f"HTTP {answer.status}, but the body, in its first 64 KiB, {patterns.mismatch(pattern)}")
        await asyncio.sleep(0)  # a long search leaves the others their turn
    if not search.end():
        raise Down(f"HTTP {answer.status}, but the body ({seen} bytes) {patterns.mismatch(pattern)}")
    return ", body matches"


def _next(hop: Hop, answer: Response, scheme: str) -> Hop:
    """The request that a redirect asks for."""
    location = answer.headers.get("location", "")
    try:
        other, authority, path = url(urljoin(f"{scheme}://{hop.authority}{hop.path}", location))
    except ValueError as exc:
        raise Down(f"HTTP {answer.status} with a Location that cannot be followed: {shown(location)}") from exc
    if not location or other != scheme:
        raise Down(f"HTTP {answer.status} to {shown(location)}, which an {scheme} check does not follow")
    followed = replace(hop, authority=authority, path=path)
    if answer.status == 303 or (answer.status in (301, 302) and hop.method == "POST"):
        followed = replace(followed, method="HEAD" if hop.method == "HEAD" else "GET", body=b"")
    return followed
