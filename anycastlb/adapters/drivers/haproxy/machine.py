"""The constant part of HAProxy's configuration that interprets the rules of routes, which are data in its maps.

What each rule here does is written in docs/decisions/0019-http-tier.md. Variables: ``n`` is where a request stands in
its graph, ``s`` what the node looks at, ``q`` the key that is looked up, ``path`` the path that is sent on. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.names import TOKEN, checked
from anycastlb.core.model import HttpConfig

STEPS = 16
LABELS = 8
"""Which are taken from the left of a hostname to find a wildcard."""
SEGMENTS = 8
"""Which a prefix may have that is replaced."""
SHARDS = range(8)
STATUSES = (400, 403, 404, 405, 410, 429, 500, 502, 503, 504)
REDIRECTS = (301, 302, 303, 307, 308)
ENDED = "http-request allow if { var(txn.n) -m beg > ! ~ }"
"""A leaf is reached; the root of a graph may be one."""
CHANGED, MORE = "{ var(txn.n) -m beg >+ }", "{ var(txn.n) -m beg >++ }"
"""The leaf says more than which pool; and more than what becomes of a prefix of the path."""


def find(files: Installation) -> Iterator[str]:
    """The site of a request.

    The rules of ``tcp-request content`` are looked at for each request, before those of ``http-request``, and have an
    end of their own: a hostname with a site of itself is not looked for among wildcards.
    """
    do, found = "tcp-request content", "{ var(txn.n) -m found }"
    site = f"map_str({files.map('site')})"
    yield f"{do} set-var(txn.host) req.hdr(host),host_only,lower"
    yield f"{do} set-var(txn.host) var(txn.host),regsub(\\.$,) if {{ var(txn.host) -m end . }}"
    yield f"{do} set-var(txn.key) var(sess.gateway),concat(|,txn.host)"
    yield f"{do} set-var(txn.n) var(txn.key),{site}"
    yield f"{do} accept if {found}"
    yield f"{do} set-var(txn.rest) var(txn.host)"
    for _ in range(LABELS):
        yield f"{do} set-var(txn.rest) var(txn.rest),regsub(^[^.]*\\.?,)"
        yield f"{do} set-var(txn.key) var(sess.gateway),concat(|*.,txn.rest)"
        yield f"{do} set-var(txn.n) var(txn.key),{site}"
        yield f"{do} accept if {found}"
    yield f"{do} set-var(txn.key) var(sess.gateway),concat(|*)"
    yield f"{do} set-var(txn.n) var(txn.key),{site}"


def decide(config: HttpConfig, files: Installation) -> Iterator[str]:
    """What a frontend does with a request of which ``find`` has found the site: walk its graph to a leaf."""
    yield "http-request return status 404 unless { var(txn.n) -m found }"
    # By the key that was found and not by the hostname: under a wildcard strangers could fill the table.
    yield "http-request track-sc0 var(txn.key) table _asites"
    yield "http-request set-var(txn.path) path"
    yield "http-request set-var(txn.path) str(/) unless { var(txn.path) -m beg / }"
    subjects = list(_subjects(config.subjects))
    yield ENDED
    for _ in range(STEPS):
        yield from _step(subjects, files)
    yield "http-request return status 500"


def _subjects(subjects: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """The beginning of the ids of nodes that look at something, its sample, and what it needs to be there."""
    samples = {
        "p": "var(txn.path)",
        "m": "method",
        "c": "rand(10000),add(10000)",
        "cs": "src,crc32,mod(10000),add(10000)",
    }
    for subject in subjects:
        kind, _, name = subject.partition(".")
        if subject in samples:
            yield f"{subject}:", samples[subject], ""
            continue
        checked(name, TOKEN, "the name of a header, parameter or cookie")
        sample = {"h": f"req.fhdr({name})", "q": f"url_param({name})", "cc": f"req.cook({name})"}[kind]
        if kind == "cc":
            yield f"{subject}:", samples["c"], ""
            sample += ",crc32,mod(10000),add(10000)"
        yield f"{subject}:", sample, f" {{ {sample.split(',')[0]} -m found }}"


def _step(subjects: Sequence[tuple[str, str, str]], files: Installation) -> Iterator[str]:
    """Tables come first: most graphs are one, and then nothing after ``ENDED`` is looked at."""
    for beginning, sample, needed in subjects:
        yield f'http-request set-var-fmt(txn.s) "=%[{sample}]" if {{ var(txn.n) -m beg {beginning} }}{needed}'
    yield "http-request set-var(txn.op) var(txn.n),field(2,:)"
    yield from _next("t", files)
    yield "http-request set-var(txn.q) var(txn.n),concat(|,txn.s) if { var(txn.op) -m str e }"
    expressions = " ".join([*(f"{shard}" for shard in SHARDS), *(f"w{shard}" for shard in SHARDS)])
    pattern = "var(txn.n),field(4,:),concat(|,txn.s)"
    yield f"http-request set-var(txn.q) {pattern} if {{ var(txn.op) -m str {expressions} }}"
    yield "http-request unset-var(txn.s)"
    yield f"http-request set-var(txn.s) var(txn.q),map_str({files.map('eq')}) if {{ var(txn.op) -m str e }}"
    for shard in SHARDS:
        matched = f"var(txn.q),map_regm({files.map(f're{shard}')})"
        yield f"http-request set-var(txn.s) {matched} if {{ var(txn.op) -m str {shard} w{shard} }}"
    rewritten = "if { var(txn.op) -m beg w } { var(txn.s) -m found }"
    yield f"http-request set-var(txn.path) var(txn.s),regsub(^/*,/) {rewritten}"
    yield f"http-request set-var(txn.s) str(1) {rewritten}"
    yield from _next(f"e {expressions}", files)
    yield "http-request unset-var(txn.s)"


def _next(operators: str, files: Installation) -> Iterator[str]:
    when = f"if {{ var(txn.op) -m str {operators} }}"
    yield f'http-request set-var-fmt(txn.q) "%[var(txn.n)]|%[var(txn.s)]?" {when}'
    yield f"http-request set-var(txn.n) var(txn.q),map_beg({files.map('next')}) {when}"
    yield ENDED


def leave(files: Installation) -> Iterator[str]:
    """Where a frontend hands a request over to."""
    yield f"use_backend %[var(txn.n),map_str({files.map('leaf')})] if {{ var(txn.n) -m beg > }}"
    yield "use_backend _astatus if { var(txn.n) -m beg ! }"
    yield "use_backend _aredirect if { var(txn.n) -m beg ~ }"
    yield "default_backend _anone"


def replace_prefix(files: Installation) -> Iterator[str]:
    """What a leaf makes of the beginning of the path: ``strip`` says how many segments go, and what comes instead."""
    stripped = "if { var(txn.strip) -m found }"
    yield f"http-request set-var(txn.strip) {_done(files, 'strip')}"
    yield f"http-request set-var(txn.put) var(txn.strip),field(2,:,0) {stripped}"
    yield f"http-request set-var(txn.rest) str() {stripped}"
    for segments in range(SEGMENTS + 1):
        rest = f"var(txn.path),field({segments + 2},/,0)"
        yield f"http-request set-var(txn.rest) {rest} if {{ var(txn.strip) -m beg {segments}: }}"
    joined = 'http-request set-var-fmt(txn.put) "%[var(txn.put)]/%[var(txn.rest)]"'
    # /blog/ has a rest, although it is empty
    yield f"{joined} {stripped} {{ var(txn.rest) -m len gt 0 }} || {stripped[3:]} {{ var(txn.path) -m end / }}"
    yield f"http-request set-var(txn.path) var(txn.put),regsub(^/*,/) {stripped}"


def rewrite(files: Installation) -> Iterator[str]:
    """What a leaf makes of the whole path."""
    yield f"http-request set-var(txn.path) {_done(files, 'path')}"
    yield f"http-request set-var(txn.rw) {_done(files, 'rw')}"
    yield "http-request set-var(txn.q) var(txn.rw),field(2,:),concat(|=,txn.path) if { var(txn.rw) -m found }"
    for shard in SHARDS:
        matched = f"var(txn.q),map_regm({files.map(f're{shard}')}),regsub(^/*,/)"
        yield f"http-request set-var(txn.path) {matched} if {{ var(txn.rw) -m beg {shard}: }}"


def change(config: HttpConfig, files: Installation) -> Iterator[str]:
    """What a leaf makes of the request and of its answer, before it goes to the server of a pool."""
    path = "http-request set-path %[var(txn.path)] if { path -m beg / } !{ path,strcmp(txn.path) eq 0 }"
    yield f"{path} !{CHANGED}"
    yield f"http-request allow unless {CHANGED}"
    yield from replace_prefix(files)
    yield f"{path} !{MORE}"
    yield f"http-request allow unless {MORE}"
    yield from rewrite(files)
    yield path
    yield _header(files, "set-header", "host", "host")
    timeout = f"{_done(files, 'timeout')},add(0)"  # as a number: one map has values of one type only
    yield f"http-request set-timeout server {timeout} if {{ {timeout} -m found }}"
    for name in config.request_headers:
        checked(name, TOKEN, "the name of a header")
        yield f"http-request del-header {name} if {{ {_done(files, f'request.del.{name}')} -m found }}"
        yield _header(files, "set-header", name, f"request.set.{name}")
        yield _header(files, "add-header", name, f"request.add.{name}")
    for place, name in enumerate(config.response_headers):
        yield from _answer(files, place, checked(name, TOKEN, "the name of a header"))


def _answer(files: Installation, place: int, name: str) -> Iterator[str]:
    """A header of the answer. What becomes of it is looked up before: its graph may be gone when the answer comes."""
    for verb in ("del", "set", "add"):
        yield f"http-request set-var(txn.{verb}{place}) {_done(files, f'response.{verb}.{name}')}"
        value = "" if verb == "del" else f" %[var(txn.{verb}{place})]"
        yield f"http-response {verb}-header {name}{value} if {{ var(txn.{verb}{place}) -m found }}"


def _header(files: Installation, verb: str, name: str, what: str) -> str:
    value = _done(files, what)
    return f"http-request {verb} {name} %[{value}] if {{ {value} -m found }}"


def _done(files: Installation, what: str) -> str:
    return f"var(txn.n),concat(|{what}),map_str({files.map('do')})"


def statuses() -> Iterator[str]:
    """Answers that have no more than a status."""
    yield "http-request sc-inc-gpc(4,0) if { var(txn.n) -m beg !4 }"
    yield "http-request sc-inc-gpc(5,0) if { var(txn.n) -m beg !5 }"
    for status in STATUSES:
        yield f"http-request return status {status} if {{ var(txn.n) -m beg !{status} }}"
    yield "http-request return status 500"


def redirects(files: Installation) -> Iterator[str]:
    """Where a leaf sends the client instead."""
    yield from replace_prefix(files)
    yield from rewrite(files)
    for what in ("scheme", "host", "port", "code"):
        yield f"http-request set-var(txn.{what}) {_done(files, what)}"
    given = "{ var(txn.scheme) -m found }"
    yield f"http-request set-var(txn.port) var(sess.port) unless {{ var(txn.port) -m found }} || {given}"
    yield f"http-request set-var(txn.scheme) str(https) if {{ ssl_fc }} !{given}"
    yield f"http-request set-var(txn.scheme) str(http) unless {given}"
    yield 'http-request set-var-fmt(txn.port) ":%[var(txn.port)]" if { var(txn.port) -m found }'
    for scheme, port in (("http", 80), ("https", 443)):
        usual = f"{{ var(txn.scheme) -m str {scheme} }} {{ var(txn.port) -m str :{port} }}"
        yield f"http-request unset-var(txn.port) if {usual}"
    yield 'http-request set-var-fmt(txn.to) "%[var(txn.scheme)]://%[var(txn.host)]%[var(txn.port)]%[var(txn.path)]"'
    yield 'http-request set-var-fmt(txn.to) "%[var(txn.to)]?%[query]" if { query -m found } { query -m len gt 0 }'
    yield "http-request sc-inc-gpc(3,0)"
    for code in REDIRECTS:
        yield f"http-request redirect code {code} location %[var(txn.to)] if {{ var(txn.code) -m str {code} }}"
    yield "http-request return status 500"
