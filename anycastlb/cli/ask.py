"""Asking the running node: one event loop a command. The client library is loaded only with this module."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from anycastlb.cli.location import Location
from anycastlb.client import Client

T = TypeVar("T")


def ask(where: Location, job: Callable[[Client], Awaitable[T]]) -> T:
    """What ``job`` makes of the node. Raises ``ClientError`` and ``click.ClickException``."""

    async def run() -> T:
        client = Client(
            where.url,
            token_file=where.token_file,
            ca_file=where.ca,
            cert_file=where.cert,
            key_file=where.key,
            timeout=where.timeout,
        )
        async with client as lb:
            return await job(lb)

    return asyncio.run(run())
