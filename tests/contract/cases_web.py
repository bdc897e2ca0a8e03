"""``tcp``, ``http`` and ``https`` in the contract suite."""

from __future__ import annotations

import functools
import ssl
import tempfile
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from tests.contract.cases import Case
from tests.support.authority import Authority, server_context
from tests.support.servers import answering, saying, serving

OK = ("HTTP/1.1 200 OK", "Content-Length: 14")
BODY = b"all is very ok"


@functools.cache
def authority() -> Authority:
    folder = tempfile.TemporaryDirectory(prefix="anycastlb-ca-")
    made = Authority(Path(folder.name))
    made.keep = folder  # type: ignore[attr-defined]  # removed when the process ends
    return made


@functools.cache
def tls() -> ssl.SSLContext:
    return server_context(authority().issue("www.example.org"))


def _web(host: str) -> AbstractAsyncContextManager[int]:
    return serving(answering(*OK, body=BODY), host)


def _secure(host: str) -> AbstractAsyncContextManager[int]:
    return serving(answering(*OK, body=BODY), host, tls())


def _greeting(host: str) -> AbstractAsyncContextManager[int]:
    return serving(saying(b"220 mail.example.org ESMTP\r\n"), host)


SECURE = {"host": "www.example.org", "ca_file": str(authority().file)}

CASES = (
    Case("tcp", "tcp", _greeting, "connected", content=False),
    Case("tcp with expect", "tcp", _greeting, "connected, answer matches", {"expect": r"re:^220 .*ESMTP\r\n"}),
    Case("tcp with send", "tcp", _web, "connected, answer matches", {"send": "GET /\r\n\r\n", "expect": "very ok"}),
    Case("http", "http", _web, "HTTP 200"),
    Case("http with body", "http", _web, "HTTP 200, body matches", {"body": "re:very ok$"}),
    Case("https", "https", _secure, "HTTP 200", SECURE),
    Case(
        "https in TLS",
        "https",
        _secure,
        "HTTP 200, body matches, certificate expires .*",
        {**SECURE, "body": "ok", "cert_expiry": "14d"},
        tls=tls,
    ),
)
