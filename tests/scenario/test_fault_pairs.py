"""Two faults at once, whole nodes, the real bridge, virtual time. Each test is one cell of the table of combinations.

``tests.support.faults`` tells what happens, and what must hold meanwhile. ``ANYCASTLB_SEED=7`` draws other moments.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from anycastlb.core.model import Share
from anycastlb.settings import ClusterSettings
from tests.support.faults import EVERYONE, FAULTS, PAIRS, Site, deed, happen
from tests.support.world import SEED


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
    dies = deed(
        lambda s: [w.dead.update(EVERYONE) for w in s.worlds],
        lambda s: [w.dead.clear() for w in s.worlds],
        harmless=False,
    )
    await happen(site, dies, FAULTS[two] if FAULTS[two].harmless else dies)
