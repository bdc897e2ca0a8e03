"""The API of a node for programs: asynchronous, typed, one method a call; ``docs/API.md`` is what it speaks.

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

``Client()`` without an address takes the node's unix socket if there is one, else its default port. Every error is a
``ClientError`` whose text is one line that says what to do. It reads no settings, retries no write and keeps no state
but its connections.
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
    Proposal,
    Result,
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
    "Invalid",
    "Missing",
    "NoAnswer",
    "Proposal",
    "Refused",
    "Result",
    "ServiceDocument",
    "Strange",
    "Unavailable",
    "Unreachable",
    "Written",
]
