"""Consul's list of keys, decoded item by item and only where it is new."""

from __future__ import annotations

import base64
import json
from operator import is_

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.adapters.consul.key_list import KeyList
from anycastlb.core.delta import delta
from anycastlb.core.model import Entry, SourceError

PREFIX = "anycastlb/"


def item(key: str, value: str | None = "{}", index: int = 1) -> dict[str, object]:
    raw = None if value is None else base64.b64encode(value.encode()).decode()
    return {"LockIndex": 0, "Key": PREFIX + key, "Flags": 0, "Value": raw, "CreateIndex": 1, "ModifyIndex": index}


def written(*items: dict[str, object]) -> bytes:
    """As Consul writes it."""
    return json.dumps(items, separators=(",", ":")).encode()


def test_an_item_that_is_the_same_text_is_the_same_entry() -> None:
    keys = KeyList(PREFIX)
    first = keys.decode(written(item("services/a"), item("services/b")))
    second = keys.decode(written(item("services/a"), item("services/b", '{"port": 1}', 2), item("services/c")))
    assert list(second) == ["services/a", "services/b", "services/c"]
    assert second["services/a"] is first["services/a"]
    assert second["services/b"] == Entry(b'{"port": 1}', 1) and second["services/b"].version == "2"


@pytest.mark.parametrize("key", ["a},{b", '"},{"', '\\"},{\\"', 'x","Flags":0},{"Key":"anycastlb/y', "},{", "ü},{"])
def test_a_key_may_look_like_the_border_of_two_items(key: str) -> None:
    keys = KeyList(PREFIX)
    for _ in range(2):
        assert list(keys.decode(written(item("services/a"), item(key), item("services/b")))) == [
            "services/a",
            key,
            "services/b",
        ]


def test_a_list_may_be_written_in_any_way() -> None:
    items = [item("services/a"), item("services/b", None)]
    for text in (json.dumps(items), json.dumps(items, indent=1), "\n" + json.dumps(items), written(*items).decode()):
        found = KeyList(PREFIX).decode(text.encode())
        assert {key: entry.value for key, entry in found.items()} == {"services/a": b"{}", "services/b": b""}
    assert KeyList(PREFIX).decode(b"[]") == {}


@pytest.mark.parametrize(
    "bad", [b"", b"{}", b"[1]", b"[{", b"[{}]", b"[{]", b"[{}},{]", b"\xff", written(item("a"))[:-2]]
)
def test_anything_else_is_an_error(bad: bytes) -> None:
    with pytest.raises(SourceError, match="not one of keys"):
        KeyList(PREFIX).decode(bad)


def test_a_key_of_another_prefix_is_an_error() -> None:
    with pytest.raises(SourceError, match="is not below 'other/'"):
        KeyList("other/").decode(written(item("services/a")))


lists = st.lists(
    st.tuples(st.sampled_from(["services/a", "services/b", "services/c", "x},{", "folder/"]), st.sampled_from("12")),
    max_size=6,
)
"""Keys with their values; some of these lists, which Consul never writes, have a key twice."""


@given(st.lists(lists, min_size=1, max_size=8))
def test_a_list_after_others_yields_what_it_yields_alone(history: list[list[tuple[str, str]]]) -> None:
    keys, known = KeyList(PREFIX, lambda key: key[-1] != "/"), {}
    for rows in history:
        text = written(*(item(key, value, int(value)) for key, value in rows))
        before = dict(known)
        at_once = keys.at_once(text)
        found, alone = (
            keys.decode(text) if at_once is None else at_once,
            KeyList(PREFIX, lambda key: key[-1] != "/").decode(text),
        )
        assert list(found.items()) == list(alone.items())
        assert list(known.items()) == list(before.items()), "what was yielded before stays as it was"
        known = found


def test_only_what_takes_little_is_decoded_at_once() -> None:
    keys = KeyList(PREFIX)
    small, large = written(item("services/a")), written(item("services/a"), item("services/b", "x" * 20_000))
    assert keys.at_once(small) is None, "nobody knows what it holds"
    assert keys.decode(small) is keys.at_once(small)
    assert keys.at_once(large) is None and keys.at_once(b"[]") is None
    assert keys.at_once(written(item("services/a"), item("services/b"))) == keys.decode(small) | {
        "services/b": Entry(b"{}", 1)
    }
    with pytest.raises(SourceError, match="not one of keys"):
        keys.at_once(b'[{"Key": 1}]')


def test_where_only_values_are_new_the_keys_are_the_same_objects() -> None:
    keys = KeyList(PREFIX)
    first = keys.decode(written(item("services/a"), item("services/b")))
    second = keys.decode(written(item("services/a"), item("services/b", "[]", 2)))
    assert all(map(is_, first, second)) and delta(first, second).keys == ("services/b",)
