"""KgLb's configuration to our catalog: a corpus of files, each with what becomes of it, and what KgLb would do beside.

Beside ``kglb/NAME.json`` lies ``NAME.expected``: the documents and the notes. ``ANYCASTLB_GOLDEN=write`` writes them
anew.
"""

from __future__ import annotations

import copy
import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from anycastlb.adapters.checks import PARAMS
from anycastlb.cli import files, formats, main
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.decision.decide import adopt, decide
from anycastlb.core.fields import share
from anycastlb.core.importers import UnreadableInput
from anycastlb.core.importers.kglb import convert
from anycastlb.core.model import MARKS, Catalog, CheckState, Entry, Feed, Inputs, Policy, Result, State, Tree
from anycastlb.engine.node import checks
from tests.support.converted import desired

CORPUS = sorted((Path(__file__).parent / "kglb").glob("*.json"))
BALANCER: dict[str, Any] = {
    "name": "web",
    "setup_name": "edge",
    "lb_service": {"ipvs_service": {"tcp_attributes": {"address": {"ipv4": "192.0.2.10"}, "port": 80}}},
    "upstream_routing": {"forward_method": "TUNNEL"},
    "upstream_discovery": {"port": 80, "static_attributes": {"hosts": ["10.1.0.1", "10.1.0.2", "10.1.0.3"]}},
    "upstream_checker": {"checker": {"http": {"scheme": "http", "uri": "/", "codes": [200], "headers": {"Host": "a"}}}},
    "dynamic_routing": {
        "announce_limit_ratio": 0.5,
        "bgp_attributes": {
            "local_asn": 65001, "peer_asn": 65000, "community": "65001:100", "prefix": {"ipv4": "192.0.2.10"},
            "prefixlen": 32,
        },
    },
}  # fmt: skip
OTHER = BALANCER | {
    "name": "other",
    "lb_service": {"ipvs_service": {"tcp_attributes": {"address": {"ipv4": "192.0.2.11"}, "port": 80}}},
}


def text_of(*balancers: Any) -> str:
    return json.dumps({"balancers": balancers})


def catalog_of(documents: dict[str, Any]) -> Catalog:
    """What a node has of the documents. No problem may be among them."""
    tree = Tree({key: Entry(json.dumps(value).encode()) for key, value in documents.items()})
    catalog = parse_catalog(tree, Catalog(), ANYWHERE, ANY_MARK, PARAMS)
    assert catalog.problems == () and catalog.good.keys() == documents.keys()
    return catalog


def of_http(**params: Any) -> tuple[dict[str, Any], list[str]]:
    """The check that becomes of a checker of type http, and what is told of it."""
    balancer = BALANCER | {"upstream_checker": {"checker": {"http": {"scheme": "http", "codes": [200]} | params}}}
    documents, notes = convert(text_of(balancer))
    catalog_of(documents)
    return documents["services/web"]["check"], [note.what for note in notes if "balancers[" in note.what]


@pytest.mark.parametrize("file", CORPUS, ids=lambda path: path.stem)
def test_a_file_becomes_what_lies_beside_it(file: Path) -> None:
    documents, notes = formats.read(file.read_text())
    catalog_of(documents)
    lines = [f"{key} {json.dumps(document)}" for key, document in documents.items()]
    made = [*lines, *(f"note: {note}" for note in notes)]
    expected = file.with_suffix(".expected")
    if os.environ.get("ANYCASTLB_GOLDEN") == "write":
        expected.write_text("".join(f"{line}\n" for line in made))
    assert made == expected.read_text().splitlines()


@pytest.mark.parametrize("kind", ["auto", "kglb"])
def test_the_exit_code_tells_whether_something_was_left_out(kind: str, tmp_path: Path) -> None:
    for balancers, code in (((), 0), ((BALANCER,), 2)):
        (tmp_path / "kglb.json").write_text(text_of(*balancers))
        documents, notes = formats.read(text_of(*balancers), "kglb")
        done = CliRunner().invoke(main, ["convert", "--from", kind, str(tmp_path / "kglb.json")])
        assert (done.exit_code, json.loads(done.stdout)) == (code, {"catalog": documents})
        assert done.stderr.splitlines() == [f"note: {note}" for note in notes]


@pytest.mark.parametrize("name", ["kglb.json", "kglb.conf"])
def test_a_file_is_known_by_its_beginning_whatever_its_name(name: str, tmp_path: Path) -> None:
    """As ``import`` and ``plan`` read it, too."""
    file = tmp_path / name
    file.write_text(text_of(BALANCER))
    documents, notes = files.read(str(file), "auto")
    assert list(documents) == ["services/web"] and notes


# ---------------------------------------------------------------- as KgLb does it


ENUMS = {"scheduler": ("RR", "WRR"), "forward_method": ("TUNNEL", "MASQ")}
IN_THE_KERNEL = {"RR": "rr", "WRR": "wrr", "TUNNEL": "tunnel", "MASQ": "nat"}
BITS = {"ONEPACKET": 4, "SH_FALLBACK": 8, "SH_PORT": 16, 3: 4, 7: 8, 8: 16}
OUR_BITS = {"flag-1": 8, "flag-2": 16}


def given(message: Any, name: str) -> Any:
    """A field of a message in either spelling; 0 if it is not there."""
    first, *rest = name.split("_")
    message = message or {}
    found = message.get(name, message.get(first + "".join(map(str.capitalize, rest)))) or 0
    return ENUMS[name][found] if name in ENUMS and isinstance(found, int) else found


def rows_of_kglb(config: Any) -> set[tuple[Any, ...]]:
    """The destinations that KgLb puts into the kernel while all reals are up, each with its service."""
    rows = set()
    for balancer in config["balancers"]:
        ipvs = given(given(balancer, "lb_service"), "ipvs_service")
        protocol = "udp" if given(ipvs, "udp_attributes") else "tcp"
        target, found = given(ipvs, f"{protocol}_attributes"), given(balancer, "upstream_discovery")
        service = (protocol, *given(target, "address").values(), int(given(target, "port")))
        virtual = IN_THE_KERNEL[given(ipvs, "scheduler")], sum(BITS.get(flag, 0) for flag in given(ipvs, "flags") or ())
        method = IN_THE_KERNEL[given(given(balancer, "upstream_routing"), "forward_method")]
        for host in given(given(found, "static_attributes"), "hosts"):
            weight = int(given(balancer, "weight_up") or 1000)
            rows.add((*service, *virtual, host, int(given(found, "port")), weight, method))
    return rows


@pytest.mark.parametrize("name", [
    "as-the-project-shows-it", "spellings-of-proto3", "defaults-of-everything", "through-ipvs",
    "one-vip-several-balancers", "checks-of-http", "checks-otherwise", "bgp",
])  # fmt: skip
def test_the_kernel_gets_what_kglb_puts_there(name: str) -> None:
    text = (Path(__file__).parent / "kglb" / f"{name}.json").read_text()
    table = desired(formats.read(text)[0], State())
    ours = set()
    for key, row in table.destinations.items():
        if key.service.protocol == "fwmark":
            continue  # for a probe; KgLb's have other marks
        virtual = table.services[key.service]
        bits = sum(OUR_BITS[flag] for flag in virtual.flags) + 4 * virtual.one_packet
        service = key.service.protocol, str(key.service.address), key.service.port, virtual.scheduler, bits
        ours.add((*service, str(key.address), key.port, row.weight, row.forward))
        assert not virtual.persistence
    assert ours == rows_of_kglb(json.loads(text))


def single(number: float) -> float:
    """As a float of 32 bits, which KgLb computes with."""
    return float(struct.unpack("f", struct.pack("f", number))[0])


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.25, 0.33, 0.333333, 0.33333334, 0.5, 0.6666667, 0.7, 0.9, 0.99, 1.0])
def test_a_route_needs_as_many_reals_as_under_kglb(ratio: float) -> None:
    documents, _ = convert(text_of(BALANCER | {"dynamic_routing": {"announce_limit_ratio": ratio}}))
    least = share(documents["services/web"]["announce"]["min_backends"])
    for reals in range(1, 200):
        needed = next(up for up in range(1, reals + 1) if single(single(up) / single(reals)) >= single(ratio))
        assert least.of(reals) == needed, (ratio, reals)


@pytest.mark.parametrize(("up", "announced", "used"), [(3, True, 3), (2, True, 2), (1, False, 1), (0, True, 3)])
def test_when_all_reals_fail_the_route_stays_as_under_kglb(up: int, announced: bool, used: int) -> None:
    documents, notes = convert(text_of(BALANCER))
    assert any("take it out of announce" in str(note) for note in notes)
    catalog = catalog_of(documents)
    health = {
        check: CheckState(up=place < up, since=0.0, last=Result(place < up, "", 0.0, 0.0))
        for place, check in enumerate(checks(catalog))
    }
    feed = Feed(connected=True, loaded=True, since=0.0)
    inputs = Inputs(Policy(node="lb1", marks=MARKS), catalog=catalog, feed=feed, health=health)
    memory = adopt(State(), 0.0, MARKS)
    for now in range(60):
        decision = decide(inputs, memory, float(now))
        memory = decision.memory
    assert len(decision.desired.routes) == announced
    assert sum(row.weight > 0 for row in decision.desired.destinations.values()) == used


@pytest.mark.parametrize(
    ("uri", "sent"),
    [
        ("", "/"),
        ("/", "/"),
        ("health", "/health"),
        ("//x", "//x"),
        ("*", "/*"),
        ("/a b", "/a%20b"),
        ("/$&+,:;=@-_.~", "/$&+,:;=@-_.~"),
        ("/!*'()[]\"", "/%21%2A%27%28%29%5B%5D%22"),
        ("/%20", "/%2520"),
        ("/é", "/%C3%A9"),
    ],
)
def test_a_path_is_asked_for_as_go_writes_it(uri: str, sent: str) -> None:
    """``url.URL{Path: uri}.String()`` of Go."""
    check, notes = of_http(uri=uri)
    assert (check["path"], notes) == (sent, [])


def test_what_kglb_calls_a_query_is_none() -> None:
    check, notes = of_http(uri="/health?deep=1")
    assert check["path"] == "/health%3Fdeep=1" and "KgLb sent the ? as %3F" in notes[0]


def test_tls_is_not_verified_and_asks_for_no_name() -> None:
    check, _ = of_http(scheme="https", headers={"hOST": "shop.example"})
    assert (check["type"], check["verify"], check["host"], check["sni"]) == (
        "https",
        False,
        "shop.example",
        "192.0.2.10",
    )
    assert check["headers"] == {"User-Agent": "KgLB healthchecker/1.0"}


def test_a_header_cannot_ask_for_a_secret_of_the_node() -> None:
    check, notes = of_http(headers={"X-Key": "${secret:shop}", "X-Other": "1"})
    assert check["headers"] == {"X-Other": "1", "User-Agent": "KgLB healthchecker/1.0"}
    assert "headers.X-Key: it would stand for a secret" in notes[0]


# ---------------------------------------------------------------- what is no configuration


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "{}", "KgLb", '{"balancers": {}}', '{"balancers": null}', '{"balancers": [], "balancers": []}',
        '{"balancers": [' + "[" * 100 + "]" * 100 + "]}", '{"balancers": [1e999]}', '\ufeff{"balancers": []}',
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(UnreadableInput, match="expected the file of `kglbd -config`"):
        convert(text)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside of a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*path, key)
        yield from places(one, (*path, key))


WRONG = (
    None, True, -1, 0.5, 2**32, 10**18, "", "x", "1e400", "${secret:x}", "\x00", [], [[]], {}, {"a": {}}, "é" * 3000,
)  # fmt: skip


@pytest.mark.parametrize("path", list(places(BALANCER)), ids=lambda path: ".".join(map(str, path)))
def test_a_garbled_balancer_costs_only_itself(path: tuple[Any, ...]) -> None:
    """Wherever something else stands than what should: the other one is carried over, and what is made is good."""
    alone, _ = formats.read(text_of(OTHER), "kglb")
    for wrong in WRONG:
        garbled = copy.deepcopy(BALANCER)
        inside: Any = garbled
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = wrong
        documents, notes = formats.read(text_of(garbled, OTHER), "kglb")
        catalog_of(documents)
        assert documents["services/other"] == alone["services/other"], wrong
        assert len(documents) == 2 or any("left out" in note for note in notes), wrong
        assert all(len(note) < 1000 and note.isprintable() for note in notes), wrong


@pytest.mark.parametrize("path", [path for path in places(BALANCER) if path[-1] != 0], ids=lambda path: str(path[-1]))
def test_an_unknown_field_is_named_wherever_it_is(path: tuple[Any, ...]) -> None:
    changed = copy.deepcopy(BALANCER)
    inside: Any = changed
    for key in path[:-1]:
        inside = inside[key]
    if not isinstance(inside, dict) or path[-2:-1] == ("headers",):
        return
    inside["frob"] = 1
    _, notes = convert(text_of(changed))
    assert any(f"{'.'.join((*path[:-1], 'frob'))}: no field of KgLb's; left out" in str(note) for note in notes)


def test_long_lists_take_time_in_proportion() -> None:
    """Codes that were looked for in each other took ten seconds of the processor here, and hours in a larger file."""
    many = 60_000
    checker = {"http": {"scheme": "http", "codes": list(range(many))}}
    balancer = BALANCER | {f"x{n}": n for n in range(many)} | {"upstream_checker": {"checker": checker}}
    balancer["upstream_discovery"] = {"port": 80, "static_attributes": {"hosts": ["10.1.0.1", "a.example"] * many}}
    balancer["lb_service"] = copy.deepcopy(BALANCER["lb_service"])
    balancer["lb_service"]["ipvs_service"]["flags"] = ["SCHED1"] * many
    began = time.process_time()
    documents, notes = convert(text_of(balancer))
    assert time.process_time() - began < 8
    assert len(documents["services/web"]["check"]["expect"]) == 500
    assert len(notes) == many + 6, "the same is told once"
