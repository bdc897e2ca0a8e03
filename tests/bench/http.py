"""Does a HAProxy of some size lose a request while everything changes? ``python -m tests.bench.http``.

1,000 pools of two servers, a hostname with three rules for each. 100 changes of servers, 100 of rules, 20 reloads (each
brings a pool) and 10 certificates, while clients ask without a pause: HTTP/1.1 on connections that are kept and on new
ones, HTTP/2 by TLS, and websockets. Every request is counted. Promised is that none is lost, by the HAProxy of both
Debian releases; how long the changes take depends on the machine.

It needs neither root nor a kernel of its own. Exits 1 if a request is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from anycastlb.adapters.certificates import fingerprint
from anycastlb.core.model import HttpCertificate, HttpSite, Tls
from tests.rig import haproxy as rig
from tests.support import haproxy
from tests.support.authority import Authority
from tests.support.haproxy import RELEASES, Haproxy, config, gateway, section
from tests.support.haproxy_rows import Wanted, at, differences, host, look, server, site
from tests.support.haproxy_world import World
from tests.support.http_load import EVERY, Load, loaded
from tests.support.origin import Origin, origins
from tests.support.ports import free_port

TURNS = 20
"""Each: five changes of servers, five of rules, and a reload; every second one a certificate too."""
EACH = 5
MORE = 3
"""Times as many clients as in the tests."""
PAUSE = 0.01
"""Seconds between two requests of a client."""


@dataclass
class Bench:
    world: World
    servers: dict[str, Origin]
    authority: Authority
    wanted: Wanted
    took: dict[str, list[float]] = field(default_factory=dict)

    async def change(self, what: str, wanted: Wanted, load: Load) -> None:
        """Make a change, and let every client ask some more."""
        started = time.perf_counter()
        failures = await self.world.settle(wanted)
        self.took.setdefault(what, []).append(time.perf_counter() - started)
        assert failures == [] and differences(await look(self.world.driver), wanted) == [], failures[:3]
        self.wanted = wanted
        await load.goes_on()
        await self.world.pass_time()

    async def turn(self, number: int, load: Load) -> None:
        servers, two = self.servers, at("shop", "two")
        for row in (
            {two: server(servers["two"].port, 10, "drain")},
            {two: server(servers["two"].port, 10, "maint")},
            {at("shop", f"new-{number}"): server(servers["blog"].port, 1 + number)},
            {two: server(servers["two"].port, 1 + number)},
            {at(f"pool-{number}", "one"): server(servers["blog"].port, 1 + number)},
        ):
            await self.change("a server", replace(self.wanted, servers={**self.wanted.servers, **row}), load)
        for version in range(EACH):
            pool = ("shop", "blog")[version % 2]
            rules = dict.fromkeys([host(), host(gateway="tls")], site(f"v{number}-{version}", {"": pool, "/b": "blog"}))
            await self.change("a rule", replace(self.wanted, sites={**self.wanted.sites, **rules}), load)
        if number % 2:
            certificates = {"first": self.issue()}
            await self.change("a certificate", replace(self.wanted, certificates=certificates), load)
        assert self.wanted.config
        sections = (*self.wanted.config.sections, section(f"more-{number}"))
        more = replace(self.wanted.config, sections=sections)
        await self.change("a pool, by a reload", replace(self.wanted, config=more, digest=f"turn-{number}"), load)

    def issue(self) -> HttpCertificate:
        file = self.world.files.certificate("first")
        self.authority.issue("shop.example").rename(file)
        return HttpCertificate(fingerprint(file.read_text()), ("tls",))


def of_size(pools: int, port: int, secure: int, servers: dict[str, Origin]) -> Wanted:
    """All but the certificate."""
    names = [f"pool-{number}" for number in range(pools)]
    rows = {at(name, one): server(servers["blog"].port) for name in names for one in ("one", "two")}
    rows |= {at("shop", name): server(servers[name].port) for name in ("one", "two")}
    sites = {host(f"{name}.example"): _rules(name) for name in names}
    shop = site("v", {"": "shop"})
    tls = replace(gateway(secure, "tls"), tls=Tls(("first",)))
    return Wanted(
        config([gateway(port), tls], [section("shop"), section("blog"), *map(section, names)]),
        servers={**rows, at("blog", "blog"): server(servers["blog"].port)},
        sites={**sites, host(): shop, host(gateway="tls"): shop},
    )


def _rules(name: str) -> HttpSite:
    return site(name, {"": name, "/blog?": "blog", "/blog/": "blog"})


async def measure(release: str, pools: int, folder: Path) -> bool:
    program = rig.find(release)
    if program is None:
        sys.exit(f"{release} is not there: python3 tests/rig/haproxy.py")
    files = replace(haproxy.installation(folder, str(program)), hard_stop_after=3600.0)
    real = Haproxy(files)
    world = World(real, files, free_port())
    secure = free_port()
    async with origins("one", "two", "blog") as servers:
        bench = Bench(world, servers, Authority(files.certificates), of_size(pools, world.port, secure, servers))
        bench.wanted = replace(bench.wanted, certificates={"first": bench.issue()})
        load = Load(world.port, secure, pause=PAUSE)
        try:
            await world.start(bench.wanted)
            return await _kept(bench, load)
        finally:
            _print(f"HAProxy of {release}, {pools} pools", bench, load)
            world.runtime.close()
            real.stop()


async def _kept(bench: Bench, load: Load) -> bool:
    try:
        async with loaded(load, {kind: MORE * count for kind, count in EVERY.items()}):
            for number in range(TURNS):
                await bench.turn(number, load)
    except AssertionError as exc:
        print(exc)
    return not load.lost and bench.world.runtime.sent.count("reload") == TURNS


def _print(title: str, bench: Bench, load: Load) -> None:
    print(f"\n{title}")
    for what, times in bench.took.items():
        print(f"  {len(times):4} x {what:<22} {1000 * median(times):8.1f} ms median {1000 * max(times):8.1f} ms worst")
    for kind, count in load.totals.items():
        lost = sum(line.startswith(f"{kind} ") for line in load.lost)
        print(f"  {count:6} answers, {kind:<10} {lost} lost")
    print(
        f"  {load.repeated} requests by HTTP/2 were sent again, as a worker that ended had not looked at them",
        flush=True,
    )


async def measured(releases: Sequence[str], pools: int) -> bool:
    kept = []
    for release in releases:
        with tempfile.TemporaryDirectory(prefix="alb.") as folder:
            kept.append(await measure(release, pools, Path(folder)))
    return all(kept)


def main() -> bool:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pools", type=int, default=1000)
    parser.add_argument("--release", choices=RELEASES, action="append", help="one of them; both, unless given")
    args = parser.parse_args()
    return asyncio.run(measured(args.release or RELEASES, args.pools))


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
