"""The table of what happens to the lab: nothing is left out without a reason, and a seed chooses the same again."""

from __future__ import annotations

import pytest

from tests.lab.faults import CELLS, KINDS, TARGETS, Fault, faults, meet, pair, pairs


@pytest.fixture(autouse=True)
def own_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTKERNEL", "packaged")


def test_every_kind_of_every_part_is_done_or_has_its_reason() -> None:
    assert CELLS.keys() == {(target, kind) for target in TARGETS for kind in KINDS}
    assert all(isinstance(cell, Fault) or cell.strip() for cell in CELLS.values())
    assert {target for target, _ in faults()} == set(TARGETS) and {kind for _, kind in faults()} == set(KINDS)


def test_what_would_harm_the_host_is_done_in_a_kernel_of_its_own_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTKERNEL", "host")
    assert ("daemon", "clock step") not in faults() and ("state_dir", "full disk") not in faults()
    assert ("daemon", "kill") in faults()


def test_a_seed_chooses_the_same_pair_again_and_seeds_choose_all() -> None:
    assert [pair(seed) for seed in range(50)] == [pair(seed) for seed in range(50)]
    chosen = {frozenset(pair(seed).names) for seed in range(20_000)}
    assert chosen == set(map(frozenset, pairs()))


def test_nothing_more_is_done_to_what_is_gone_or_stands_still() -> None:
    assert not meet(("daemon", "kill"), ("daemon", "slow"))
    assert not meet(("Consul", "garbage"), ("Consul", "no descriptors"))
    assert meet(("daemon", "slow"), ("daemon", "no descriptors"))
    assert meet(("daemon", "kill"), ("bridge", "kill"))
