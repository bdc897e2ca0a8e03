"""Lines of an access log as requests, for ``simulate``.

Three forms are read: the combined log of nginx and Apache, the same with the host before it (``vhost_combined``), and
JSON with one object a line (``host``, ``method``, ``path`` or ``uri``, ``user_agent``, ``source``, ``headers``). A
log says nothing of headers that are not in it; rules that ask for them are simulated as if there were none. Pure.
"""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from anycastlb.core.http.request import Request, host_of
from anycastlb.core.model import Address

MAX_LINE = 64 * 1024
QUOTED = r'"((?:[^"\\]|\\.)*)"'
COMBINED = re.compile(
    rf'(?:(?P<host>\S+) )?(?P<source>[0-9A-Fa-f.:]+) \S+ \S+ \[[^\]]*\] "(?P<method>[A-Za-z]+) (?P<target>\S+)'
    rf'(?: HTTP/[\d.]+)?" \S+ \S+(?: {QUOTED} {QUOTED})?'
)


def read_line(line: str, host: str) -> Request | None:
    """The request of one line; None if it cannot be read. ``host``: of all requests of a log that does not say it."""
    if len(line) > MAX_LINE:
        return None
    return _of_json(line, host) if line.startswith("{") else _of_combined(line, host)


def _of_combined(line: str, host: str) -> Request | None:
    match = COMBINED.match(line)
    if match is None:
        return None
    referer, agent = (None if text in (None, "-") else text for text in match.groups()[-2:])
    headers = tuple((name, text) for name, text in (("referer", referer), ("user-agent", agent)) if text)
    return _request(match["method"], match["target"], match["host"] or host, match["source"], headers)


def _of_json(line: str, host: str) -> Request | None:
    try:
        said: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    headers = said.get("headers")
    pairs = headers.items() if isinstance(headers, dict) else ()
    sent = {str(name).lower(): str(value) for name, value in pairs}
    if isinstance(agent := said.get("user_agent"), str):
        sent.setdefault("user-agent", agent)
    method, target = said.get("method", "GET"), said.get("path", said.get("uri"))
    if not isinstance(method, str) or not isinstance(target, str):
        return None
    named = said.get("host", sent.get("host", host))
    return _request(method, target, str(named), str(said.get("source", "")), tuple(sent.items()))


def _request(method: str, target: str, host: str, source: str, headers: tuple[tuple[str, str], ...]) -> Request | None:
    if not target.startswith("/"):  # the absolute form, or that of CONNECT and OPTIONS
        try:
            parts = urlsplit(target)
        except ValueError:
            return None
        if parts.scheme not in ("http", "https"):
            return None
        host, target = parts.netloc, f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    path, _, query = target.partition("?")
    return Request(method, host_of(host), path, query, headers, _address(source))


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
