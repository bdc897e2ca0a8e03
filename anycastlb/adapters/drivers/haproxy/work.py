"""The commands that make HAProxy have wanted rows: pure, from what it has to what it should have.

Commands stand in steps: a step is only begun if no command before it for the same row was refused. So a hostname is
switched to a graph only when the whole graph is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from anycastlb.adapters.drivers.haproxy import commands
from anycastlb.adapters.drivers.haproxy.commands import Command
from anycastlb.adapters.drivers.haproxy.entries import TWICE, Maps, missing
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.core.model import HttpCertificate, HttpServer, HttpServerKey, HttpSite, SiteKey

REMOVED = (IPv4Address("127.255.255.254"), 9)
"""Where a server goes that is not wanted any more, and is nobody's row. HAProxy 2.6 cannot delete one safely."""


@dataclass(frozen=True, slots=True)
class Written:
    """Entries that a command adds to a map, or changes in it."""

    map: str
    entries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Step:
    command: Command
    writes: Written | None = None
    """None: no map that the driver keeps track of."""


def server(key: HttpServerKey, old: HttpServer | None, new: HttpServer | None, exists: bool) -> Iterator[Command]:
    """``old``: None if HAProxy has none that counts; it may still ``exist`` there, out of use."""
    if new is None:
        yield commands.set_state(key, "maint")
        yield commands.set_address(key, *REMOVED)
        return
    if old is None and exists:
        old = HttpServer(*REMOVED, -1, "maint", -1)
    if old is None:  # HAProxy 2.6 gives a server its cookie only when its address changes
        yield commands.add_server(key, *REMOVED, new.weight, new.maxconn)
        old = HttpServer(*REMOVED, new.weight, "maint", new.maxconn)
    if new.state != "ready" and new.state != old.state:
        yield commands.set_state(key, new.state)
    if (new.address, new.port) != (old.address, old.port):
        yield commands.set_address(key, new.address, new.port)
    if new.maxconn != old.maxconn:
        yield commands.set_maxconn(key, new.maxconn)
    if new.weight != old.weight:
        yield commands.set_weight(key, new.weight)
    if new.state == "ready" != old.state:
        yield commands.set_state(key, new.state)


def entries(site: HttpSite, maps: Maps, files: Installation) -> Iterator[Step]:
    """What a site leads to and HAProxy lacks."""
    new, wrong = missing(site.entries, maps)
    for name, added in new.items():
        for command in commands.add_entries(files.map(name), added.items()):
            yield Step(command, Written(name, added))
    for entry in wrong:
        changed, path = Written(entry.map, {entry.key: entry.value}), files.map(entry.map)
        if maps[entry.map][entry.key] != TWICE:
            yield Step(commands.set_entry(path, entry.key, entry.value), changed)
            continue
        yield Step(commands.delete_entry(path, entry.key))
        yield from (Step(command, changed) for command in commands.add_entries(path, [(entry.key, entry.value)]))


def switch(key: SiteKey, site: HttpSite | None, exists: bool, files: Installation) -> Command:
    """The one command that changes what becomes of the requests for a hostname."""
    path = files.map("site")
    if site is None:
        return commands.delete_entry(path, str(key))
    if exists:
        return commands.set_entry(path, str(key), site.root)
    return next(iter(commands.add_entries(path, [(str(key), site.root)])))


def certificate(
    name: str, old: HttpCertificate | None, new: HttpCertificate | None, pem: str, exists: bool, files: Installation
) -> Iterator[Command]:
    path = files.certificate(name)
    before, after = set(old.gateways if old else ()), set(new.gateways if new else ())
    for gateway in sorted(before - after):
        yield commands.unlist_certificate(files.certificate_list(gateway), path)
    if new is None:
        yield commands.delete_certificate(path)
        return
    if old is None or old.fingerprint != new.fingerprint:
        if not exists:
            yield commands.new_certificate(path)
        yield from commands.write_certificate(path, pem)
    for gateway in sorted(after - before):
        yield commands.list_certificate(files.certificate_list(gateway), path)


def undone(name: str, files: Installation) -> Command:
    """Take away the empty place of a certificate that could not be written."""
    return commands.delete_certificate(files.certificate(name))


def deletions(stale: Iterable[tuple[str, str]], files: Installation) -> Iterator[Command]:
    return (commands.delete_entry(files.map(name), key) for name, key in stale)


def removed(servers: Mapping[HttpServerKey, HttpServer]) -> Collection[HttpServerKey]:
    """Servers that are out of use for good."""
    return {key for key, row in servers.items() if (row.address, row.port) == REMOVED}
