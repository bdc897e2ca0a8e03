"""The tour of ``vagrant/README.md``, command for command in the lab."""

from __future__ import annotations

from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.topology import vip
from tests.lab.tour import README, Guide, steps


def test_the_tour_goes_as_written(lab: Lab, tmp_path: Path) -> None:
    tour = list(steps(README.read_text()))
    assert len(tour) > 30
    guide = Guide(lab, tmp_path)
    for step in tour:
        if "vagrant rsync" in step.command:  # "and no request fails"
            with lab.client.load(vip(0), pause=0.05) as load:
                guide.perform(step)
            assert load.sent > 20, load
            assert not load.failed, load
        else:
            guide.perform(step)
