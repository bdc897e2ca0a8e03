"""Two faults at once with many VIPs more: some cells of the table of combinations, which a seed draws.

There are 400 VIPs, of which each takes ExaBGP five times as long as usual: as slow a table as 2,000 are, for a fifth of
the work. ``ANYCASTLB_EXAMPLES=50`` (``make laws``) draws more cells, with 2,000 VIPs, and ``ANYCASTLB_SEED=7`` others.
That each decision is the one from scratch is not asked here: that would take longer than everything else.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.support.examples import EXAMPLES
from tests.support.faults import FAULTS, PAIRS, Site, happen
from tests.support.world import SEED

MANY = 2000
VIPS = MANY if EXAMPLES else 400
CELLS = [pair for pair in PAIRS if "further loss" not in pair]
"""Further losses count when a shrink is held; with so many VIPs, one of them is no shrink."""
DRAWN = Random(f"{SEED} sizes").sample(CELLS, min(EXAMPLES or 2, len(CELLS)))


@pytest.fixture(autouse=True)
def from_scratch() -> None:
    """Let decisions be as they are."""


@pytest.mark.parametrize(("one", "two"), DRAWN, ids=[f"{one} + {two}" for one, two in DRAWN])
async def test_two_faults_at_once_with_many_vips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, two: str
) -> None:
    chance = Random(f"{SEED} {one} {two}")
    site = Site(tmp_path, monkeypatch, chance, more=VIPS)
    for world in site.worlds:
        world.speaker.per_route *= MANY / VIPS
    await happen(site, FAULTS[one], FAULTS[two])
