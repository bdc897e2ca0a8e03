"""The law of texts: whatever a document says, it reaches HAProxy as a key or a value of a map, and nowhere else.

A hostile text is put in the place of any text of good documents. Where the document is taken all the same, the static
part of the configuration holds nothing but names of a few letters, and every entry is one line of a map file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.http.entries import compile_graph
from anycastlb.core.http.names import escaped, original, section
from anycastlb.core.http.routes import graph_of
from anycastlb.core.http.static import engine_row
from anycastlb.core.model import HttpConfig, Retry
from tests.support.http_tree import DOCUMENTS, ELB, changed, read

FILTERS = [
    {"type": "RequestHeaderModifier", "requestHeaderModifier": {
        "set": [{"name": "x-a", "value": "b"}], "remove": ["x-c"]}},
    {"type": "URLRewrite", "urlRewrite": {"hostname": "in.example", "path": {
        "type": "ReplaceRegexMatch", "replaceRegexMatch": {"pattern": "^/(a)", "substitution": r"/\1"}}}},
]  # fmt: skip
MATCH = {"path": {"value": "/a"}, "method": "GET", "queryParams": [{"name": "page", "value": "1"}]}
GOOD: dict[str, Any] = {
    **DOCUMENTS,
    "routes/more": {
        "gateways": ["web"], "hostnames": ["more.example"],
        "rules": [{"name": "one", "matches": [MATCH], "filters": FILTERS, "backendRefs": [{"name": "web"}],
                   "sticky": {"cookie": "uid"}}],
    },
    "routes/old.example": {"gateways": ["web"], "graph": ELB},
}  # fmt: skip
HOSTILE = [
    '"', "'", "\\", "#", "%[src]", "a b", "a\tb", "\n", "a\r\nserver x 1.2.3.4", "\0", "{", "}", "$HOME", '"${HOME}"',
    "|", "?", "=", "<<", ";", "a;disable server b/s", ",map(/etc/passwd)", "é", "\u2028", "!404", ">:x", "(*UTF)",
    r"\1", "a" * 300, "*", "..",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where texts stand in a document."""
    if isinstance(value, str):
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


PLACES = [(key, *path) for key, document in GOOD.items() for path in places(document)]


def text_at(path: tuple[Any, ...]) -> str:
    value: Any = GOOD
    for step in path:
        value = value[step]
    return str(value)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    path = draw(st.sampled_from(PLACES))
    old, bad = text_at(path), draw(st.sampled_from(HOSTILE) | st.text(max_size=5))
    at = draw(st.integers(0, len(old)))
    wanted = draw(st.sampled_from([bad, old[:at] + bad + old[at:]]))
    return changed(GOOD, *path, to=wanted)


def texts(value: Any) -> Iterator[str]:
    """Every text of a value."""
    if isinstance(value, str):
        yield value
    elif is_dataclass(value):
        yield from (text for field in fields(value) for text in texts(getattr(value, field.name)))
    elif isinstance(value, tuple):
        yield from (text for item in value for text in texts(item))
    else:
        assert value is None or isinstance(value, (bool, int, float, IPv4Address, IPv6Address))


@given(documents())
def test_a_text_of_a_document_is_data_and_nothing_else(given_documents: dict[str, Any]) -> None:
    catalog = read(given_documents)
    graphs = [graph_of(route) for route in catalog.routes]
    pools = {service.name: service for service in (*catalog.services, *catalog.pools)}
    config = engine_row(catalog.gateways, graphs, pools).config
    assert isinstance(config, HttpConfig)
    for text in texts(config):
        assert re.fullmatch(r"[A-Za-z0-9._:\[\]()/-]*", text), text
    for text in (*config.subjects, *config.request_headers, *config.response_headers):
        assert re.fullmatch(r"[A-Za-z0-9._-]+", text), text
    assert all(re.fullmatch(r"[A-Za-z0-9._:-]+", one.name) for one in config.sections)
    for entry in (entry for graph in graphs for entry in compile_graph(graph).entries):
        assert re.fullmatch(r"[!-~]+", entry.key) and not entry.key.startswith("#"), entry
        assert re.fullmatch(r"[!-~]([ -~]*[!-~])?", entry.value), entry
    hosts = [host for route in catalog.routes for host in route.hostnames]
    assert all(re.fullmatch(r"\*|(\*\.)?[a-z0-9.-]+|\[[0-9a-f:]+\]", host) for host in hosts)


names = st.from_regex(r"[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]{0,20}", fullmatch=True)
retries = st.builds(Retry, st.integers(0, 10))


@given(names, names, retries, retries)
def test_names_of_sections_are_told_apart_and_mapped_back(one: str, other: str, here: Retry, there: Retry) -> None:
    assert original(escaped(one)) == original(section(one, here)) == one
    assert (section(one, here) == section(other, there)) == ((one, here) == (other, there))
    assert re.fullmatch(r"[A-Za-z0-9._:-]+", section(one, here)) and not section(one, here).startswith("_a")
