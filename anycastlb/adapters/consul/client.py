"""The Consul client, and the one module that knows which Consul library is used (python-consul2).

The library's own asyncio client opens a session per request, has no time-out, cannot present a client certificate
and takes its address and token from the environment. Here its HTTP client is subclassed over one lasting aiohttp
session, and its endpoint classes (``KV``) are used on top. Every fault leaves as ``SourceError``; nothing is retried.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Literal

import aiohttp
from yarl import URL

from anycastlb.core.certificates import VERIFY_FLAGS
from anycastlb.core.model import SourceError
from anycastlb.settings import ConsulSettings


def _library() -> Any:
    """python-consul2's endpoint classes alone: its package imports its blocking client too, which is 5 MB."""
    package = find_spec("consul")
    assert package is not None and package.origin is not None, "python-consul2 is not installed"
    spec = spec_from_file_location("consul.base", Path(package.origin).with_name("base.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


base = _library()

MAX_BYTES = 64 * 1024 * 1024
"""More than this is no catalog: 1000 services of ten backends each are about 5 MB."""
CONNECTIONS = 8
CONNECT = 5.0
ANSWER = 10.0
"""Seconds: to connect, and to answer beyond the time a blocking query may take."""

HEALTH = "/v1/health/service/"
TXN = "/v1/txn"
NOTHING = "nothing was written"
UNKNOWN = "it is not known whether the change was written: read the catalog again before you repeat it"
Params = Sequence[tuple[str, Any]]
Stamp = tuple[tuple[str, int, int, int], ...]


class Forbidden(SourceError):
    """Consul's ACLs refuse this to our token."""


class Unconfirmed(SourceError):
    """A write was sent, and its answer is missing or cannot be understood. ``what``: why, without that conclusion."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; {UNKNOWN}")
        self.what = what


@dataclass(frozen=True, slots=True)
class ConsulAnswer:
    """The answer to one request."""

    request: str
    """Which one, for messages: ``Consul at http://127.0.0.1:8500: PUT /v1/session/create``."""
    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        """What the answer holds; None for an object that does not exist. Raises ``SourceError`` for what is neither."""
        if self.status == 404:
            return None
        if self.status != 200:
            raise self.refusal()
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as exc:
            raise SourceError(f"{self.request}: the answer is not Consul's: {exc!r:.200}") from exc

    def refusal(self) -> SourceError:
        return SourceError(_shortened(f"{self.request}: {self.status} {self.text}"))


class Client:
    """A Consul agent's endpoints. ``kv`` is python-consul2's: its calls return awaitables.

    A blocking query occupies a connection, and an agent lets one host have 200, older ones 100
    (``http_max_conns_per_client``). ``connections``: how many this client opens at most.
    """

    def __init__(self, settings: ConsulSettings, connections: int = CONNECTIONS) -> None:
        self.http = HTTPClient(settings, connections)
        # What the library's endpoint classes read of their owner. Its own owner class lets CONSUL_HTTP_* override
        # all of it, and the token belongs to the HTTP client here.
        self.token = None
        self.consistency = "default"
        self.dc = settings.datacenter
        self.prefix = settings.prefix
        self.kv = base.Consul.KV(self)

    async def instances(
        self,
        service: str,
        *,
        datacenter: str = "",
        index: int | None = None,
        wait: str = "",
        consistent: bool = False,
    ) -> tuple[Any, Any]:
        """The index and every instance of a service with its node and checks, in whatever health.

        The library's own call can neither ask for a consistent answer nor leave its parameters out.
        """
        params: list[tuple[str, Any]] = [("index", index), ("wait", wait)] if index is not None else []
        params += [("dc", datacenter or self.dc)] if datacenter or self.dc else []
        params += [("consistent", "1")] if consistent else []
        answer: tuple[Any, Any] = await self.http.get(
            base.CB.json(index=True), path=f"{HEALTH}{service}", params=params
        )
        return answer

    async def list(self, prefix: str, *, consistent: bool = False) -> tuple[Any, bytes]:
        """The index and the answer, as Consul wrote it, to a read of all keys below a prefix.

        The library's own call would decode it on the event loop, and whole.
        """
        params: list[tuple[str, Any]] = [("recurse", "1"), *([("consistent", "1")] if consistent else [])]
        params += [("dc", self.dc)] if self.dc else []

        def answered(response: Any) -> tuple[Any, bytes]:
            if response.code == 404:
                return response.headers.get("X-Consul-Index"), b"[]"
            if response.code != 200:
                raise base.ConsulException(f"{response.code} {response.body}")
            return response.headers["X-Consul-Index"], response.content

        answer: tuple[Any, bytes] = await self.http.get(answered, path=f"/v1/kv/{prefix}", params=params)
        return answer

    async def request(
        self, method: Literal["GET", "PUT"], path: str, body: bytes = b"", params: Params = (), *, local: bool = False
    ) -> ConsulAnswer:
        """One request to an endpoint that the library does not have, or not as we need it.

        ``local``: to the agent itself, which has no other datacenter. Raises ``SourceError``; of a write whose answer
        is missing it says what is not known.
        """
        where = [] if local or not self.dc else [("dc", self.dc)]
        name = f"Consul at {self.http.base_uri}: {method} {path}"

        def answered(response: Any) -> ConsulAnswer:
            return ConsulAnswer(name, response.code, response.headers, response.body)

        send = self.http.put if method == "PUT" else self.http.get
        answer: ConsulAnswer = await send(answered, path, params=[*params, *where], **({"data": body} if body else {}))
        return answer

    async def close(self) -> None:
        await self.http.close()


class HTTPClient(base.HTTPClient):  # type: ignore[misc,name-defined]
    """One lasting session to one agent, opened at the first request and again when a certificate file changes."""

    def __init__(self, settings: ConsulSettings, connections: int = CONNECTIONS) -> None:
        super().__init__(scheme=settings.address.split(":")[0])
        self._connections = connections
        self.base_uri = settings.address.rstrip("/")  # whole: the library would put an IPv6 address in no brackets
        self._settings = settings
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
        headers = {**(headers or {}), **self._credentials()}
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
            raise self._fault(_shortened(f"{type(exc).__name__}: {exc}")) from exc
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as exc:
            raise self._fault(_shortened(f"the answer to {method} {path} is not Consul's: {exc!r}")) from exc

    def _url(self, path: str, params: Params | None) -> URL:
        try:
            url = URL(self.uri(path, params), encoded=True)
            if not url.host or url.port is None:
                raise ValueError("host or port is missing")
        except ValueError as exc:
            raise self._fault(f'{exc}; expected an address such as "http://127.0.0.1:8500"') from exc
        return url

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_BYTES:
                response.close()
                raise self._fault(f"the answer is larger than {MAX_BYTES} bytes; is the prefix right?")
        return bytes(body)

    def _checked(self, path: str, response: aiohttp.ClientResponse, body: bytes) -> Any:
        """The answer as the library wants it, unless the library would misread it."""
        status = response.status
        if status == 401:
            refusal = _shortened(body.decode(errors="replace").strip())
            proxy = "is there a proxy in front of it that wants other credentials, or has it no ACLs?"
            raise self._fault(f"401 {refusal}; expected a Consul agent that takes our token: {proxy}")
        if status == 403:
            refusal = _shortened(body.decode(errors="replace").strip())
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
        return base.Response(status, response.headers, body.decode(), body)

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

    def _credentials(self) -> dict[str, str]:
        """Read at every request, so that a renewed token is used without a restart."""
        headers = {}
        if self._settings.token_file:
            try:
                headers["X-Consul-Token"] = Path(self._settings.token_file).read_text(encoding="ascii").strip()
            except (OSError, ValueError) as exc:
                raise SourceError(f"consul.token_file: {exc}; expected a file with one token in it") from exc
        if self._settings.namespace:
            headers["X-Consul-Namespace"] = self._settings.namespace
        return headers

    async def _opened(self) -> aiohttp.ClientSession:
        stamp = self._certificates()
        if self._session is not None and stamp != self._stamp:
            await self.close()
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self.tls() or True, limit=self._connections)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},  # the agent is next door: packing costs more than it saves
            )
            self._stamp = stamp
        return self._session

    def _certificates(self) -> Stamp:
        """What changes when a certificate is renewed on disk."""
        if self.scheme != "https":
            return ()
        stamps = []
        for name in ("ca_file", "cert_file", "key_file"):
            if path := getattr(self._settings, name):
                try:
                    stat = Path(path).stat()
                except OSError as exc:
                    raise SourceError(f"consul.{name}: {exc}; expected a PEM file") from exc
                stamps.append((path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return tuple(stamps)

    def tls(self) -> ssl.SSLContext | None:
        if self.scheme != "https":
            return None
        settings = self._settings
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
            context.verify_flags = VERIFY_FLAGS
            if settings.cert_file:
                context.load_cert_chain(settings.cert_file, settings.key_file)
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            files = ", ".join(filter(None, (settings.ca_file, settings.cert_file, settings.key_file)))
            raise SourceError(f"consul: {exc}; expected PEM files that belong together: {files}") from exc
        return context


def waiting(settings: ConsulSettings) -> str:
    """How long a blocking query may wait, as Consul reads it."""
    return f"{max(1, round(settings.wait * 1000))}ms"


def _shortened(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit] + "…"
