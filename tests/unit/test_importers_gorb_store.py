"""What GORB keeps in Consul to our catalog: services and backends as its REST API writes them, and what is told."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.cli import files, formats
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.importers import UnreadableInput, gorb
from anycastlb.core.importers.gorb_store import convert
from anycastlb.core.model import Catalog, Entry, Tree
from tests.support.gorb_store import SERVICE, exported

BACKEND = {"host": "10.1.0.1", "port": 80, "weight": 100, "method": "nat", "vsid": "web",
           "pulse": {"type": "tcp", "interval": "1m", "args": {}}}  # fmt: skip


def read(store: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The documents, all of which a node takes, and the notes."""
    documents, notes = formats.read(exported(store))
    tree = Tree({key: Entry(json.dumps(value).encode()) for key, value in documents.items()})
    catalog = parse_catalog(tree, Catalog(), ANYWHERE, ANY_MARK, PARAMS)
    assert catalog.problems == () and catalog.good.keys() == documents.keys()
    return documents, notes


def test_services_and_backends_become_what_the_rest_api_writes() -> None:
    args = {"method": "HEAD", "path": "/health", "expect": "204", "port": 81}
    web = BACKEND | {"weight": 30, "method": "tunnel", "pulse": {"type": "http", "interval": "5 sec", "args": args}}
    six = SERVICE | {"host": "2001:db8::1", "protocol": "udp", "method": "sh", "flags": "sh-port|sh-fallback"}
    seven = BACKEND | {"host": "fd00::1", "vsid": "dns", "pulse": None}
    store = {"lb/services/web": SERVICE, "lb/services/dns": six, "lb/backends/b1": web, "lb/backends/b2": seven,
             "lb/gorblock": "gorb"}  # fmt: skip
    documents, notes = read(store)
    assert (documents, notes) == (
        {
            "services/web": gorb.service(SERVICE, {}),
            "services/dns": gorb.service(six, {}),
            "services/web/backends/b1": gorb.backend(web, {}, 4),
            "services/dns/backends/b2": gorb.backend(seven, {}, 6),
        },
        [],
    )
    assert documents["services/web/backends/b1"]["check"]["path"] == "/health"


def test_what_gorb_does_otherwise_is_told() -> None:
    store = {
        "services/web": SERVICE | {"persistent": True, "DelIfAddr": False, "sticky": 1},
        "backends/b1": BACKEND | {"weight": 0, "Pulse": {"type": "tcp", "rise": 3, "args": {"host": "", "tls": 1}}},
        "backends/b2": BACKEND | {"port": 81, "weight": 70000, "pulse": {"args": ["x"]}},
    }
    documents, notes = read(store)
    assert documents["services/web"]["persistence"] == {}
    assert [documents[f"services/web/backends/{name}"]["weight"] for name in ("b1", "b2")] == [0, 65535]
    assert notes == [
        "service 'web': sticky: no field of GORB's; left out",
        "service 'web': persistent: GORB never told the kernel; here a client stays for 5 minutes",
        "backend 'b1': weight 0: GORB makes 100 of it when it starts anew; here it stays 0",
        "backend 'b1': pulse.rise: no field of GORB's; left out",
        "backend 'b1': pulse.args.tls: no field of GORB's; left out",
        "backend 'b2': weight 70000 is above the largest weight here; 65535 instead",
        "backend 'b2': pulse.args: expected an object, not ['x']; left out",
    ]


BAD: dict[str, tuple[Any, str]] = {
    "services/named": (SERVICE | {"host": "www.example"}, "'www.example' is a name"),
    "services/none": (SERVICE | {"host": ""}, "endpoint information is missing"),
    "services/sctp": (SERVICE | {"protocol": "sctp"}, "specified protocol is unknown"),
    "services/a b": (SERVICE, "nothing here can have that name"),
    "services/foo": (SERVICE | {"port": 81, "method": "foo"}, "services/foo is left out: scheduler"),
    "anycastlb/services/ours": ({"vip": "192.0.2.1", "port": 80}, "a document of anycastlb's own"),
    "services/list": ([1], "expected an object, not [1]"),
    "other/services/web": (SERVICE | {"port": 82}, "it is there twice"),
    "services/text": ("{", "expected the base64 of an object in JSON"),
    "backends/lost": (BACKEND | {"vsid": "nobody"}, "vsid 'nobody': there is no such service"),
    "backends/nowhere": ({name: BACKEND[name] for name in BACKEND if name != "vsid"}, "vsid None: there is no such"),
    "backends/six": (BACKEND | {"host": "fd00::1"}, "incompatible address families"),
    "backends/slow": (
        BACKEND | {"port": 9, "pulse": {"interval": "999h"}},
        "backends/slow is left out: check.interval",
    ),
    "backends/named": (BACKEND | {"pulse": {"type": "http", "args": {"host": "a.example"}}}, "'a.example' is a name"),
    "backends/twin": (BACKEND, "services/web/backends/twin is left out: address"),
    "backends/odd": (BACKEND | {"weight": "many"}, "weight: expected a whole number"),
    "backends/pulse": (BACKEND | {"pulse": "tcp"}, "pulse: expected an object"),
    "backends": (BACKEND, "neither services/NAME nor backends/NAME"),
    "anything": ({}, "neither services/NAME nor backends/NAME"),
}


@pytest.mark.parametrize("key", BAD)
def test_what_cannot_be_read_costs_only_itself(key: str) -> None:
    bad, told = BAD[key]
    documents, notes = read({"services/web": SERVICE, "backends/b1": BACKEND, key: bad})
    assert documents.keys() == {"services/web", "services/web/backends/b1"}
    assert len(notes) == 1 and told in notes[0] and "left out" in notes[0]


@pytest.mark.parametrize("value", [None, 5, "", "!", "é", base64.b64encode(b"\xff").decode(), [], {"a": 1}], ids=repr)
def test_a_value_that_consul_did_not_write_costs_only_itself(value: Any) -> None:
    documents, notes = convert(json.dumps([{"key": "services/web", "flags": 0, "value": value}]))
    assert not documents and "expected the base64 of an object in JSON" in str(notes[0])


@pytest.mark.parametrize("text", ["", "{}", "[", "[1]", '[{"value": ""}]', '[{"key": 1}]', "GORB"])
def test_what_is_no_export_is_refused(text: str) -> None:
    with pytest.raises(UnreadableInput, match="expected what `consul kv export PREFIX` prints"):
        convert(text)


@pytest.mark.parametrize("name", ["gorb.json", "gorb.txt"])
def test_an_export_is_known_by_its_beginning(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(exported({"services/web": SERVICE}))
    assert files.read(str(tmp_path / name), "auto") == ({"services/web": gorb.service(SERVICE, {})}, [])
