"""Collect every fact about this machine once, as far as this process may see them. Nothing is changed."""

from __future__ import annotations

import asyncio
import os

from anycastlb.adapters.drivers.interfaces import Interface, KernelRoute, read_interfaces
from anycastlb.core.model import Address, DriverError
from anycastlb.doctor.collect import consul, exabgp, haproxy, host, processes
from anycastlb.doctor.facts import MAX_ROUTES, Agent, Api, Facts, Folder, Needs, Process, Unseen
from anycastlb.settings import Settings


def collect(config: str, settings: Settings | None, problems: tuple[str, ...] = ()) -> Facts:
    """The facts for a node with these settings; they are None if ``problems`` keep them from being used."""
    me = processes.process(os.getpid()) or Process(os.getpid(), ())
    every = processes.every_process()
    nodes = filter(processes.is_node, every)
    node = processes.nearest(nodes, me, config, host.owners(settings.node.state_dir) if settings else ())
    home = {"", (node or me).namespace}
    running = tuple(process for process in every if process.namespace in home)
    needs, agent, api = asyncio.run(_ask(settings))
    interfaces, routes = _interfaces(needs)
    return Facts(
        config=config,
        problems=problems,
        settings=settings,
        me=me,
        node=node,
        rivals=tuple(process for process in running if process.rival),
        kernel=host.kernel(needs.schedulers if isinstance(needs, Needs) else ("mh",)),
        links=interfaces,
        routes=routes,
        needs=needs,
        speaker=exabgp.speaker(settings, config, running),
        haproxy=haproxy.tier(settings.http, running) if settings and settings.http else None,
        agent=agent,
        api=api,
        state=host.folder(settings.node.state_dir, node) if settings else Folder(""),
        synchronised=host.synchronised(),
        loopback_manager=host.loopback_manager(),
        exposed_secrets=host.exposed_secrets(settings) if settings else (),
    )


async def _ask(settings: Settings | None) -> tuple[Needs | Unseen, Agent | None, Api]:
    """The facts that other processes must be asked for, all at the same time."""
    if settings is None:
        return Unseen("there are no settings"), None, Api("")
    async with asyncio.TaskGroup() as group:
        needs = group.create_task(consul.needs(settings))
        api = group.create_task(consul.api(settings))
        agent = group.create_task(consul.agent(settings)) if settings.catalog.source == "consul" else None
    return needs.result(), agent.result() if agent else None, api.result()


def _interfaces(needs: Needs | Unseen) -> tuple[tuple[Interface, ...] | Unseen, dict[Address, KernelRoute]]:
    wanted = {address for address, _ in needs.forwards} if isinstance(needs, Needs) else set()
    try:
        return read_interfaces(sorted(wanted, key=lambda target: (target.version, target))[:MAX_ROUTES])
    except DriverError as exc:
        return Unseen(str(exc)), {}
