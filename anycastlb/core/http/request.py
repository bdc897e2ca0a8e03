"""One HTTP request as HAProxy sees it, as far as routes look at it.

Nothing is decoded or normalised, since HAProxy does not either: ``//a``, ``/%61`` and ``/b/../a`` are three paths.
What is said here of odd requests was tried with HAProxy 2.6 (tests/unit/test_http_request.py says it case by case).
Requests that HAProxy refuses with 400 before any rule (two different Host headers, a ``#`` or bytes beyond ASCII in
the path) never come here. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from anycastlb.core.http.graph import Subject
from anycastlb.core.model import Address
from anycastlb.core.scalars import shown

MAX_STRIPPED = 8
"""Labels that ``*`` in a hostname stands for, at most."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    host: str
    """As ``host_of`` makes it of the Host header."""
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case, in the order in which they were sent."""
    source: Address | None = None
    """None: not known."""

    def header(self, name: str) -> str | None:
        """The last header of that name, with all its commas; None if there is none."""
        return next((value for one, value in reversed(self.headers) if one == name), None)

    def parameter(self, name: str) -> str | None:
        """The first parameter of that name in the query, as it was sent. ``?`` ends one for HAProxy, as ``&`` does."""
        parts = re.split("[&;?]", self.query)
        return next((part[len(name) + 1 :] for part in parts if part.startswith(name + "=")), None)

    def cookie(self, name: str) -> str | None:
        """The last cookie of that name."""
        found = None
        for header, value in self.headers:
            for part in value.split(";") if header == "cookie" else ():
                key, equals, text = part.strip(" \t").partition("=")
                found = text if equals and key.rstrip(" \t") == name else found
        return found

    def word(self, subject: Subject) -> str | None:
        """What a node looks at, of all but chance; None if the request has no such thing."""
        match subject.kind:
            case "path":
                return self.path
            case "method":
                return self.method
            case "header":
                return self.header(subject.name)
            case "query":
                return self.parameter(subject.name)
        raise ValueError(f"expected a subject with a word, not {subject}")


def host_of(header: str) -> str:
    """The key of a site: the Host header without its port and without one dot at its end, in lower case."""
    end = header.find("]") + 1 if header.startswith("[") else 0
    colon = header.find(":", end)
    return (header if colon < 0 else header[:colon]).lower().removesuffix(".")


def hosts_of(host: str) -> Iterable[str]:
    """The hostnames of routes that fit a host, the closest first."""
    yield host
    rest = host
    for _ in range(MAX_STRIPPED):
        _, dot, rest = rest.partition(".")
        if not dot:
            break
        yield f"*.{rest}"
    yield "*"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request comes in: what an URL says besides the request itself."""

    scheme: str
    port: int


def request_of(
    url: str, method: str = "GET", headers: Iterable[tuple[str, str]] = (), source: Address | None = None
) -> tuple[Target, Request]:
    """The request that a client makes of an URL. A Host header among ``headers`` counts instead of the URL's. Raises
    ValueError, which says what was expected."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f'an URL such as "https://shop.example/blog/1", not {shown(url)}')
    sent = tuple((name.strip().lower(), value.strip(" \t")) for name, value in headers)
    host = next((value for name, value in sent if name == "host"), parts.netloc.rpartition("@")[2])
    path, query = (quote(part, safe="".join(map(chr, range(0x21, 0x7F)))) for part in (parts.path, parts.query))
    request = Request(method, host_of(host), path or "/", query, sent, source)
    return Target(parts.scheme, port or (443 if parts.scheme == "https" else 80)), request
