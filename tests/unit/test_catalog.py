"""Trees in, catalogs out: what is quarantined, what is kept, what is held."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.catalog.shrink import admit
from anycastlb.core.model import Catalog, Entry, Share, Tree

RANGES = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
WEB = {"vip": "192.0.2.10", "port": 80, "backends": {"web1": {"address": "10.1.0.1"}}}


def tree(index: int = 1, **documents: object) -> Tree:
    """A tree from keyword arguments: ``services__web`` is the key ``services/web``."""
    entries = {}
    for place, (name, value) in enumerate(documents.items()):
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        entries[name.replace("__", "/")] = Entry(raw, created=place + 1)
    return Tree(entries, index)


NOTHING = Catalog()


def parse(given: Tree, previous: Catalog = NOTHING) -> Catalog:
    return parse_catalog(given, previous, RANGES, ((100, 199),), PARAMS)


def only_service(catalog: Catalog):
    assert not catalog.problems, list(map(str, catalog.problems))
    (service,) = catalog.services
    return service


def test_the_document_of_the_contract() -> None:
    document = {
        "vip": "192.0.2.10", "port": 80, "protocol": "tcp",
        "scheduler": "mh", "scheduler_flags": ["mh-port", "mh-fallback"], "forward": "tunnel",
        "check": {"type": "http", "path": "/health", "expect": 200, "interval": "2s", "timeout": "1s",
                  "rise": 2, "fall": 3},
        "backends": {"web1": {"address": "10.1.0.1", "weight": 100}, "web2": {"address": "10.1.0.2", "port": 8080}},
        "announce": {"min_backends": 1}, "slow_start": "0s", "drain": "30s",
    }  # fmt: skip
    service = only_service(parse(tree(services__web=document)))
    assert service.vips == (ip_address("192.0.2.10"),)
    assert [(b.name, b.port, b.weight, b.check.port) for b in service.backends] == [
        ("web1", 80, 100, 80),
        ("web2", 8080, 100, 8080),
    ]
    assert service.backends[0].check.params.path == "/health"
    assert service.virtual.flags == {"mh-port", "mh-fallback"} and not service.virtual.one_packet


def test_numbers_and_numeric_strings_are_the_same() -> None:
    plain = only_service(parse(tree(services__web={**WEB, "check": {"type": "http", "expect": 200, "rise": 2}})))
    texts = only_service(
        parse(tree(services__web={**WEB, "port": "80", "check": {"type": "http", "expect": "200", "rise": "2"}}))
    )
    assert plain == texts


def test_defaults_lie_under_every_service() -> None:
    defaults = {"check": {"type": "http", "path": "/up", "interval": "5s"}, "drain": "1s"}
    web = {**WEB, "check": {"path": "/health"}}
    dns = {"vip": "192.0.2.53", "port": 53, "protocol": "udp", "check": {"type": "none"},
           "backends": {"d1": {"address": "10.1.0.9"}}}  # fmt: skip
    catalog = parse(tree(defaults=defaults, services__web=web, services__dns=dns))
    assert not catalog.problems
    by_name = {service.name: service for service in catalog.services}
    check = by_name["web"].backends[0].check
    assert (check.type, check.interval, check.params.path) == ("http", 5.0, "/health")
    assert by_name["dns"].backends[0].check.type == "none", "a check of another type replaces the default one"
    assert by_name["dns"].virtual.one_packet, "udp under mh is stateless"
    assert by_name["web"].drain == 1.0


def test_backends_have_keys_of_their_own_in_the_order_of_their_age() -> None:
    given = tree(
        services__web={**WEB, "backends": {"inline": {"address": "10.1.0.1"}}},
        services__web__backends__zeta={"address": "10.1.0.3"},
        services__web__backends__alpha={"address": "10.1.0.2"},
        services__web__backends__inline={"weight": 50},
    )
    service = only_service(parse(given))
    assert [(b.name, b.weight) for b in service.backends] == [("inline", 50), ("zeta", 100), ("alpha", 100)]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("web1", b"weight=10 port=8080", ("10.1.0.1", 8080, 10)),
        ("10.1.0.7", b"weight=10", ("10.1.0.7", 80, 10)),
        ("10.1.0.7:8080", b"weight=10", ("10.1.0.7", 8080, 10)),
        ("10.1.0.7:8080", b"", ("10.1.0.7", 8080, 100)),
        ("[2001:db8:1::7]:8080", b"weight=1", ("2001:db8:1::7", 8080, 1)),
        ("web9", b"address=10.1.0.9 drain=true", ("10.1.0.9", 80, 100)),
    ],
)
def test_the_plain_form_of_a_backend(name: str, value: bytes, expected: tuple) -> None:
    given = Tree({"services/web": Entry(json.dumps(WEB).encode()), f"services/web/backends/{name}": Entry(value, 5)})
    service = only_service(parse(given))
    (backend,) = [b for b in service.backends if b.name == name]
    assert (str(backend.address), backend.port, backend.weight) == expected


def test_what_the_kernel_would_call_the_same_is_the_same() -> None:
    named = only_service(parse(tree(services__web={**WEB, "scheduler": "sh", "scheduler_flags": ["sh-port"]})))
    numbered = only_service(parse(tree(services__web={**WEB, "scheduler": "sh", "scheduler_flags": "flag-2"})))
    assert named == numbered
    both = {**WEB, "vip": ["192.0.2.10", "2001:db8::10"], "persistence": {"netmask": "255.255.255.255"}}
    service = only_service(parse(tree(services__web=both)))
    assert [service.row(vip).persistence_prefix for vip in service.vips] == [0, 32]


def test_service_names_do_not_leak_into_each_other() -> None:
    catalog = parse(
        tree(
            services__web=WEB,
            services__web2={**WEB, "vip": "192.0.2.11", "backends": {}},
            services__web2__backends__b={"address": "10.1.0.8"},
        )
    )
    assert not catalog.problems
    assert [[b.name for b in s.backends] for s in catalog.services] == [["web1"], ["b"]]


BAD = {
    "not JSON": b"{",
    "not UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "a number": b"7",
    "nothing": b"",
    "deep": b"[" * 100_000,
    "noise": bytes(range(256)) * 4096,
    "a field twice": b'{"vip": "192.0.2.10", "vip": "192.0.2.11", "port": 80}',
    "NaN": b'{"vip": "192.0.2.10", "port": NaN}',
    "no vip": {"port": 80},
    "a vip outside": {**WEB, "vip": "198.51.100.1"},
    "a vip that is none": {**WEB, "vip": "fish"},
    "a number for a vip": {**WEB, "vip": 7},
    "no vips": {**WEB, "vip": []},
    "an object for a vip": {**WEB, "vip": {"a": 1}},
    "an unknown field": {**WEB, "prot": "tcp"},
    "an unknown scheduler": {**WEB, "scheduler": "fastest"},
    "a flag of another scheduler": {**WEB, "scheduler_flags": ["sh-port"]},
    "port 0 without persistence": {**WEB, "port": 0},
    "a huge port": {**WEB, "port": 65536},
    "a boolean port": {**WEB, "port": True},
    "a fraction of a port": {**WEB, "port": 80.5},
    "a number where a duration belongs": {**WEB, "drain": 30},
    "min_backends 0%..": {**WEB, "announce": {"min_backends": "150%"}},
    "min_backends 0": {**WEB, "announce": {"min_backends": 0}},
    "min_backends of no weight": {**WEB, "announce": {"min_backends": "weight 0"}},
    "a bad community": {**WEB, "announce": {"communities": ["65001:70000"]}},
    "a community that is a command": {**WEB, "announce": {"communities": ["no-export ] graceful-shutdown"]}},
    "a bad backend": {**WEB, "backends": {"b": {"address": "10.1.0.1", "weight": -1}}},
    "two equal backends": {**WEB, "backends": {"a": {"address": "10.1.0.1"}, "b": {"address": "10.1.0.1"}}},
    "a list of backends": {**WEB, "backends": ["10.1.0.1"]},
    "an unknown check": {**WEB, "check": {"type": "telepathy"}},
    "a check that is no object": {**WEB, "check": "tcp"},
    "a check parameter of another type": {**WEB, "check": {"type": "tcp", "path": "/"}},
    "a header with a line break": {**WEB, "check": {"type": "http", "headers": {"a": "b\r\nc: d"}}},
    "a mark outside": {"vip": "192.0.2.10", "fwmark": 7},
    "a mark and a port": {"vip": "192.0.2.10", "fwmark": 100, "port": 80},
    "nat to another family": {**WEB, "vip": "2001:db8::1", "forward": "nat"},
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_document_is_quarantined_and_its_last_good_version_kept(name: str) -> None:
    other = {**WEB, "vip": "192.0.2.99"}
    good = parse(tree(services__web=WEB, services__other=other))
    bad = parse(tree(2, services__web=BAD[name], services__other=other), good)
    assert bad.services == good.services, "the service keeps its last good version, the other is untouched"
    assert bad.problems and all(problem.key == "services/web" and problem.expected for problem in bad.problems)
    assert all(len(str(problem)) < 600 for problem in bad.problems), "noise is not repeated in full"
    again = parse(tree(3, services__web=BAD[name], services__other=other), bad)
    assert again.services == good.services and again.problems == bad.problems, "and it stays so"
    fresh = parse(tree(services__web=BAD[name], services__other=other))
    assert [service.name for service in fresh.services] == ["other"]
    restarted = parse(Tree(bad.good), Catalog())
    assert restarted.services == good.services and not restarted.problems, "what is kept on disk is what was good"


def test_a_problem_says_where_and_what_was_expected() -> None:
    catalog = parse(tree(services__web={**WEB, "backends": {"web1": {"address": "10.1.0.1", "weight": "heavy"}}}))
    (problem,) = catalog.problems
    assert str(problem) == "services/web: backends.web1.weight: expected a whole number, not 'heavy'"


def test_a_bad_backend_key_keeps_its_own_last_good_value() -> None:
    good = parse(tree(services__web=WEB, services__web__backends__b={"address": "10.1.0.2", "weight": 10}))
    bad = parse(tree(services__web={**WEB, "drain": "7s"}, services__web__backends__b={"address": "x"}), good)
    (service,) = bad.services
    assert service.drain == 7.0, "the rest of the service goes on"
    assert [(b.name, b.weight) for b in service.backends] == [("web1", 100), ("b", 10)]
    assert [problem.key for problem in bad.problems] == ["services/web/backends/b"]
    fresh = parse(tree(services__web=WEB, services__web__backends__b={"address": "x"}))
    assert [b.name for b in fresh.services[0].backends] == ["web1"]


def test_bad_defaults_leave_the_old_ones_in_force() -> None:
    good = parse(tree(defaults={"drain": "1s"}, services__web=WEB))
    bad = parse(tree(defaults=b"{", services__web=WEB), good)
    assert bad.services == good.services and [problem.key for problem in bad.problems] == ["defaults"]


def test_two_services_cannot_claim_one_vip_port_and_protocol() -> None:
    web = parse(tree(services__web=WEB))
    both = parse(tree(services__aaa=WEB, services__web=WEB), web)
    assert [service.name for service in both.services] == ["web"], "who holds it keeps it"
    (problem,) = both.problems
    assert "belongs to service web" in problem.expected and problem.key == "services/aaa"
    fresh = parse(tree(services__web=WEB, services__aaa=WEB))
    assert [service.name for service in fresh.services] == ["web"], "else the older key"
    udp = parse(tree(services__web=WEB, services__aaa={**WEB, "protocol": "udp"}))
    assert len(udp.services) == 2 and not udp.problems


def test_a_service_edited_into_anothers_claim_keeps_its_own() -> None:
    other = {**WEB, "vip": "192.0.2.11"}
    good = parse(tree(services__web=WEB, services__api=other))
    edited = parse(tree(services__web=WEB, services__api=WEB), good)
    assert edited.services == good.services and len(edited.problems) == 1


def test_nodes_and_folders_are_ignored_and_unknown_keys_named() -> None:
    catalog = parse(
        Tree({"nodes/lb1": Entry(b"{}"), "services/": Entry(b""), "drain/lb1": Entry(b""), "service/web": Entry(b"{}")})
    )
    assert catalog.drained == {"lb1"}
    assert [problem.key for problem in catalog.problems] == ["service/web"]


def test_an_unchanged_service_is_the_same_object() -> None:
    first = parse(tree(services__web=WEB))
    assert parse(tree(2, services__web=WEB), first).services[0] is first.services[0]


def test_toml_and_yaml_say_the_same() -> None:
    toml = b'vip = "192.0.2.10"\nport = 80\n[backends.web1]\naddress = "10.1.0.1"\n'
    yaml = b"vip: 192.0.2.10\nport: 80\nbackends:\n  web1: {address: 10.1.0.1}\n"
    json_service = only_service(parse(tree(services__web=WEB)))
    for text, form in ((toml, "toml"), (yaml, "yaml")):
        entry = Entry(text, format=form, origin=f"services/web.{form}")
        assert only_service(parse(Tree({"services/web": entry}))) == json_service
    broken = parse(Tree({"services/web": Entry(b"vip: [", format="yaml", origin="services/web.yaml")}))
    assert broken.problems[0].key == "services/web.yaml"


def catalog_of(*numbers: int) -> Catalog:
    documents = {f"services__s{n}": {**WEB, "vip": f"192.0.2.{n}"} for n in numbers}
    return parse(tree(**documents))


def test_a_shrunken_catalog_is_held_until_it_persists() -> None:
    full, less, half = catalog_of(1, 2, 3, 4), catalog_of(1), catalog_of(1, 2)
    limit = Share(percent=50)
    assert admit(full, half, limit, 60, None, 0) is None, "half is not more than half"
    held = admit(full, less, limit, 60, None, 100.0)
    assert held and len(held.lost) == 3 and held.of == 4 and held.until == 160.0
    again = admit(full, less, limit, 60, held, 130.0)
    assert again and again.since == 100.0, "the clock runs from the first look"
    assert admit(full, less, limit, 60, again, 160.0) is None, "it persisted"
    assert admit(full, less, limit, None, held, 1e9) is not None, "never means never"
    assert admit(full, full, limit, 60, held, 130.0) is None


def test_a_loss_is_believed_at_its_own_age() -> None:
    full, limit = catalog_of(*range(1, 11)), Share(percent=50)
    first = admit(full, catalog_of(7, 8, 9, 10), limit, 300, None, 0)
    assert first and first.until == 300
    empty = admit(full, Catalog(), limit, 300, first, 299)
    assert empty and (empty.since, empty.until) == (299, 599), "the other four were lost only now"
    fewer = admit(full, catalog_of(4), limit, 300, empty, 400)
    assert fewer and fewer.since == 299, "all that it lost had been lost by then"
    assert admit(full, catalog_of(4), limit, 300, fewer, 599) is None


def test_vips_added_meanwhile_make_a_loss_no_smaller() -> None:
    held = admit(catalog_of(1, 2, 3, 4, 5), catalog_of(4, 5), Share(percent=50), 60, None, 0)
    more = admit(catalog_of(1, 2, 3, 4, 5, 6, 7), catalog_of(4, 5, 6, 7), Share(percent=50), 60, held, 1)
    assert more and more.of == 5


def test_an_empty_catalog_is_always_suspicious() -> None:
    assert admit(catalog_of(1), Catalog(), Share(percent=100), 60, None, 0)
    assert admit(Catalog(), Catalog(), Share(percent=0), 60, None, 0) is None


@pytest.mark.parametrize("count", [1, 3])
def test_a_count_of_lost_vips_can_be_allowed(count: int) -> None:
    held = admit(catalog_of(1, 2, 3, 4), catalog_of(4), Share(count=count), 60, None, 0)
    assert (held is None) == (count >= 3)


WORDS = [
    ("services/w b", b"{}", "expected names of 1 to 128 letters, digits and . _ : [ ] -"),
    ("services/web/backends/a b", b"{}", "expected names of 1 to 128 letters"),
    ("drain/l b", b"", "expected names of 1 to 128 letters"),
    ("service/web", b"{}", "unknown key; expected services/<service>"),
    ("services/web/backend/b", b"{}", "unknown key; expected services/<service>"),
    ("services/web", b" ", "expected a JSON object: the value is empty"),
    ("services/web", b"\xef\xbb\xbf{}", "expected a JSON object: it begins with a byte order mark; save it as UTF-8"),
    ("services/web", b'{"vip":"192.0.2.1","port":80,"backends": {"b": 5}}', "backends.b: expected an object, not 5"),
    ("services/web", b'{"vip":"192.0.2.1","port":80,"dns": 5}', "dns: expected an object, not 5"),
    ("services/web", b'{"vip":"192.0.2.1","port":80,"slow_start": "tcp"}', "slow_start: expected 'history', not 'tcp'"),
    ("services/web", b'{"vip":"192.0.2.1","port":80,"announce": {"communities": [3900070]}}',
     "announce.communities.0: expected text in quotes, not 3900070"),
    ("services/web", b'{"vip":"192.0.2.1","port":80,"announce": {"communities": 7}}', "expected a list, not 7"),
    ("services/web", b'{"vip":"192.0.2.1","port":80,"one_packet": "maybe"}', "expected true or false, not 'maybe'"),
]  # fmt: skip
"""(key, value, words that an operator can do something with)."""


@pytest.mark.parametrize(("key", "value", "words"), WORDS, ids=[words[:40] for _, _, words in WORDS])
def test_a_problem_is_told_in_an_operators_words(key: str, value: bytes, words: str) -> None:
    problems = parse_catalog(Tree({key: Entry(value)}, 1), Catalog(), RANGES, (), PARAMS).problems
    told = "\n".join(map(str, problems))
    assert words in told
    assert not [
        private for private in ("Document", "functools", "literal[", "expected expected", "0x") if private in told
    ]
