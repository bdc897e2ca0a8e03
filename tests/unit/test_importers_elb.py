"""ELB's etcd to our catalog: what becomes of upstreams and rules, and what is told of the rest."""

from __future__ import annotations

import json

import pytest

from anycastlb.core.catalog.edit.bulk import export_documents
from anycastlb.core.importers import UnreadableInput
from anycastlb.core.importers.elb import convert
from anycastlb.core.model import Passive
from tests.support.elb_dump import DUMP
from tests.support.http_tree import EXAMPLE, GATEWAY, changed, read, tree


def test_a_dump_of_etcd_becomes_pools_and_routes() -> None:
    documents, notes = convert(DUMP)
    catalog = read({"gateways/web": changed(GATEWAY, "vip", to="192.0.2.9"), **documents})
    assert not catalog.problems, list(map(str, catalog.problems))
    pools = {pool.name: pool for pool in catalog.pools}
    assert [(one.name, one.weight, one.passive, one.fallback) for one in pools["upstrimg1"].backends] == [
        ("127.0.0.1:8089", 10, Passive(2, 10.0), False),
        ("127.0.0.1:8088", 1, Passive(1, 10.0), False),
    ]
    assert [(one.name, one.passive, one.fallback, one.upper) for one in pools["upstream2"].backends] == [
        ("[2001:db8::1]:80", Passive(1, 30.0), True, 0),
        ("127.0.0.1:8090", Passive(1, 10.0), False, 9),
    ]
    assert [(str(one.address), one.port) for one in pools["10.0.0.7"].backends] == [("10.0.0.7", 80)]
    assert pools["nobody"].backends == ()
    assert [(route.name, route.hostnames) for route in catalog.routes] == [
        ("127.0.0.1", ("127.0.0.1",)),
        ("static.example", ("static.example",)),
    ]
    assert list(map(str, notes)) == [
        "upstream upstream2: 'localhost:8088' is no address; write its address, or discover it by DNS",
        "upstream upstream2: 127.0.0.1:8090: the option 'route=a' has no counterpart",
        "domain 'Static.example:8080': it is compared without its port and in small letters, as 'static.example'",
        "domain 'Static.example:8080': there is no upstream nobody; its pool is empty and answers 503",
    ]


def test_the_documents_are_exported_as_they_were_imported() -> None:
    documents, _ = convert(DUMP)
    exported, problems = export_documents(tree(documents))
    assert not problems and exported == documents


def test_keys_and_values_without_etcds_own_fields_do_as_well() -> None:
    flat = {"/elb/rules/a.example": EXAMPLE, "/elb/upstreams/upstrimg1/127.0.0.1:1": "", "/elb/x": "", "other": 1}
    documents, notes = convert(json.dumps(flat), gateway="http")
    assert documents["routes/a.example"] == {"gateways": ["http"], "hostnames": ["a.example"], "graph": EXAMPLE}
    assert [note.what for note in notes][:2] == [
        "'/elb/x': neither a rule nor a server of an upstream",
        "'other': neither a rule nor a server of an upstream",
    ]


BAD_DOMAINS = {
    "a.example": ("{", "its rules are no JSON"),
    "a b": ("{}", "no host name"),
    "b.example:80": (json.dumps(EXAMPLE), "compared without its port"),
    "B.example": (json.dumps(EXAMPLE), "there are two"),
}


def test_what_is_no_domain_is_told_and_left_out() -> None:
    documents, notes = convert(json.dumps({f"/ELB/rules/{name}": text for name, (text, _) in BAD_DOMAINS.items()}))
    assert [key for key in documents if key.startswith("routes/")] == ["routes/b.example"]
    for name, (_, why) in BAD_DOMAINS.items():
        assert any(repr(name) in note.what and why in note.what for note in notes), name


@pytest.mark.parametrize("text", ["", "[]", "{", "ELB", '{"a": 1, "a": 2}'])
def test_what_is_no_dump_is_refused(text: str) -> None:
    with pytest.raises(UnreadableInput, match="the answer of etcd"):
        convert(text)
