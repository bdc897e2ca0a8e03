"""A node that keeps one service registered with Consul, also as a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from anycastlb.adapters.drivers.names.background import RecordDriver
from anycastlb.adapters.drivers.names.consul import ConsulServices
from anycastlb.core.decision import plan
from anycastlb.core.model import ConsulKey, ConsulService, State
from anycastlb.settings import ConsulSettings

VIP = ip_address("192.0.2.10")


KEY = ConsulKey("web", VIP, "lb1")


ROW = ConsulService("anycastlb-web", VIP, 80, (), True, "2/2 backends up")


async def keep_up(address: str, node: str) -> None:
    """One service of a node, kept passing until the process ends."""
    place = ConsulServices(ConsulSettings(address=address, deregister_after="1m"), node, 10.0)
    await keep(RecordDriver(place), replace(KEY, node=node), lambda: False)


async def keep(driver: RecordDriver, key: ConsulKey, done: Callable[[], bool]) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(driver.run())
        while not done():
            tables: Any = await driver.observe()
            if tables:
                await driver.apply(plan.diff(State(**tables), State(consul_services={key: ROW})))
            await asyncio.sleep(0.1)
        task.cancel()
