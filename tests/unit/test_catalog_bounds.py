"""Bounds and containment: no text stops a node, and what is wrong with one document is no other's business."""

from __future__ import annotations

import cProfile
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anycastlb.adapters.checks import PARAMS
from anycastlb.core import fields, scalars
from anycastlb.core.catalog import bounds, build, decode, drain, parse, yaml_text
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.model import Catalog, Entry, Tree
from anycastlb.serving.api.http import bodies
from anycastlb.serving.api.http.errors import ApiError
from tests.support import hostile

CALLS = 30
"""For each byte of a document: it takes twelve at most, and it once took minutes."""
WEB = {"vip": "192.0.2.1", "port": 80, "backends": {"a": {"address": "10.1.0.1"}}}
OTHER = {**WEB, "vip": "192.0.2.2"}
KEYS = ["services/web", "services/web/backends/b", "defaults", "drain/lb1"]
NOTHING = Catalog()


def calls(work: Callable[[], Any]) -> tuple[Any, int]:
    """What some work returns, and how many calls of Python and of C it took: as many on every machine."""
    profile = cProfile.Profile()
    result = profile.runcall(work)
    return result, sum(entry.callcount for entry in profile.getstats())


def read(key: str, value: bytes, form: Any = "json", previous: Catalog = NOTHING) -> Catalog:
    known = {"services/web": Entry(json.dumps(WEB).encode()), "services/other": Entry(json.dumps(OTHER).encode())}
    return parse_catalog(Tree({**known, key: Entry(value, 1, form)}, 1), previous, ANYWHERE, ANY_MARK, PARAMS)


@pytest.mark.parametrize(("form", "name", "text"), hostile.DOCUMENTS, ids=lambda value: str(value)[:40])
def test_no_document_takes_long_or_stops_another(form: str, name: str, text: str) -> None:
    value = text.encode(errors="surrogatepass")
    assert len(value) <= bounds.MAX_BYTES, name
    for key in KEYS:
        found, count = calls(lambda key=key: read(key, value, form))
        assert 0 < count < CALLS * max(len(value), 1000), key
        assert "192.0.2.2" in map(str, found.vips) or key == "defaults"
        assert all(len(str(problem)) < 1000 for problem in found.problems) and len(found.problems) < 500
        assert found.drained == ({"lb1"} if key == "drain/lb1" else set()), "whatever its value, it is drained"


@pytest.mark.parametrize(("name", "text"), hostile.JSON.items(), ids=list(hostile.JSON))
def test_no_body_takes_long(name: str, text: str) -> None:
    value = text.encode(errors="surrogatepass")

    def decode_body() -> None:
        try:
            bodies.decode(value)
        except ApiError as exc:
            assert exc.status == 400

    _, count = calls(decode_body)
    assert 0 < count < CALLS * max(len(value), 1000)


def test_what_json_has_not_is_refused() -> None:
    for name in ("infinity", "too large", "too large a text", "no number", "half a surrogate", "980 levels"):
        catalog = read("services/web", hostile.JSON[name].encode())
        assert [problem.key for problem in catalog.problems] == ["services/web"], name


SCALARS: list[Callable[[Any], Any]] = [
    scalars.duration,
    scalars.network,
    scalars.hold,
    fields.share,
    fields.whole,
    fields.address,
    bounds.bounded,
]
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=80)),
    lambda inside: st.one_of(st.lists(inside, max_size=4), st.dictionaries(st.text(max_size=9), inside, max_size=4)),
)


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda scalar: scalar.__name__)
@given(value=ANYTHING)
@settings(deadline=None)
def test_a_value_raises_nothing_but_its_own_error(scalar: Callable[[Any], Any], value: Any) -> None:
    try:
        scalar(value)
    except ValueError as exc:
        assert 0 < len(str(exc)) < 300


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda scalar: scalar.__name__)
@pytest.mark.parametrize("unit", ["1", "1 ", "1s", ".", "weight ", "9%", " ", "::", "\ud800"])
def test_a_long_text_is_no_value(scalar: Callable[[Any], Any], unit: str) -> None:
    text = unit * (hostile.SIZE // len(unit))

    def refuse() -> None:
        with pytest.raises(ValueError, match=r"^.{1,200}$"):
            scalar(text)

    _, count = calls(refuse)
    assert 0 < count < len(text) / 100, "nothing is done for each character"


@given(value=st.one_of(st.binary(max_size=200), ANYTHING.map(lambda one: json.dumps(one).encode())))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_document_or_a_problem(value: bytes) -> None:
    for form in ("json", "yaml", "toml"):
        for key in KEYS:
            assert read(key, value, form).index == 1


FIELDS = st.sampled_from(
    [
        "vip",
        "port",
        "drain",
        "check",
        "backends",
        "announce",
        "damping",
        "min_backends",
        "type",
        "checks",
        "a",
        "address",
    ]
)


@given(document=st.recursive(ANYTHING, lambda inside: st.dictionaries(FIELDS, inside, max_size=4), max_leaves=12))
@settings(max_examples=300, deadline=None)
def test_anything_in_place_of_a_field_is_a_problem(document: Any) -> None:
    catalog = read("services/web", json.dumps({**WEB, **(document if isinstance(document, dict) else {})}).encode())
    assert "192.0.2.2" in map(str, catalog.vips)


@pytest.mark.parametrize("name", ["", "a/b", "a\tb", "a\n", "x" * 129, "ü", "-a", "a b", "\x7f"])
def test_a_backend_inside_a_document_is_named_as_a_key_may_be(name: str) -> None:
    catalog = read("services/web", json.dumps({**WEB, "backends": {name: {"address": "10.1.0.2"}}}).encode())
    (problem,) = catalog.problems
    assert (problem.key, len(catalog.services)) == ("services/web", 1)
    assert "letters" in problem.expected or "printable" in problem.expected


@pytest.mark.parametrize(
    "key", ["", "/", "services/", "services/web/", "services/web/backends/", "drain/", "defaults/"]
)
def test_a_folder_is_no_document(key: str) -> None:
    assert not read(key, b"").problems


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("services/other2/", json.dumps(OTHER).encode()),
        ("services/web/backends/b/", b"address=10.1.0.2"),
        ("defaults/", b"{}"),
        ("drain/lb1/", b"new kernel"),
        ("drain/lb1/", b""),
    ],
)
def test_what_is_written_into_a_folder_is_named_as_unread(key: str, value: bytes) -> None:
    """A slash at the end of a key is easily typed: a node that is not drained by it must not seem to be."""
    result = read(key, value)
    [problem] = result.problems
    assert (problem.key, problem.expected.split("; ")[1]) == (key, f"expected {key[:-1]}")
    assert not result.drained
    memory = parse.CatalogMemory()
    tree = Tree({"services/web": Entry(json.dumps(WEB).encode()), key: Entry(value)}, 1)
    first = parse_catalog(tree, NOTHING, ANYWHERE, ANY_MARK, PARAMS, memory=memory)
    rest = Tree({"services/web": tree.entries["services/web"]}, 2)
    assert first.problems
    assert not parse_catalog(rest, first, ANYWHERE, ANY_MARK, PARAMS, memory=memory).problems


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("vip: 192.0.2.1\nport: 80\nport: 81\n", "the field 'port' stands twice"),
        (
            "vip: 192.0.2.1\nport: 80\nbackends:\n  a: {address: 10.1.0.1}\n  a: {address: 10.1.0.2}\n",
            "'a' stands twice",
        ),
        ("vip: 192.0.2.1\nport: 0100\n", "0100 begins with 0, which makes it octal in YAML"),
        ("vip: 192.0.2.1\nport: 80\nannounce: {communities: [65001:10]}\n", "65001:10 is a number of base 60 in YAML"),
    ],
)
def test_what_yaml_would_quietly_read_as_something_else(text: str, told: str) -> None:
    (problem,) = read("services/web", text.encode(), "yaml").problems
    assert told in problem.expected


@pytest.mark.parametrize("text", ["[{a: 1}, {a: 2}]", "{a: {a: 1}, b: {a: 1}}", "a: '0100'\nb: \"65001:10\"\n", "a: 0"])
def test_what_is_no_repetition_and_no_other_base(text: str) -> None:
    yaml_text.read_yaml(text)


def test_an_alias_may_be_used_again() -> None:
    text = "vip: 192.0.2.1\nport: 80\ncheck: &c {interval: 1s}\nbackends:\n  a: {address: 10.1.0.1, check: *c}\n"
    catalog = read("services/web", text.encode(), "yaml")
    assert not catalog.problems and len(catalog.services) == 2


def test_a_tunnel_port_is_one_that_a_packet_can_have() -> None:
    for document in ({**WEB, "tunnel_port": 0}, {**WEB, "backends": {"a": {"address": "10.1.0.1", "tunnel_port": 0}}}):
        (problem,) = read("services/web", json.dumps({**document, "forward": "gue"}).encode()).problems
        assert problem.path.endswith("tunnel_port") and "greater than or equal to 1" in problem.expected


FAULTS = [
    (build, "parse_service"),
    (parse, "parse_drain"),
    (build, "discover"),
    (build, "unreachable"),
    (decode, "document"),
    (decode, "backend_document"),
    (decode, "merge"),
    (drain, "problems"),
]
MARK = "culprit"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("module", "name"), FAULTS, ids=[name for _, name in FAULTS])
@pytest.mark.parametrize(
    "error", [RecursionError("deep"), MemoryError(), OverflowError(34, "large"), KeyError("x")], ids=repr
)
def test_a_fault_in_parsing_one_document_is_that_documents_problem(
    monkeypatch: pytest.MonkeyPatch, key: str, module: Any, name: str, error: Exception
) -> None:
    good = {"services/web": WEB, "services/web/backends/b": {"address": "10.1.0.9"}, "drain/lb1": {"reason": "disk"}}
    first = read(key, json.dumps(good.get(key, {})).encode())
    original = getattr(module, name)
    raised: list[Exception] = []

    def faulty(*args: Any, **kwargs: Any) -> Any:
        if MARK in repr((args, kwargs)):
            raised.append(error)
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, faulty)
    value = json.dumps({**good.get(key, {}), "reason" if key.startswith("drain") else "dns": MARK}).encode()
    catalog = read(key, value, previous=first)
    assert {str(vip) for vip in catalog.vips} == {"192.0.2.1", "192.0.2.2"}
    assert catalog.drained == first.drained
    assert {problem.key for problem in catalog.problems} <= {key} or key == "defaults"
    if raised:
        assert any("please report it" in problem.expected for problem in catalog.problems)
        assert catalog.services == first.services, "the last good version is in force"
