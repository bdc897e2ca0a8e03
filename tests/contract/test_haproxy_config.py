"""The rendered configuration is what both HAProxies take without a word, and no text of a document gets into it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.haproxy.config import (
    ALGORITHMS,
    certificate_list,
    description,
    digest_of,
    offers,
    render,
    render_static,
    with_servers,
    without_servers,
)
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.names import UnsafeName
from anycastlb.core.model import (
    Balancing,
    Gateway,
    HttpConfig,
    HttpLimits,
    HttpServer,
    HttpServerKey,
    MapEntry,
    Retry,
    Section,
    Tls,
)
from tests.fuzz import haproxy as fuzz
from tests.support.authority import Authority
from tests.support.haproxy import LOOPBACK, RELEASES, config, gateway, installation, refusal, section, write_empty_maps

FUZZED = 12
"""Configurations for each release; each costs HAProxy a start."""
HOSTILE = [
    '"',
    "'",
    "\\",
    "#",
    "%[src]",
    "\n  daemon",
    " ",
    ";",
    "$HOME",
    "(",
    ")",
    ",",
    "{",
    "}",
    "\0",
    "é",
    "a b",
    "",
]
EVERYTHING = config(
    [
        replace(gateway(8080, "plain"), forwarded_for="append", limits=HttpLimits(10, 0.5, 7, 4096)),
        replace(gateway(8443, "tls_[x]"), vips=(LOOPBACK, ip_address("::1")), tls=Tls(("first", "second"), "1.3")),
    ],
    [
        *(section(f"pool-{place}", how, cookie="SRV") for place, how in enumerate((*ALGORITHMS, "hdr(x-user)"))),
        section("never", retry=Retry(0, ())),
        section("often", retry=Retry(5, ("conn-failure", "503"))),
    ],
    ["p", "m", "h.user-agent", "q.page", "c", "cs", "cc.uid"],
    request_headers=("x-a", "host"),
    response_headers=("strict-transport-security",),
)
SERVERS = {
    HttpServerKey("pool-0", "one"): HttpServer(LOOPBACK, 80, 10),
    HttpServerKey("pool-0", "two"): HttpServer(ip_address("2001:db8::1"), 8080, 256, "drain", 100),
    HttpServerKey("pool-1", "a.b:c-d"): HttpServer(LOOPBACK, 1, 0, "maint"),
    HttpServerKey("unknown", "one"): HttpServer(LOOPBACK, 80, 10),
}


@pytest.fixture(params=RELEASES)
def files(request: pytest.FixtureRequest, require: Callable[[str], str], tmp_path: Path) -> Installation:
    place = installation(tmp_path, require(request.param))
    write_empty_maps(place)
    authority = Authority(place.certificates)
    for name in ("first", "second"):
        authority.issue(f"{name}.example").rename(place.certificate(name))
    for one in EVERYTHING.gateways[1:]:
        place.certificate_list(one.name).write_text(certificate_list(["first", "second"], place))
    return place


def test_both_haproxies_take_it(files: Installation) -> None:
    text = render(EVERYTHING, "0123abcd", SERVERS, files)
    files.config.write_text(text)
    assert refusal(files, files.config) == ""
    assert "server one 127.0.0.1:80 weight 10\n" in text
    assert "server two [2001:db8::1]:8080 weight 0 maxconn 100\n" in text
    assert "server a.b:c-d 127.0.0.1:1 weight 0 disabled\n" in text
    assert "unknown" not in text


def test_a_configuration_of_nothing_is_one(files: Installation) -> None:
    files.config.write_text(render(config([], []), "none", {}, files))
    assert refusal(files, files.config) == ""


def test_servers_can_be_taken_out_and_put_in_again(tmp_path: Path) -> None:
    files = installation(tmp_path, "/nowhere")
    static = render_static(EVERYTHING, "0123abcd", files)
    assert without_servers(with_servers(static, SERVERS)) == static


def test_a_file_says_what_entries_may_lead_to(tmp_path: Path) -> None:
    files = installation(tmp_path, "/nowhere")
    found = offers(render_static(EVERYTHING, "0123abcd", files))
    assert found.sections == {section.name for section in EVERYTHING.sections}
    assert found.subjects == {*EVERYTHING.subjects}
    assert found.headers == {
        ("request", "x-a"), ("request", "host"), ("response", "strict-transport-security")
    }  # fmt: skip


def test_a_digest_counts_only_as_it_is_rendered_today(tmp_path: Path) -> None:
    files = installation(tmp_path, "/nowhere")
    said = description("0123abcd", files)
    assert digest_of(said, files) == "0123abcd"
    assert digest_of(said, replace(files, threads=7)) == "0123abcd of another version"
    assert digest_of("web server of accounting", files) == digest_of("", files) == "unknown"


def test_nothing_of_a_document_gets_into_it(files: Installation) -> None:
    """R25. What is not refused, HAProxy takes, and it has as many lines as one of harmless names."""
    dice = random.Random(2506)
    refused = 0
    for _ in range(FUZZED * 4):
        wild = _wild(dice)
        try:
            text = render(wild, "0123abcd", {HttpServerKey("b", _text(dice, 0.2)): HttpServer(LOOPBACK, 80, 1)}, files)
        except UnsafeName:
            refused += 1
            continue
        files.config.write_text(text)
        assert refusal(files, files.config) == "", wild
        tame = render(_tame(wild), "0123abcd", {HttpServerKey("b", "s"): HttpServer(LOOPBACK, 80, 1)}, files)
        assert len(text.splitlines()) == len(tame.splitlines())
    assert FUZZED < refused < FUZZED * 4 - FUZZED // 2


@pytest.mark.parametrize("release", RELEASES)
def test_what_the_catalog_takes_haproxy_takes(release: str, require: Callable[[str], str], tmp_path: Path) -> None:
    """R1; ``python -m tests.fuzz.haproxy`` tries as many documents as there is time for."""
    files, batch = fuzz.place(tmp_path, require(release)), fuzz.decided(fuzz.drawn(1, 0))
    assert len(batch.documents) // 2 < batch.accepted < len(batch.documents)
    assert fuzz.objections(batch.desired, files) == ""
    key, site = next(iter(batch.desired.http_sites.items()))
    sites = {**batch.desired.http_sites, key: replace(site, entries=(*site.entries, MapEntry("re0", "(", "1")))}
    assert "regex '('" in fuzz.objections(replace(batch.desired, http_sites=sites), files), "it looks at the entries"


def _text(dice: random.Random, hostile: float) -> str:
    word = "".join(dice.choice("abcXYZ019.-") for _ in range(dice.randint(1, 9))).strip(".-") or "w"
    if dice.random() > hostile:
        return word
    place = dice.randint(0, len(word))
    return word[:place] + dice.choice(HOSTILE[:-1]) + word[place:]


def _wild(dice: random.Random) -> HttpConfig:
    def text() -> str:
        return _text(dice, 0.08)

    subjects = {"p", *(f"{kind}.{text()}" for kind in ("h", "q", "cc"))}
    balancing = Balancing(dice.choice([*ALGORITHMS, f"hdr({text()})"]), dice.choice(["", text()]))
    reasons = tuple(dice.choice(["conn-failure", "500", "404"]) for _ in range(dice.randint(0, 3)))
    return HttpConfig(
        (Gateway(text(), (LOOPBACK,), dice.randint(1, 65535), limits=HttpLimits(dice.randint(1, 9), dice.random())),),
        (
            Section("b", "b", balancing, Retry(dice.randint(0, 5), reasons)),
            Section(f"c{text()}", "c", Balancing(), Retry()),
        ),
        tuple(sorted(subjects)),
        (f"x{text()}",),
        (f"x{text()}",),
    )


def _tame(wild: HttpConfig) -> HttpConfig:
    """The same with harmless names."""
    first, second = wild.sections
    balancing = replace(first.balancing, cookie=first.balancing.cookie and "c")
    return HttpConfig(
        tuple(replace(one, name="web") for one in wild.gateways),
        (replace(first, balancing=balancing), replace(second, name="c")),
        ("cc.c", "h.h", "p", "q.q"),
        ("x",),
        ("x",),
    )
