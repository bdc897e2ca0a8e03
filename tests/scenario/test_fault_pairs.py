"""Two faults at once, whole nodes, the real bridge, virtual time. Each test is one cell of the table of combinations.

``tests.support.faults`` tells what happens, and what must hold meanwhile. ``ANYCASTLB_SEED=7`` draws other moments.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest

from anycastlb.core.model import Share
from anycastlb.settings import ClusterSettings
from tests.support.faults import EVERYONE, FAULTS, PAIRS, Site, deed, happen, quiet, reached
from tests.support.world import SEED, VIP

NEW = ip_address("192.0.2.50")
DEATH = deed(
    lambda s: [w.dead.update(EVERYONE) for w in s.worlds],
    lambda s: [w.dead.clear() for w in s.worlds],
    harmless=False,
)
"""All backends die; what becomes of the routes depends on the story."""


@pytest.mark.parametrize(("one", "two"), PAIRS, ids=[f"{one} + {two}" for one, two in PAIRS])
async def test_two_faults_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, two: str) -> None:
    chance = Random(f"{SEED} {one} {two}")
    await happen(Site(tmp_path, monkeypatch, chance), FAULTS[one], FAULTS[two])


@pytest.mark.parametrize("one", ["bridge dies", "ExaBGP slow", "daemon restarts"])
async def test_a_fault_while_a_drained_node_is_the_last_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str
) -> None:
    site = Site(tmp_path, monkeypatch, Random(f"{SEED} {one}"), graceful="10s")
    await happen(site, FAULTS["drain"], FAULTS[one])


@pytest.mark.parametrize("two", ["all backends die", "clock forward", "clock back", "daemon restarts"])
async def test_a_fault_while_the_limit_of_withdrawals_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two: str
) -> None:
    site = Site(tmp_path, monkeypatch, Random(f"{SEED} {two}"))
    for world in site.worlds:
        limited = ClusterSettings(max_withdrawals=Share(count=1))
        world.settings = world.settings.model_copy(update={"cluster": limited})
    await happen(site, DEATH, FAULTS[two] if FAULTS[two].harmless else DEATH)


@pytest.mark.parametrize(
    ("two", "gap"),
    [("sessions of Consul lost", 0.0), ("Consul lost its data", 0.0), ("Consul away", 0.0), ("daemon restarts", 0.0),
     ("the other restarts", 0.0), ("both restart", 0.0), ("all sessions down", 0.0), ("bridge dies", 0.0),
     ("kernel unread for long", 40.0)],
)  # fmt: skip
async def test_a_fault_while_a_node_keeps_the_last_route(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two: str, gap: float
) -> None:
    """Every backend of both is dead, and all the time some node announces the VIP. One that goes blind keeps nothing
    for longer than ``hold``; the other one takes over once the blind one has vanished, which takes half a minute."""
    site = Site(tmp_path, monkeypatch, Random(f"{SEED} {two}"), last="keep")
    loop, watching = asyncio.get_running_loop(), list[asyncio.Task[None]]()

    async def kept() -> None:
        seen = loop.time()
        while True:
            if any(VIP in world.announced for world in site.worlds):
                seen = loop.time()
            elif loop.time() - seen > gap:
                site.complaints.append(f"nobody keeps the last route, for {loop.time() - seen:.1f} s")
            await asyncio.sleep(0.02)

    async def begin(site: Site) -> None:
        await DEATH.begin(site)
        watching.append(asyncio.ensure_future(kept()))  # noqa: TID251

    try:
        await happen(site, replace(DEATH, begin=begin, lasts=(gap + 30.0, gap + 35.0)), FAULTS[two])
    finally:
        for task in watching:
            task.cancel()


async def test_a_restart_without_consul_after_the_disk_was_full_serves_what_was_saved_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service that was never saved is lost until Consul is back; what was saved stays announced all the time."""
    site = Site(tmp_path, monkeypatch, Random(SEED))
    lives = [asyncio.ensure_future(world.speaker.live()) for world in site.worlds]  # noqa: TID251
    try:
        site.put_all()
        await _started(site)
        watching = asyncio.ensure_future(site.watch(steady=True))  # noqa: TID251
        lives.append(watching)
        await FAULTS["disk full"].begin(site)
        site.put("new", vip="192.0.2.50")
        await reached(site, lambda: NEW in site.world.announced, 20, "the new VIP is not announced")
        await asyncio.sleep(10)
        assert [r.event for r in site.nodes[0].journal.records() if r.event.after == "unsaved"]
        await FAULTS["Consul away"].begin(site)
        await site.kill(0)
        await site.start(0)
        await reached(site, lambda: NEW not in site.world.announced, 20, "an unknown VIP is announced for ever")
        await asyncio.sleep(60)
        assert VIP in site.world.announced and NEW not in site.world.announced
        await FAULTS["Consul away"].end(site)
        await FAULTS["disk full"].end(site)
        site.extra.add(NEW)
        await quiet(site, 60)
        assert not site.complaints, site.complaints[:5]
    finally:
        for task in lives:
            task.cancel()
        for n in list(site.nodes):
            await site.kill(n)


async def _started(site: Site) -> None:
    for n in (0, 1):
        await site.start(n)
    await quiet(site, 30)
