"""KgLb's health checkers to our checks: what is probed, how often, and what is otherwise here. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from anycastlb.core.fields import shown
from anycastlb.core.importers.documents import Note
from anycastlb.core.importers.proto3 import Message
from anycastlb.core.model import Address

Notes = list[Note]
Check = dict[str, Any]
INTERVAL, TIMEOUT = 5000, 5000
"""Milliseconds."""
RISE, FALL = 3, 2
USER_AGENT = "KgLB healthchecker/1.0"
REDIRECTS = 10
"""Go's own bound, and ours."""
SAFE = "/$&+,:;=@"
"""What Go leaves as it is in a path, beside letters, digits and ``-_.~``."""
NOT_SENT = ("content-length", "transfer-encoding", "trailer", "connection")
"""Headers that Go's client, or the check here, writes itself."""
TYPES = ("A", "AAAA", "NS", "MX", "TXT", "SOA")
PROTOCOLS = ("TCP", "UDP")
IN_A_ROW = 1000
"""Results at most."""


def check(balancer: Message, vip: Address, notes: Notes) -> Check:
    """The check of all reals of a balancer."""
    upstream = balancer.message("upstream_checker")
    checker = upstream.message("checker")
    kind = checker.one_of("dummy", *_MAKERS)
    through = balancer.flag("enable_fwmarks")
    if upstream.number("concurrency_limit"):
        notes.append(Note(0, "concurrency_limit: how many checks run at once is the node's own affair; left out"))
    schedule: Check = {"interval": milliseconds(upstream, "interval_ms", INTERVAL, (10, 86_400_000), notes)}
    counts = _counts(upstream, notes)
    params = checker.message(kind)
    if kind == "dummy":
        return {"type": "none"}
    schedule["timeout"] = milliseconds(params, "check_timeout_ms", TIMEOUT, (1, 3_600_000), notes)
    made = _MAKERS[kind](params, vip, notes) | schedule | counts
    return made | {"via": "forward"} if through else made


def milliseconds(message: Message, name: str, default: int, bounds: tuple[int, int], notes: Notes) -> str:
    """A duration of ours. One beyond the bounds is the bound itself, and noted."""
    given = message.number(name) or default
    known = min(max(given, bounds[0]), bounds[1])
    if known != given:
        notes.append(Note(0, f"{name} {given}: from {bounds[0]} to {bounds[1]} here; {known} instead"))
    return f"{known // 1000}s" if known % 1000 == 0 else f"{known}ms"


def _counts(upstream: Message, notes: Notes) -> Check:
    rise, fall = upstream.number("rise_count"), upstream.number("fall_count")
    if bool(rise) != bool(fall):
        notes.append(Note(0, f"rise_count {rise}, fall_count {fall}: KgLb refuses one alone; {RISE} and {FALL} for 0"))
    if max(rise, fall) > IN_A_ROW:
        notes.append(Note(0, f"rise_count {rise}, fall_count {fall}: at most {IN_A_ROW} here"))
    return {"rise": min(rise or RISE, IN_A_ROW), "fall": min(fall or FALL, IN_A_ROW)}


def _tcp(params: Message, vip: Address, notes: Notes) -> Check:
    return {"type": "tcp"}


def _http(params: Message, vip: Address, notes: Notes) -> Check:
    scheme = params.text("scheme").removesuffix("://")
    if scheme not in ("http", "https"):
        notes.append(Note(0, f"scheme {shown(scheme)}: KgLb's check always failed; http instead"))
    made: Check = {"type": "https", "verify": False} if scheme == "https" else {"type": "http"}
    made |= _headers(params, notes) | {"expect": _codes(params, notes)}
    if params.flag("follow_redirects"):
        made["redirects"] = REDIRECTS
        notes.append(Note(0, "follow_redirects: always on the real itself here, wherever they lead"))
    uri, url = params.text("uri"), params.text("proxy_check_url")
    if not url:
        # Where an address is asked for in the handshake, no name is sent, as KgLb sends none.
        named = {"sni": str(vip)} if scheme == "https" and "host" in made else {}
        return made | {"path": _path(uri, notes)} | named
    if scheme == "https" or not url.startswith("http://"):
        notes.append(Note(0, f"proxy_check_url {shown(url)}: a proxy is asked for http in the clear only; tcp instead"))
        return {"type": "tcp"}
    if made.pop("host", None):
        notes.append(Note(0, "headers.Host: a proxy is asked for the host of the URL; left out"))
    return made | {"as_proxy": url}


def _path(uri: str, notes: Notes) -> str:
    """As Go writes it into the request."""
    if "?" in uri:
        notes.append(Note(0, f"uri {shown(uri)}: KgLb sent the ? as %3F, and so does the check; write ? for a query"))
    return "/*" if uri == "*" else "/" + quote(uri, safe=SAFE).removeprefix("/")


def _headers(params: Message, notes: Notes) -> Check:
    made: Check = {"headers": {}}
    for name, value in params.map("headers").items():
        if name.lower() == "host":
            made["host"] = value
        elif name.lower() in NOT_SENT:
            notes.append(Note(0, f"headers.{name}: the check writes it itself; left out"))
        elif "${secret:" in value:
            notes.append(Note(0, f"headers.{name}: it would stand for a secret of node.toml; left out"))
        elif name.lower() != "user-agent":  # KgLb puts its own in its place
            made["headers"][name] = value
    made["headers"]["User-Agent"] = USER_AGENT
    return made


def _codes(params: Message, notes: Notes) -> list[int]:
    codes = dict.fromkeys(params.numbers("codes"))
    known = [code for code in codes if 100 <= code <= 599]
    strange = [code for code in codes if not 100 <= code <= 599]
    if strange:
        notes.append(Note(0, f"codes {shown(strange)}: from 100 to 599 here; left out"))
    if not known:
        notes.append(Note(0, "codes: none is good, so that KgLb's check always failed; 200 instead"))
    return known or [200]


def _dns(params: Message, vip: Address, notes: Notes) -> Check:
    name, kind = params.text("query_string"), params.choice("query_type", TYPES)
    if not name.endswith("."):
        notes.append(Note(0, f"query_string {shown(name)}: without a dot at its end KgLb's check always failed"))
    if kind == "AAAA":
        notes.append(
            Note(0, 'query_type AAAA: KgLb asks for A then, and so does the check; write "AAAA" if it is meant')
        )
    if kind in ("TXT", "SOA"):
        notes.append(Note(0, f"query_type {kind}: KgLb refuses it; here it is asked for"))
    protocol = params.choice("protocol", PROTOCOLS).lower()
    rcode = params.number("rcode")
    return {"type": "dns", "name": name, "qtype": "A" if kind == "AAAA" else kind, "protocol": protocol, "rcode": rcode}


def _syslog(params: Message, vip: Address, notes: Notes) -> Check:
    level, port = params.number("log_level"), params.number("port", 65535)
    notes.append(Note(0, "syslog: a message of RFC 5424 by anycastlb, where KgLb's was by SyslogHealthChecker"))
    made: Check = {
        "type": "syslog",
        "protocol": params.choice("protocol", PROTOCOLS).lower(),
        "message": "probe message.",
    }
    if level < 8 * 24:  # KgLb's level is the whole priority: facility and severity
        made |= {"facility": level // 8, "level": level % 8}
    else:
        notes.append(Note(0, f"log_level {level}: no priority of syslog; syslog.info instead"))
    if port:
        made["port"] = port
    if made["protocol"] == "udp":
        notes.append(Note(0, "syslog over UDP: KgLb's check never failed; here an ICMP unreachable is a failure"))
    return made | {"confirm": False}


_MAKERS: dict[str, Callable[[Message, Address, Notes], Check]] = {
    "dns": _dns, "http": _http, "syslog": _syslog, "tcp": _tcp,
}  # fmt: skip
