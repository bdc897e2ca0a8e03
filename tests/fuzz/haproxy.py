"""What the catalog takes, HAProxy takes: ``python -m tests.fuzz.haproxy [--documents 100000] [--seed N]``.

Random gateways, routes and pools and mutants of them, many in one catalog; what is accepted is decided and rendered as
a node would, and the real ``haproxy -c`` of both releases has to take the files without a word. It prints how many
documents there were and how many were accepted. A batch that is refused is divided until the documents that HAProxy
does not take are found, and printed. Exits 1 then.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.drivers.haproxy.config import certificate_list, render
from anycastlb.adapters.drivers.haproxy.files import Files
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.decision.decide import decide
from anycastlb.core.model import Catalog, Entry, Inputs, Memory, Policy, State, Tree
from tests.fuzz.http import TEXTS
from tests.fuzz.mutation import Mutator
from tests.rig import haproxy as rig
from tests.support.authority import Authority
from tests.support.haproxy import RELEASES, installation, refusal
from tests.support.http_tree import CERTIFICATES, ELB, POOL, changed

TOGETHER = 40
"""Families in a catalog: a gateway, a pool, a route with rules and one with a graph."""
RANGES = (ip_network("198.18.0.0/15"), ip_network("2001:db8::/32"))
COMMON: Mapping[str, Any] = {
    **{f"services/{name}": POOL for name in ("blog", "blog-canary", "web")},
    "gateways/web": {"vip": "198.19.0.1", "port": 80, "protocol": "http"},
}
"""What routes of all families lead to, and where they are served."""
WORDS = (
    "yes",
    "two words",
    "a?b",
    '"quoted"',
    "%[src]",
    "#",
    "\\",
    "'",
    "a;b",
    "{x}",
    "${HOME}",
    "|",
    "=",
    "!404",
    "~",
)
PATHS = ("/", "/blog", "/blog/", "/a/b/c", "/x%61", "/|=", '/"', "/%[src]", "/\\", "/{a}", "//a")
PATTERNS = (
    "^/blog", "(?i)YES|^no", "^/(a|blog)/(.*)$", "o w", ".*", r"^/b|\Ax", "[[a-c]{2,}", r"\bfoo\B", r"[^\x00-\x1f]",
    r"(?P<n>a)\z", r"\Q.*\E", "(a+)+$", "[[:alpha:]]#", '"', " ", r"a{1,99}", "(?s).", "$", "^",
)  # fmt: skip
NAMES = ("x-a", "user-agent", "X-Forwarded-Proto", "accept", "x-0")
TEMPLATES = (r"/\1", r"/\1\1x", "/plain", r"/%[src]\1", '/"', "/#", r"/\0")
Document = tuple[str, Entry]


@dataclass(frozen=True)
class Batch:
    documents: Sequence[Document]
    accepted: int
    desired: State


def value(chance: random.Random, texts: Sequence[str] = WORDS) -> dict[str, Any]:
    if chance.random() < 0.4:
        return {"type": "RegularExpression", "value": chance.choice(PATTERNS)}
    return {"value": chance.choice(texts)}


def match(chance: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {"path": {"type": "PathPrefix", "value": chance.choice(PATHS)}}
    if chance.random() < 0.4:
        found["path"] = value(chance, PATHS)
    if chance.random() < 0.3:
        found["method"] = chance.choice(["GET", "POST", "PATCH"])
    if chance.random() < 0.4:
        found["headers"] = [{"name": chance.choice(NAMES), **value(chance)} for _ in range(chance.randint(1, 2))]
    if chance.random() < 0.3:
        found["queryParams"] = [{"name": chance.choice(["page", "p.q"]), **value(chance, ["1", "a/b", '"', "%20"])}]
    return found


def new_path(chance: random.Random) -> dict[str, Any]:
    kind = chance.choice(["ReplaceFullPath", "ReplacePrefixMatch", "ReplaceRegexMatch"])
    field = kind[0].lower() + kind[1:]
    if kind == "ReplaceRegexMatch":
        return {"type": kind, field: {"pattern": "^/(.*)$", "substitution": chance.choice(TEMPLATES)}}
    return {"type": kind, field: chance.choice(PATHS)}


def headers(chance: random.Random) -> dict[str, Any]:
    names = chance.sample(NAMES, 3)
    each = [{"name": name, "value": chance.choice(WORDS)} for name in names[:2]]
    return {"set": each[:1], "add": each[1:], "remove": names[2:]}


def rule(chance: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {"matches": [match(chance) for _ in range(chance.randint(1, 3))]}
    filters = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": headers(chance)}]
    filters = filters if chance.random() < 0.3 else []
    if chance.random() < 0.2:
        redirect = {"path": new_path(chance), "statusCode": chance.choice([301, 302, 308]), "hostname": "to.example"}
        return {**found, "filters": [*filters, {"type": "RequestRedirect", "requestRedirect": redirect}]}
    if chance.random() < 0.3:
        filters.append({"type": "RequestHeaderModifier", "requestHeaderModifier": headers(chance)})
    if chance.random() < 0.4:
        filters.append({"type": "URLRewrite", "urlRewrite": {"hostname": "in.example", "path": new_path(chance)}})
    pools = chance.sample(["blog", "blog-canary", "web"], chance.randint(1, 3))
    found |= {"filters": filters, "backendRefs": [{"name": one, "weight": chance.randint(1, 99)} for one in pools]}
    if chance.random() < 0.3:
        found["sticky"] = chance.choice(["source", {"cookie": chance.choice(["uid", "a.b-c"])}])
    if chance.random() < 0.3:
        found["retry"] = {"attempts": chance.randint(0, 10), "on": chance.choice([["500", 503], ["conn-failure", 404]])}
    return found


def family(chance: random.Random, number: int) -> Iterator[tuple[str, Any]]:
    """Documents that are nearly always good, and in the way of no other family's."""
    tls = {"certificates": ["shop", "default"], "min_version": chance.choice(["1.2", "1.3"]), "strict_sni": True}
    secure = {"port": 443, "protocol": "https", "tls": tls} if number % 4 == 0 else {"port": 80, "protocol": "http"}
    vips = [str(ip_address(first) + number) for first in ("198.18.0.1", "2001:db8::1")]
    limits = {"maxconn": chance.randint(1, 99_999), "header_bytes": chance.choice([1024, 16384, 65536])}
    forwarded = chance.choice(["append", "replace"])
    yield f"gateways/g{number}", {"vip": vips, "limits": limits, "forwarded_for": forwarded, **secure}
    balance = chance.choice(["roundrobin", "leastconn", "random", "source", "uri", "hdr(x-user)"])
    yield (
        f"services/p{number}",
        {**POOL, "balance": balance, "persistence": {"cookie": chance.choice(["SRV", "a.b-c"])}},
    )
    rules = [rule(chance) for _ in range(chance.randint(1, 5))]
    graph = changed(ELB, "rules", "r1", "args", "pattern", to=chance.choice(PATTERNS))
    graph = changed(graph, "rules", "r4", "args", "pattern", to=chance.choice(PATTERNS))
    for name, route in (("shop", {"rules": rules}), ("old", {"graph": graph})):
        hostname = chance.choice(["", "*."]) + f"{name}{number}.example"
        yield f"routes/{name}{number}", {"gateways": ["web"], "hostnames": [hostname], **route}


def drawn(seed: int, number: int) -> list[Document]:
    """The documents of one batch, the same again for the same numbers. A third of them are mutants."""
    mutator = Mutator(random.Random(f"{seed} {number}"))
    chance = mutator.chance
    made: list[Document] = []
    for key, document in (pair for one in range(TOGETHER) for pair in family(chance, one)):
        act = chance.random()
        if act < 0.1:
            document = mutator.mutant(document)
        elif act < 0.35 and (places := list(_places(document, ()))):
            document = changed(document, *chance.choice(places), to=chance.choice(TEXTS))
        made.append((key, Entry(json.dumps(document).encode(), len(made) + 1)))
    return made


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, str) and path:
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(item, (*path, key))


def decided(documents: Sequence[Document]) -> Batch:
    entries = {key: Entry(json.dumps(value).encode()) for key, value in COMMON.items()} | dict(documents)
    catalog = parse_catalog(Tree(entries, 1), Catalog(), RANGES, (), PARAMS, certificates=CERTIFICATES)
    fingerprints = dict.fromkeys(CERTIFICATES, "as it is")
    inputs = Inputs(Policy("lb1", http=True), catalog=catalog, certificates=fingerprints)
    accepted = sum(catalog.good.get(key) == entry for key, entry in documents)
    return Batch(documents, accepted, decide(inputs, Memory(), 100.0).desired)


def place(folder: Path, program: str) -> Installation:
    """Where one HAProxy finds its files, with the certificates that gateways name."""
    files = installation(folder, program)
    authority = Authority(files.certificates)
    for name in CERTIFICATES:
        authority.issue(f"{name}.example").rename(files.certificate(name))
    return files


def objections(state: State, files: Installation) -> str:
    """What HAProxy has against what is wanted; empty if it takes it without a word."""
    row = state.http_engine["config"]
    assert row.config is not None
    shelf = Files(files)
    maps: dict[str, dict[str, str]] = {}
    for entry in (entry for site in state.http_sites.values() for entry in site.entries):
        maps.setdefault(entry.map, {})[entry.key] = entry.value
    sites = {f"{key.gateway}|{key.host}": site.root for key, site in state.http_sites.items()}
    shelf.write_maps(maps, sites)
    for gateway in row.config.gateways:
        if gateway.tls:
            names = certificate_list(gateway.tls.certificates, files)
            shelf.write(files.certificate_list(gateway.name), names)
    shelf.write_config(render(row.config, row.digest, state.http_servers, files))
    return refusal(files, files.config)


def culprits(documents: Sequence[Document], files: Installation) -> Iterator[tuple[Document, str]]:
    """The documents each of which HAProxy does not take, beside good pools."""
    state = decided(documents).desired
    said = objections(state, files) if state.http_engine else ""
    if said and len(documents) > 1:
        half = len(documents) // 2
        yield from culprits(documents[:half], files)
        yield from culprits(documents[half:], files)
    elif said:
        yield documents[0], said


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.haproxy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="the same documents again")
    options = parser.parse_args()
    count = accepted = finds = number = 0
    with tempfile.TemporaryDirectory(prefix="alb.") as folder:
        places = [place(Path(folder) / name, str(rig.obtain(name))) for name in RELEASES]
        while count < options.documents and finds < 5:
            batch = decided(drawn(options.seed, number))
            count, accepted, number = count + len(batch.documents), accepted + batch.accepted, number + 1
            for files in places:
                if said := objections(batch.desired, files):
                    finds += 1
                    found = list(culprits(batch.documents, files)) or [(("all of them together", Entry(b"")), said)]
                    for (key, entry), why in found:
                        print(f"seed {options.seed}, batch {number - 1}: {key} {entry.value!r}: {why}", flush=True)
    print(f"seed {options.seed}: {count:,} documents in {number} catalogs, of which {accepted:,} were accepted, and "
          f"HAProxy took {'all' if not finds else 'not all'} of these")  # fmt: skip
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
