"""The endpoints of a Consul agent.

``kv`` is python-consul2's; what its endpoint classes cannot do is asked for here, over the same session.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from anycastlb.adapters.consul.faults import shortened
from anycastlb.adapters.consul.library import base
from anycastlb.adapters.consul.session import CONNECTIONS, HEALTH, HTTPClient, Params
from anycastlb.core.model import SourceError
from anycastlb.settings import ConsulSettings


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
        return SourceError(shortened(f"{self.request}: {self.status} {self.text}"))


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


def waiting(settings: ConsulSettings) -> str:
    """How long a blocking query may wait, as Consul reads it."""
    return f"{max(1, round(settings.wait * 1000))}ms"
