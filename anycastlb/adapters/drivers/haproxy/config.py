"""HAProxy's configuration as text: the static part of the HTTP tier, and the servers as they are wanted.

What documents say is only ever data in maps. The few names that do stand in the configuration are checked one by one
(``names``), so no document can add a line or a word to it. HAProxy 2.6 and 3.0 take the same configuration. Pure.

Decision record: docs/decisions/0019-http-tier.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address

from anycastlb.adapters.drivers.haproxy import machine
from anycastlb.adapters.drivers.haproxy.entries import Needs
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.names import FILE, FILE_NAME, GATEWAY, TOKEN, UnsafeName, checked
from anycastlb.core.http.names import escaped
from anycastlb.core.model import (
    Balancing,
    Gateway,
    HttpConfig,
    HttpLimits,
    HttpServer,
    HttpServerKey,
    Retry,
    Section,
    ServiceKey,
    Tls,
    endpoint,
)

HEADROOM = 1024
"""Bytes of a buffer that HAProxy keeps for what it changes in headers: its ``tune.maxrewrite``."""
REPEATED = "GET HEAD OPTIONS TRACE"
"""Methods that may be sent to another server after the first may have seen them."""
ALGORITHMS = ("roundrobin", "leastconn", "random", "source", "uri")
RETRY_ON = frozenset({"none", "conn-failure", "empty-response", "junk-response", "response-timeout", "0rtt-rejected"})
RETRY_ON_STATUS = frozenset({"401", "403", "404", "408", "425", "500", "501", "502", "503", "504"})
MARK = "anycastlb"
"""The first word of the description of a HAProxy that is ours."""


def render(
    config: HttpConfig, digest: str, servers: Mapping[HttpServerKey, HttpServer], installation: Installation
) -> str:
    """The whole file. Raises ``UnsafeName``."""
    return with_servers(render_static(config, digest, installation), servers)


def render_static(config: HttpConfig, digest: str, installation: Installation) -> str:
    """The file without servers. Raises ``UnsafeName``."""
    return _render(config, description(digest, installation), installation)


def description(digest: str, installation: Installation) -> str:
    """What HAProxy says of itself in ``show info``: the digest of what is wanted, and of how it was rendered."""
    return f"{MARK} {checked(digest)} {_revision(installation)}"


def digest_of(said: str, installation: Installation) -> str:
    """The digest in a description; another text if this version would render the configuration in another way."""
    mark, _, rest = said.partition(" ")
    digest, _, revision = rest.partition(" ")
    if mark != MARK or not digest:
        return "unknown"
    return digest if revision == _revision(installation) else f"{digest} of another version"


@lru_cache(maxsize=4)
def _revision(installation: Installation) -> str:
    """A digest of how configurations are rendered: of one that has everything that one can have."""
    return sha256(_render(SAMPLE, MARK, installation).encode()).hexdigest()[:8]


def _render(config: HttpConfig, said: str, installation: Installation) -> str:
    for path in (installation.directory, installation.certificates, installation.socket):
        checked(str(path), FILE, "a path")
    blocks = [
        ("global", _global(config, said, installation)),
        ("defaults _afrontend", (*_common(), *machine.find(installation), *_limits(config),
                                 *machine.decide(config, installation))),
        *((f"frontend _ag:{escaped(one.name)} from _afrontend", _frontend(one, installation))
          for one in config.gateways),
        ("defaults _acommon", _common()),
        ("backend _asites from _acommon", _sites()),
        ("backend _anone from _acommon", ("http-request sc-inc-gpc(5,0)", "http-request return status 503")),
        ("backend _astatus from _acommon", machine.statuses()),
        ("backend _aredirect from _acommon", machine.redirects(installation)),
        ("defaults _apool", (*_common(), *_pools(), *machine.change(config, installation))),
        *((f"backend {checked(one.name)} from _apool", _backend(one)) for one in config.sections),
    ]  # fmt: skip
    return "\n".join(_block(title, lines) for title, lines in blocks)


def with_servers(static: str, servers: Mapping[HttpServerKey, HttpServer]) -> str:
    """The static part with the servers of those sections that it has. Raises ``UnsafeName``."""
    by_section: dict[str, list[str]] = {}
    for key, row in servers.items():
        by_section.setdefault(key.section, []).append(_server(key.server, row))
    lines = []
    for line in static.splitlines():
        lines.append(line)
        if line.startswith("backend "):
            lines += by_section.get(line.split()[1], ())
    return "\n".join(lines) + "\n"


def without_servers(text: str) -> str:
    """The static part of a file that ``with_servers`` has made."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("  server "))


def offers(static: str) -> Needs:
    """What entries may lead to in a configuration."""
    return Needs(
        frozenset(re.findall(r"^backend (\S+) from _apool$", static, re.MULTILINE)),
        frozenset(re.findall(r"set-var-fmt\(txn\.s\) .* -m beg (\S+): }", static)),
        frozenset(re.findall(r"concat\(\|(request|response)\.set\.([^)]+)\)", static)),
    )


def listens(static: str) -> frozenset[ServiceKey]:
    """Where the gateways of a configuration listen."""
    binds = re.findall(r"^  bind (\S+):(\d+)", static, re.MULTILINE)
    return frozenset(ServiceKey("tcp", ip_address(address.strip("[]")), int(port)) for address, port in binds)


def keep(static: str, config: HttpConfig, needed: Needs) -> tuple[HttpConfig, str]:
    """A new configuration with what graphs still need that are served now, and old sections that it lacks.

    ``static`` is the configuration before. A hostname leaves an old graph only after the reload.
    """
    missing = needed.sections - {section.name for section in config.sections}
    blocks = re.findall(r"^backend (\S+) from _apool\n((?:  .*\n)*)", static, re.MULTILINE)
    kept = "".join(f"\nbackend {name} from _apool\n{lines}" for name, lines in blocks if name in missing)
    headers = {side: {name for of, name in needed.headers if of == side} for side in ("request", "response")}
    config = replace(
        config,
        subjects=tuple(sorted({*config.subjects, *needed.subjects})),
        request_headers=tuple(sorted({*config.request_headers, *headers["request"]})),
        response_headers=tuple(sorted({*config.response_headers, *headers["response"]})),
    )
    return config, kept


def certificate_list(names: Iterable[str], installation: Installation) -> str:
    """The certificates of a gateway; the first is sent where none fits. Raises ``UnsafeName``."""
    return "".join(f"{installation.certificate(checked(name, FILE_NAME))}\n" for name in names)


def _block(title: str, lines: Iterable[str]) -> str:
    return "".join([f"{title}\n", *(f"  {line}\n" for line in lines)])


def _global(config: HttpConfig, said: str, installation: Installation) -> Iterator[str]:
    yield f'description "{said}"'
    for what in ("user", "group", "chroot"):
        if value := getattr(installation, what):
            yield f"{what} {checked(value, FILE)}"
    yield f"stats socket {installation.socket} mode 660 level admin expose-fd listeners"
    yield "stats timeout 24h"
    if installation.threads:
        yield f"nbthread {installation.threads:d}"
    yield f"hard-stop-after {_ms(installation.hard_stop_after)}"
    yield "mworker-max-reloads 20"
    yield f"tune.bufsize {_buffer(config):d}"
    yield f"tune.maxrewrite {HEADROOM}"
    yield "tune.pattern.cache-size 0"


def _buffer(config: HttpConfig) -> int:
    return max([16_384, *(gateway.limits.header_bytes + HEADROOM for gateway in config.gateways)])


def _common() -> Iterator[str]:
    yield "mode http"
    yield "timeout connect 3s"
    yield "timeout client 60s"
    yield "timeout server 60s"
    yield "timeout queue 10s"
    yield "timeout tunnel 1h"
    yield "timeout http-request 10s"
    yield "option http-restrict-req-hdr-names delete"
    yield "option idle-close-on-response"


def _limits(config: HttpConfig) -> Iterator[str]:
    """What is narrower than HAProxy's buffers, which are the same for all gateways."""
    if len({gateway.limits.header_bytes for gateway in config.gateways}) > 1:
        yield "http-request return status 431 if { req.hdrs,length,sub(sess.header_bytes) gt 0 }"


def _frontend(gateway: Gateway, installation: Installation) -> Iterator[str]:
    limits, name = gateway.limits, checked(gateway.name, GATEWAY)
    for vip in gateway.vips:
        yield f"bind {endpoint(ip_address(str(vip)), gateway.port)}{_tls(name, gateway.tls, installation)}"
    yield f"maxconn {limits.maxconn:d}"
    yield f"timeout http-request {_ms(limits.request_timeout)}"
    yield f"timeout http-keep-alive {_ms(limits.idle_timeout)}"
    yield f"tcp-request session set-var(sess.gateway) str({name})"
    yield f"tcp-request session set-var(sess.port) int({gateway.port:d})"
    yield f"tcp-request session set-var(sess.header_bytes) int({limits.header_bytes:d})"
    if gateway.forwarded_for == "append":
        yield "tcp-request session set-var(sess.append) bool(true)"
    for status in (2, 3, 4, 5):
        yield f"http-response sc-inc-gpc({status},0) if {{ status {status}00:{status}99 }}"
    yield from machine.leave(installation)


def _tls(name: str, tls: Tls | None, installation: Installation) -> str:
    if tls is None:
        return ""
    if not {*tls.alpn} <= {"h2", "http/1.1"} or tls.min_version not in ("1.2", "1.3"):
        raise UnsafeName(f"gateway {name}: expected ALPN h2 or http/1.1 and TLS 1.2 or 1.3, not {tls}")
    words = [f"ssl crt-list {installation.certificate_list(name)} ssl-min-ver TLSv{tls.min_version}"]
    words += [f"alpn {','.join(tls.alpn)}"] if tls.alpn else []
    words += ["strict-sni"] if tls.strict_sni else []
    return " " + " ".join(words)


def _sites() -> Iterator[str]:
    # By gpc(N): the answers N00 to N99, of servers and of rules. All other requests got an error of HAProxy's own.
    yield "stick-table type string len 300 size 100k store http_req_cnt,bytes_in_cnt,bytes_out_cnt,gpc(6)"


def _pools() -> Iterator[str]:
    yield "option redispatch 1"
    yield "http-request del-header x-forwarded-for unless { var(sess.append) -m bool }"
    yield "http-request add-header x-forwarded-for %[src]"
    yield "http-request set-header x-forwarded-proto http"
    yield "http-request set-header x-forwarded-proto https if { ssl_fc }"
    yield from _hops()
    yield f"http-request disable-l7-retry unless {{ method {REPEATED} }}"


def _hops() -> Iterator[str]:
    """What is about one connection ends with it (RFC 9110, 7.6.1).

    HAProxy passes ``Connection`` on, by which a client could make a server drop the headers that are set here; and 2.6
    passes on an upgrade to HTTP/2, which would be a way past all rules.
    """
    upgrade = "{ req.hdr(upgrade) -m found }"
    yield "http-request del-header upgrade unless { req.hdr(connection) -i upgrade } !{ req.hdr(upgrade) -i h2c h2 }"
    yield f"http-request set-header connection upgrade if {upgrade}"
    yield f"http-request del-header connection unless {upgrade}"
    for name in ("keep-alive", "te", "http2-settings", "proxy-connection", "proxy-authorization"):
        yield f"http-request del-header {name}"
    for name in ("connection", "upgrade"):
        yield f"http-response del-header {name} unless {{ status 101 }}"
    for name in ("keep-alive", "proxy-connection", "proxy-authenticate"):
        yield f"http-response del-header {name}"


def _backend(section: Section) -> Iterator[str]:
    yield from _balancing(section)
    yield from _retry(section.name, section.retry)


def _balancing(section: Section) -> Iterator[str]:
    balancing: Balancing = section.balancing
    algorithm = balancing.algorithm
    if algorithm.startswith("hdr(") and algorithm.endswith(")"):
        checked(algorithm[4:-1], TOKEN, "the name of a header")
    elif algorithm not in ALGORITHMS:
        raise UnsafeName(
            f"pool {section.pool}: expected one of {', '.join(ALGORITHMS)} or hdr(NAME), not {algorithm!r}"
        )
    yield f"balance {algorithm}"
    if algorithm not in ("roundrobin", "leastconn", "random"):
        yield "hash-type consistent"  # servers can only come and go at run time where their table is dynamic
    if balancing.cookie:
        cookie = checked(balancing.cookie, TOKEN, "the name of a cookie")
        yield f"cookie {cookie} insert indirect nocache httponly dynamic"
        yield f"dynamic-cookie-key {checked(section.name)}"


def _retry(name: str, retry: Retry) -> Iterator[str]:
    reasons = [str(reason) for reason in retry.on] or ["none"]
    if not {*reasons} <= RETRY_ON | RETRY_ON_STATUS:
        raise UnsafeName(f"section {name}: expected reasons for a retry that HAProxy knows, not {' '.join(reasons)!r}")
    yield f"retries {retry.attempts:d}"
    yield f"retry-on {' '.join(reasons)}"


def _server(name: str, row: HttpServer) -> str:
    # There is no word for a drained server, and none that is drained gets a request with the weight 0 either.
    weight = 0 if row.state == "drain" else row.weight
    line = f"  server {checked(name)} {endpoint(row.address, row.port)} weight {weight:d}"
    if row.maxconn:
        line += f" maxconn {row.maxconn:d}"
    return f"{line} disabled" if row.state == "maint" else line


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000)):d}ms"


_GATEWAY = Gateway("web", (ip_address("192.0.2.1"),), 80, forwarded_for="append")
SAMPLE = HttpConfig(
    gateways=(_GATEWAY, replace(_GATEWAY, tls=Tls(("a",), strict_sni=True), limits=HttpLimits(header_bytes=1))),
    sections=tuple(Section("web", "web", Balancing(how, "SRV"), Retry()) for how in (*ALGORITHMS, "hdr(host)")),
    subjects=("p", "m", "h.host", "q.page", "c", "cs", "cc.uid"),
    request_headers=("x-a",),
    response_headers=("x-b",),
)
"""Everything that a configuration can have. HAProxy would not take it, for its names are not unique."""
