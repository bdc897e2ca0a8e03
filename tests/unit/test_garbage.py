"""The collector of garbage looks at no large table, and still frees what is left behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from anycastlb.adapters.system import garbage
from anycastlb.adapters.system.garbage import GarbageCollection


@pytest.fixture
def collection() -> Iterator[GarbageCollection]:
    usual = gc.get_threshold()
    collection = GarbageCollection()
    collection.defer()
    yield collection
    collection.end()
    assert gc.get_threshold() == usual and gc.get_freeze_count() == 0


class Circle:
    def __init__(self) -> None:
        self.itself = self


def test_what_there_is_at_the_start_is_left_out(collection: GarbageCollection) -> None:
    collection.resume()
    known = gc.get_freeze_count()
    assert known > 10_000
    collection.resume()
    assert gc.get_freeze_count() <= known, "once is enough"


def test_circles_that_are_made_until_then_are_freed_on_the_way(collection: GarbageCollection) -> None:
    circle = Circle()
    seen = weakref.ref(circle)
    del circle
    large = [[] for _ in range(garbage.YOUNG)]
    assert seen() is None and large


def test_while_much_is_made_no_old_object_is_looked_at(collection: GarbageCollection) -> None:
    before = [generation["collections"] for generation in gc.get_stats()]
    large = [[] for _ in range(30 * garbage.YOUNG)]
    young, *older = (generation["collections"] - old for generation, old in zip(gc.get_stats(), before, strict=True))
    assert young >= 29 and older == [0, 0] and large


def test_a_circle_that_is_made_later_is_freed(collection: GarbageCollection) -> None:
    collection.resume()
    circle = Circle()
    seen = weakref.ref(circle)
    del circle
    gc.collect()
    assert seen() is None


def test_what_took_long_to_look_at_is_left_out_once_in_a_while(
    collection: GarbageCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.resume()
    gc.collect()
    before = gc.get_freeze_count()
    large = [[] for _ in range(1000)]
    monkeypatch.setattr(garbage, "LONG", 0.0)
    gc.collect()
    between = gc.get_freeze_count()
    assert between >= before + len(large)
    large += [[] for _ in range(1000)]
    gc.collect()
    assert gc.get_freeze_count() < between + 1000, "not again so soon"
