"""Requests to a Consul agent, over one lasting aiohttp session.

The library's own asyncio client opens a session per request, has no time-out, cannot present a client certificate
and takes its address and token from the environment. Here its HTTP client is subclassed. Every fault leaves as
``SourceError``; nothing is retried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import aiohttp
from yarl import URL

from anycastlb.adapters.consul.credentials import Credentials, Stamp
from anycastlb.adapters.consul.faults import NOTHING, Forbidden, Unconfirmed, shortened
from anycastlb.adapters.consul.library import base
from anycastlb.core.model import SourceError
from anycastlb.settings import ConsulSettings

MAX_BYTES = 64 * 1024 * 1024
"""More than this is no catalog: 1000 services of ten backends each are about 5 MB."""
CONNECTIONS = 8
CONNECT = 5.0
ANSWER = 10.0
"""Seconds: to connect, and to answer beyond the time a blocking query may take."""

HEALTH = "/v1/health/service/"
TXN = "/v1/txn"
Params: TypeAlias = Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class HttpAnswer:
    """An answer with the fields that the library's callbacks read. It is decoded when one of them reads its text."""

    code: int
    headers: Mapping[str, str]
    content: bytes

    @cached_property
    def body(self) -> str:
        return self.content.decode()


class HTTPClient(base.HTTPClient):  # type: ignore[misc]
    """One lasting session to one agent, opened at the first request and again when a certificate file changes."""

    def __init__(self, settings: ConsulSettings, connections: int = CONNECTIONS) -> None:
        super().__init__(scheme=settings.address.split(":")[0])
        self._connections = connections
        self.base_uri = settings.address.rstrip("/")  # whole: the library would put an IPv6 address in no brackets
        self._settings, self._credentials = settings, Credentials(settings)
        self._session: aiohttp.ClientSession | None = None
        self._stamp: Stamp = ()

    async def get(self, callback: Callable[[Any], Any], path: str, params: Any = None, headers: Any = None) -> Any:
        return await self._request(callback, "GET", path, params, None, headers)

    async def put(
        self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        return await self._request(callback, "PUT", path, params, data, headers)

    async def post(
        self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        return await self._request(callback, "POST", path, params, data, headers)

    async def delete(
        self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        return await self._request(callback, "DELETE", path, params, data, headers)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _request(
        self, callback: Callable[[Any], Any], method: str, path: str, params: Params | None, data: Any, headers: Any
    ) -> Any:
        """What the library's callback makes of the answer. Raises ``SourceError``."""
        session = await self._opened()
        url = self._url(path, params)
        headers = {**(headers or {}), **self._credentials.headers()}
        blocking = any(name == "index" for name, _ in params or ())
        longest = self._settings.wait * 17 / 16 + ANSWER if blocking else 3 * ANSWER
        timeout = aiohttp.ClientTimeout(total=longest, sock_connect=CONNECT, sock_read=longest if blocking else ANSWER)
        try:
            async with session.request(
                method, url, data=data or None, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                body = await self._body(response)
                return callback(self._checked(path, response, body))
        except TimeoutError as exc:
            what = f"no answer within {longest:.0f} s; expected an agent that is alive"
            raise self._unanswered(method, exc, what) from exc
        except (aiohttp.ClientError, OSError) as exc:
            what = f"{exc if str(exc) else type(exc).__name__}; expected an agent that answers there"
            raise self._unanswered(method, exc, what) from exc
        except base.ConsulException as exc:
            raise self._fault(shortened(f"{type(exc).__name__}: {exc}")) from exc
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as exc:
            raise self._fault(shortened(f"the answer to {method} {path} is not Consul's: {exc!r}")) from exc

    def _url(self, path: str, params: Params | None) -> URL:
        try:
            url = URL(self.uri(path, params), encoded=True)
            if not url.host or url.port is None:
                raise ValueError("host or port is missing")
        except ValueError as exc:
            raise self._fault(f'{exc}; expected an address such as "http://127.0.0.1:8500"') from exc
        return url

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BYTES:
                response.close()
                raise self._fault(f"the answer is larger than {MAX_BYTES} bytes; is the prefix right?")
        return b"".join(chunks)

    def _checked(self, path: str, response: aiohttp.ClientResponse, body: bytes) -> HttpAnswer:
        """The answer as the library wants it, unless the library would misread it."""
        status = response.status
        if status == 401:
            refusal = shortened(body.decode(errors="replace").strip())
            proxy = "is there a proxy in front of it that wants other credentials, or has it no ACLs?"
            raise self._fault(f"401 {refusal}; expected a Consul agent that takes our token: {proxy}")
        if status == 403:
            refusal = shortened(body.decode(errors="replace").strip())
            policy = self._policy(path)
            verb = "writes" if path == TXN else "reads"
            fault = self._fault(f"403 {refusal}; expected a token (consul.token_file) whose policy {verb} {policy}")
            raise Forbidden(str(fault))
        if response.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true":  # a part must not pass for the whole
            what = "instances" if path.startswith(HEALTH) else "keys"
            policy = f"a token (consul.token_file) whose policy reads {self._policy(path)}"
            raise self._fault(f"{what} are hidden from this token, so what is left is no answer; expected {policy}")
        if status != 200 and status < 400:
            raise self._fault(f"HTTP {status}; expected 200: is this a Consul agent?")
        return HttpAnswer(status, response.headers, body)

    def _policy(self, path: str) -> str:
        """What a token must be allowed to read for this request."""
        if path.startswith(HEALTH):
            return f'service "{path.removeprefix(HEALTH)}" and node_prefix ""'
        return f'key_prefix "{self._settings.prefix}"'

    def _unanswered(self, method: str, exc: Exception, what: str) -> SourceError:
        """A request without an answer, and what that means for a write."""
        if method == "GET":
            return self._fault(what)
        if isinstance(exc, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
            return self._fault(f"{what}; {NOTHING}")
        return Unconfirmed(str(self._fault(what)))

    def _fault(self, what: str) -> SourceError:
        return SourceError(f"Consul at {self.base_uri}: {what}")

    async def _opened(self) -> aiohttp.ClientSession:
        stamp = self._credentials.stamp()
        if self._session is not None and stamp != self._stamp:
            await self.close()
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._credentials.tls() or True, limit=self._connections)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},  # the agent is next door: packing costs more than it saves
            )
            self._stamp = stamp
        return self._session
