"""The API of a node for Python programs: asynchronous and typed, one method for each call of ``docs/API.md``.

::

    import asyncio
    from anycastlb.client import Client, Conflict

    async def main() -> None:
        async with Client("http://127.0.0.1:4672") as lb:
            await lb.put_service("web", {"vip": "192.0.2.10", "port": 80})
            await lb.put_backend("web", "web1", {"address": "10.1.0.1"})
            web = await lb.service("web")  # remembers its ETag
            web["drain"] = "1m"
            try:
                await lb.put_service("web", web)  # only if nobody has changed it meanwhile
            except Conflict as exc:
                print(f"somebody else was faster: {exc}")

    asyncio.run(main())

``Client()`` without an address uses the node's unix socket if it exists, else the default port. Every error is a
``ClientError`` whose text is one line that says what to do. The client reads no settings, does not retry writes, and
keeps no state except for its connections.
"""

from __future__ import annotations

from anycastlb.client.errors import (
    ClientError,
    Conflict,
    Denied,
    Invalid,
    Missing,
    NoAnswer,
    Refused,
    Strange,
    Unavailable,
    Unreachable,
)
from anycastlb.client.node import Client
from anycastlb.client.shapes import (
    BackendDocument,
    Change,
    CheckDocument,
    Document,
    Edit,
    Event,
    GatewayDocument,
    Proposal,
    Result,
    RouteDocument,
    ServiceDocument,
    Written,
)

__all__ = [
    "BackendDocument",
    "Change",
    "CheckDocument",
    "Client",
    "ClientError",
    "Conflict",
    "Denied",
    "Document",
    "Edit",
    "Event",
    "GatewayDocument",
    "Invalid",
    "Missing",
    "NoAnswer",
    "Proposal",
    "Refused",
    "Result",
    "RouteDocument",
    "ServiceDocument",
    "Strange",
    "Unavailable",
    "Unreachable",
    "Written",
]
