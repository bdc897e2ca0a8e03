"""A plan without a daemon: what one that started now would do first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from pathlib import Path
from typing import Any

from anycastlb.adapters.certificates import CertificateFiles, fingerprint
from anycastlb.adapters.checks import parameters, types
from anycastlb.adapters.discovery.watch import survey
from anycastlb.adapters.drivers import Driver
from anycastlb.adapters.drivers.saved_settings import SavedSettings
from anycastlb.adapters.sources.cache import CatalogCache
from anycastlb.core.catalog.parse import parse_catalog, troubled
from anycastlb.core.decision import plan
from anycastlb.core.decision.decide import adopt, decide
from anycastlb.core.model import (
    EMPTY,
    Catalog,
    CheckState,
    Feed,
    Inputs,
    Policy,
    Result,
    Snapshot,
    State,
)
from anycastlb.engine.follower import identity
from anycastlb.engine.node import checks
from anycastlb.engine.parts import kernel_settings, make_drivers, make_http, make_kinds, make_source
from anycastlb.settings import Settings

TIMEOUT = 10.0
"""Seconds that a plan waits for its discoveries."""


async def observe_once(settings: Settings) -> Snapshot:
    """What a daemon started now would do first: reads the catalog once, observes, decides, and writes nothing.

    Every backend counts as up, and no route as announced, since nobody has checked. Raises ``AnycastlbError``.
    """
    source = make_source(settings)
    try:
        tree = await source.read(None)
    finally:
        await source.close()
    node = settings.node
    parsed = partial(
        parse_catalog, tree, Catalog(), node.vip_ranges, node.fwmark_ranges, parameters(types(settings.checks))
    )
    catalog = parsed()
    if catalog.discovers:
        saved = CatalogCache(node.state_dir, identity(settings)).load().instances
        instances, troubles = await survey(make_kinds(settings), catalog.discovers, saved, TIMEOUT)
        catalog = troubled(parsed(instances), troubles)
    folder = CertificateFiles(Path(settings.http.certificate_dir), fingerprint) if settings.http else None
    tables: dict[Any, Any] = {}
    drivers: list[Driver] = [*make_drivers(settings), *([make_http(settings.http)] if settings.http else [])]
    for driver in drivers:
        tables.update(await driver.observe())
    actual = State(**tables)
    now = time.monotonic()
    up = CheckState(up=True, since=now, last=Result(True, "assumed up", 0.0, now))
    inputs = Inputs(
        Policy(
            node=node.name, **kernel_settings(settings), marks=settings.checks.marks, http=settings.http is not None
        ),
        catalog=catalog,
        feed=Feed(connected=True, loaded=True, since=now),
        health=dict.fromkeys(checks(catalog), up),
        originals=SavedSettings(node.state_dir).rows,
        certificates=folder.look() if folder else EMPTY,
    )
    decision = decide(inputs, adopt(actual, now, inputs.policy.marks), now)
    changes = plan.diff(actual, decision.desired)
    return Snapshot(inputs, actual, decision, pending=changes, at=now, at_wall=time.time())


def dry_run(settings: Settings) -> Snapshot:
    """``observe_once`` for callers without an event loop."""
    awaiting: Awaitable[Snapshot] = observe_once(settings)
    return asyncio.run(awaiting)  # type: ignore[arg-type]
