"""What one value may be: the same number, time or address for whoever reads it, or a problem."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.model import Catalog, Entry, Service, Tree


def read(document: dict[str, Any]) -> Catalog:
    whole = {"vip": "192.0.2.1", "port": 80, "backends": {"b": {"address": "10.1.0.1"}}, **document}
    return parse_catalog(
        Tree({"services/web": Entry(json.dumps(whole).encode())}), Catalog(), ANYWHERE, ANY_MARK, PARAMS
    )


def backend(**fields: Any) -> dict[str, Any]:
    return {"backends": {"b": {"address": "10.1.0.1", **fields}}}


def damping(**fields: Any) -> dict[str, Any]:
    return {"announce": {"damping": fields}}


REFUSED = {
    "nobody's address in IPv6 clothes, which is the loopback": backend(address="::ffff:0.0.0.0"),
    "a group's address in IPv6 clothes": backend(address="::ffff:224.0.0.1"),
    "everybody's address": backend(address="255.255.255.255"),
    "everybody's address in IPv6 clothes": backend(address="::ffff:255.255.255.255"),
    "a zone": backend(address="fe80::1%eth0"),
    "a VIP in IPv6 clothes": {"vip": "::ffff:192.0.2.1"},
    "everybody's VIP": {"vip": "255.255.255.255"},
    "no VIP": {"vip": []},
    "an Arabic digit": backend(weight="٨"),
    "wide digits": backend(weight="８０"),
    "a true weight": backend(weight=True),
    "a signed weight": backend(weight="+5"),
    "a share in Arabic digits": {"max_failed": "٥%"},
    "a duration in Arabic digits": {"drain": "٣s"},
    "a community in Arabic digits": {"announce": {"communities": ["٦٥:١"]}},
    "a true penalty": damping(penalty=True),
    "a penalty with an underscore": damping(penalty="1_000"),
    "no number at all": damping(penalty="nan"),
    "a suppression in Arabic digits": damping(suppress="٢٠٠٠"),
    "a netmask of many digits": {"persistence": {"netmask": "1" * 5000 + ".0.0.0"}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_what_was_expected(name: str) -> None:
    result = read(REFUSED[name])
    assert not result.services
    for problem in result.problems:
        assert problem.expected.startswith("expected ") and "fault of anycastlb" not in problem.expected
        assert "digits" not in problem.expected and "validation" not in problem.expected, (
            "Python's and pydantic's words"
        )


@pytest.mark.parametrize(
    ("document", "is_read"),
    [
        (backend(weight=" 7 "), lambda web: web.backends[0].weight == 7),
        (backend(weight=1e2), lambda web: web.backends[0].weight == 100),
        (damping(penalty="1e3"), lambda web: web.announce.damping.penalty == 1000.0),
        (damping(suppress=" 2500 "), lambda web: web.announce.damping.suppress == 2500.0),
        ({"drain": "1m30s"}, lambda web: web.drain == 90.0),
        ({"vip": ["192.0.2.1", "192.0.2.1"]}, lambda web: len(web.vips) == 1),
        (backend(address="::ffff:10.1.0.1"), lambda web: str(web.backends[0].address.ipv4_mapped) == "10.1.0.1"),
    ],
)
def test_it_is_read_as_it_is_meant(document: dict[str, Any], is_read: Any) -> None:
    result = read(document)
    assert not result.problems
    service: Service = result.services[0]
    assert is_read(service)


def test_what_a_document_asks_of_the_kernel_is_bounded_by_its_product() -> None:
    """Each of the two lists is within the bounds of a document; together they were 12 million destinations."""
    vips = [f"192.0.{n // 250}.{n % 250}" for n in range(1000)]
    backends = {f"b{n}": {"address": f"10.1.{n // 250}.{n % 250 + 1}"} for n in range(101)}
    [problem] = read({"vip": vips, "backends": backends}).problems
    assert problem.expected == "expected at most 100000 destinations (VIPs times backends), not 101000"
    assert not read({"vip": vips[:990], "backends": backends}).problems


def test_a_backend_that_serves_none_of_many_vips_is_one_problem() -> None:
    vips = [f"2001:db8::{n:x}" for n in range(1, 1001)]
    backends = {f"b{n}": {"address": f"10.1.0.{n + 1}"} for n in range(100)}
    result = read({"vip": vips, "backends": backends, "forward": "dr"})
    assert len(result.problems) == 51, "50 of them, and that there are more"


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        (
            "services/web",
            b"vip: 192.0.2.1",
            "expected a JSON object: it begins with 'vip: 192.0', and an object in JSON",
        ),
        ("services/web", b"// no JSON\n{}", "expected a JSON object: it begins with '// no JSON'"),
        ("services/web", b"\0", "expected a JSON object: it begins with"),
        ("services/web", b'{"vip": "\xe9"}', "expected text in UTF-8; byte 9 is none"),
        ("services/web/backends/c", b"address=10.1.0.2 address=10.1.0.3", "expected each field once"),
        ("services/web/backends/c", b"address=10.1.0.2 drain=perhaps", "expected true or false, not 'perhaps'"),
    ],
)
def test_a_value_that_cannot_be_read_is_told_in_an_operators_words(key: str, text: bytes, told: str) -> None:
    web = Entry(json.dumps({"vip": "192.0.2.1", "port": 80, "backends": {"b": {"address": "10.1.0.1"}}}).encode())
    tree = Tree({"services/web": web, key: Entry(text)})
    [problem] = parse_catalog(tree, Catalog(), ANYWHERE, ANY_MARK, PARAMS).problems
    assert problem.expected.startswith(told)


@pytest.mark.parametrize(
    "document",
    [
        {"check": {"type": "http", "path": "health"}},
        {"check": {"type": "http", "headers": {"a b": "1"}}},
        {"check": {"type": "https", "ca_file": "ca.pem"}},
        {"dns": "a b"},
        {"dns": {"srv": "http"}},
        {"consul": "a_b"},
        {"backends_from": {"dns": {"name": "-"}}},
    ],
)
def test_no_regular_expression_is_shown_to_an_operator(document: dict[str, Any]) -> None:
    assert read(document).problems
    for problem in read(document).problems:
        assert "pattern" not in problem.expected and "^" not in problem.expected
