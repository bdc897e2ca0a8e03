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
    collection = GarbageCollection()
    collection.defer()
    yield collection
    collection.end()
    assert gc.isenabled() and gc.get_freeze_count() == 0


class Circle:
    def __init__(self) -> None:
        self.itself = self


def test_what_there_is_at_the_start_is_left_out(collection: GarbageCollection) -> None:
    assert not gc.isenabled()
    collection.resume()
    known = gc.get_freeze_count()
    assert gc.isenabled() and known > 10_000
    collection.resume()
    assert gc.get_freeze_count() <= known, "once is enough"


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
