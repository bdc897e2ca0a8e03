"""Ask the running node: one event loop for each command. Only this module loads the client library."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from anycastlb.cli.location import Location
from anycastlb.client import Client

T = TypeVar("T")


def ask(location: Location, job: Callable[[Client], Awaitable[T]]) -> T:
    """What ``job`` returns, given a client of the node. Raises ``ClientError`` and ``click.ClickException``."""

    async def run() -> T:
        client = Client(
            location.url,
            token_file=location.token_file,
            ca_file=location.ca,
            cert_file=location.cert,
            key_file=location.key,
            timeout=location.timeout,
        )
        async with client as lb:
            return await job(lb)

    return asyncio.run(run())
