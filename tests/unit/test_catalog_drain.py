"""What stands under ``drain/<node>``: whatever it is, the node is drained."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.model import Catalog, Drain, Entry, Tree


def catalog(value: bytes) -> Catalog:
    return parse_catalog(Tree({"drain/lb1": Entry(value), "locks/drain": Entry(b"x")}), Catalog(), (), (), {})


@pytest.mark.parametrize(
    ("value", "drain"),
    [
        ("", Drain()),
        ("1", Drain(reason="1")),
        ("new disks, ask Ann", Drain(reason="new disks, ask Ann")),
        ({}, Drain()),
        (
            {"reason": "disks", "by": "ann", "since": "2026-11-21T06:22:04Z", "deadline": "5m", "force": True},
            Drain("disks", "ann", "2026-11-21T06:22:04Z", 300.0, True),
        ),
        ({"deadline": None}, Drain()),
    ],
)
def test_documents(value: Any, drain: Drain) -> None:
    found = catalog(value.encode() if isinstance(value, str) else json.dumps(value).encode())
    assert found.drained == {"lb1"} and found.drains == {"lb1": drain} and found.problems == ()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (b"{", ""),
        (b'{"reason": "x", "deadline": "soon"}', "deadline"),
        (b'{"reason": "x", "deadline": "30d"}', "deadline"),
        (b'{"reason": "x", "forced": true}', "forced"),
        (b'{"reason": 1}', "reason"),
        (b'\xef\xbb\xbf{"deadline": "5m"}', ""),
    ],
)
def test_what_cannot_be_read_is_told_and_drains_all_the_same(value: bytes, path: str) -> None:
    found = catalog(value)
    assert found.drained == {"lb1"}
    assert [(problem.key, problem.path) for problem in found.problems] == [("drain/lb1", path)]
    assert found.drains["lb1"].deadline is None and not found.drains["lb1"].force


def test_bytes_that_are_no_text() -> None:
    assert catalog(b"\xff\xfe").drained == {"lb1"}


@pytest.mark.parametrize("node", ["lb1.json", "lb1.yml"])
def test_a_drain_that_was_named_like_a_file_of_a_document_is_told(node: str) -> None:
    """The ending is a part of the node's name there, so it drains nobody."""
    found = parse_catalog(Tree({f"drain/{node}": Entry(b"{}")}), Catalog(), (), (), {})
    assert found.drained == {node}
    assert ["such as drain/lb1: this drains a node called lb1." in one.expected for one in found.problems] == [True]
