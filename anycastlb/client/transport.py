"""One connection pool to one node, over its unix socket or TCP. It sends requests and returns JSON or our errors.

It knows HTTP and not the calls of the API. It uses no proxy and follows no redirect.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
from yarl import URL

from anycastlb.client.errors import ClientError, NoAnswer, Strange, Unreachable, refused
from anycastlb.core.certificates import VERIFY_FLAGS

SOCKET = "/run/anycastlb/api.sock"
URL_DEFAULT = "http://127.0.0.1:4672"
_NO: Mapping[str, str] = {}
Query: TypeAlias = Mapping[str, str | int] | Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: Any
    etag: str


class Transport:
    """``url`` is ``http://``, ``https://`` or ``unix:///path``. The first request opens the pool."""

    def __init__(self, url: str, token: str, tls: ssl.SSLContext | None, timeout: float) -> None:
        scheme, _, rest = url.partition("://")
        self._socket = "/" + rest.lstrip("/") if scheme == "unix" else None
        try:
            self._base = URL("http://localhost" if self._socket else url.rstrip("/"))
        except ValueError as exc:
            raise ClientError(f"{url} is no address: expected one like {URL_DEFAULT}") from exc
        if not self._base.host or self._base.scheme not in ("http", "https"):
            raise ClientError(f"{url} is no address: expected one like {URL_DEFAULT} or unix://{SOCKET}")
        if token and not self._socket and self._base.scheme == "http" and not _on_this_machine(self._base.host):
            raise ClientError(f"a token is not sent to {self._base.authority} in clear: use https://")
        self.place = self._socket or self._base.authority
        """The address and port of the node, or the path of its socket."""
        self._headers = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._tls = tls
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(
        self,
        method: str,
        path: str,
        query: Query = _NO,
        body: Any = None,
        headers: Mapping[str, str] = _NO,
    ) -> Response:
        """The answer to one request, whose ``path`` is already quoted. Raises ``ClientError``."""
        async with self._open(method, path, query, body, headers, aiohttp.ClientTimeout(self._timeout)) as response:
            return await self._answer(response)

    @asynccontextmanager
    async def stream(
        self, path: str, headers: Mapping[str, str], silence: float
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The body of an answer as it comes. It may be silent for ``silence`` seconds.

        Raises ``ClientError``, and ``Strange`` if it is no stream of events.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=silence)
        async with self._open("GET", path, _NO, None, headers, timeout) as response:
            if response.status != 200:
                await self._answer(response)
            if response.content_type != "text/event-stream":
                raise Strange(f"{self.place} has no stream of events")
            yield response.content

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        query: Query,
        body: Any,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(), headers=self._headers, skip_auto_headers=("Content-Type",)
            )
        url = URL(f"{str(self._base).rstrip('/')}{path}", encoded=True).with_query(query or None)
        sent = None if body is None else json.dumps(body).encode()
        head = {**headers, **({"Content-Type": "application/json"} if sent is not None else {})}
        try:
            async with self._session.request(
                method, url, data=sent, headers=head, timeout=timeout, allow_redirects=False
            ) as response:
                yield response
        except TimeoutError:
            mend = "the node is stuck or overloaded (systemctl status anycastlb)"
            raise NoAnswer(f"no answer from {self.place} within {timeout.total or self._timeout:g} s: {mend}") from None
        except (aiohttp.ClientSSLError, ssl.SSLError) as exc:
            raise Unreachable(f"no TLS with anycastlb at {self.place} ({exc}): check --ca, --cert and --key") from None
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionError, aiohttp.ClientOSError):
            raise Unreachable(
                f"cannot reach anycastlb at {self.place}: is `anycastlb run` running? (systemctl status anycastlb)"
            ) from None
        except (aiohttp.ClientError, ValueError) as exc:
            raise self._strange(exc) from None

    async def _answer(self, response: aiohttp.ClientResponse) -> Response:
        text = await response.read()
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as exc:
            cause = exc if response.ok else f"HTTP {response.status}"
            raise self._strange(cause) from None
        if response.status >= 400:
            raise refused(response.status, body) or self._strange(f"HTTP {response.status}")
        return Response(response.status, body, response.headers.get("ETag", ""))

    def _strange(self, cause: object) -> Strange:
        words = re.sub(r"\s+", " ", str(cause) or type(cause).__name__)
        return Strange(f"{self.place} does not answer as anycastlb does ({words:.200}): check --api")

    def _connector(self) -> aiohttp.BaseConnector:
        if self._socket:
            return aiohttp.UnixConnector(self._socket)
        if self._base.scheme == "https":
            return aiohttp.TCPConnector(ssl=self._tls or _context(None, None, None))
        return aiohttp.TCPConnector()


def security(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext | None:
    """The TLS settings: the CA to trust and the certificate to show. None: the system's. Raises ``ClientError``."""
    return _context(ca_file, cert_file, key_file) if ca_file or cert_file or key_file else None


def _context(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.verify_flags = VERIFY_FLAGS
        if cert_file or key_file:
            context.load_cert_chain(cert_file or str(key_file), key_file)
    except (OSError, ValueError) as exc:
        files = ", ".join(str(name) for name in (ca_file, cert_file, key_file) if name)
        raise ClientError(f"{files}: expected certificates and key as PEM: {exc}") from exc
    return context


def _on_this_machine(host: str | None) -> bool:
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def token_in(path: str | Path) -> str:
    """The token in a file. Raises ``ClientError``."""
    try:
        words = Path(path).read_text().split()
    except (OSError, ValueError) as exc:
        raise ClientError(f"the token file {path} cannot be read: {exc}") from exc
    if len(words) != 1:
        raise ClientError(f"the token file {path} holds {len(words)} words: expected one token")
    return words[0]
