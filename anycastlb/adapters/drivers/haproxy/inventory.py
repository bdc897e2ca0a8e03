"""Looks at what HAProxy has, and knows what its maps should have.

Observing a hostname takes one command, for its root names the digest of its whole graph. That the graph is still there
is seen by the number of entries of each map, at every look, and entry by entry every ``RESYNC`` seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from anycastlb.adapters.drivers.haproxy import answers, entries, work
from anycastlb.adapters.drivers.haproxy.answers import Info
from anycastlb.adapters.drivers.haproxy.config import MARK, digest_of, listens
from anycastlb.adapters.drivers.haproxy.errors import Away
from anycastlb.adapters.drivers.haproxy.files import Files
from anycastlb.adapters.drivers.haproxy.installation import MAPS, Installation
from anycastlb.adapters.drivers.haproxy.observed import UNKNOWN, Observed
from anycastlb.adapters.drivers.haproxy.sockets import ANSWER, LOOK, Runtime
from anycastlb.core.http.names import original
from anycastlb.core.model import HttpCertificate, HttpEngine, HttpServer, HttpServerKey, HttpSite, SiteKey

RESYNC = 30.0
"""Seconds between two looks at every single entry of all maps."""
NONE = "none"
"""The digest of a configuration of nothing, which is no row."""
MapContents = dict[str, dict[str, str]]


class Inventory:
    """What was seen and written since the last look at every entry. ``wanted`` outlives HAProxy."""

    def __init__(self, installation: Installation, files: Files, runtime: Runtime, clock: Callable[[], float]) -> None:
        self._installation, self._files, self._runtime, self._clock = installation, files, runtime, clock
        self.maps: MapContents | None = None
        """What HAProxy's maps have; None: not known."""
        self.wanted: MapContents | None = None
        """What they should have; None before the first look."""
        self.digest, self.static = "", ""
        """Of the configuration that HAProxy has, as far as is known, and its text without servers."""
        self._other = ("", "")
        """The same of another one that it may have: the one before, or one that it is slow to start with."""
        self.slow = False
        """It is slow to start with that one."""
        self._worker = 0
        """The pid of the worker that all of this is known of."""
        self._listed_at = float("-inf")
        self._damaged: frozenset[str] = frozenset()
        self._fingerprints: dict[Path, str] = {}
        self._bounds: dict[HttpServerKey, int] = {}

    def forget(self) -> None:
        """HAProxy is away: whatever it has when it returns is to be looked at."""
        self.maps, self._fingerprints = None, {}

    def knows(self, row: HttpEngine | None) -> bool:
        """Is it a configuration that HAProxy may have come up with in the place of another?"""
        return row is not None and row.digest == self.digest

    def load(self) -> None:
        """Read what an earlier daemon has left, unless that is done."""
        if self.wanted is None:
            self.wanted, self._bounds = self._files.maps(), self._files.bounds()
            self.digest, self.static = self._files.static()
            self._other = self._files.static_before()

    def installed(self, digest: str, static: str) -> None:
        """HAProxy has this configuration, or will have it when it reads its file the next time."""
        if digest != self.digest:
            self._other = (self.digest, self.static)
        self.digest, self.static, self.slow = digest, static, False

    @property
    def coming(self) -> str:
        """The text, without servers, of the configuration that HAProxy is to start with next."""
        return self._other[1] if self.slow else self.static

    def expect(self, digest: str, static: str) -> None:
        """HAProxy may have this configuration at some later look, and goes on with what it has until then."""
        self._other, self.slow = (digest, static), True

    def wrote(self, written: work.Written) -> None:
        for contents in (self.maps, self.wanted):
            if contents is not None:
                contents.setdefault(written.map, {}).update(written.entries)

    def deleted(self, gone: Iterable[tuple[str, str]]) -> None:
        for name, key in gone:
            for contents in (self.maps, self.wanted):
                if contents is not None:
                    contents.get(name, {}).pop(key, None)

    def bind(self, key: HttpServerKey, row: HttpServer | None) -> None:
        """Remember the bound of a server, which HAProxy lists nowhere else cheaply."""
        self._bounds.pop(key, None)
        if row is not None and row.maxconn:
            self._bounds[key] = row.maxconn

    def renewed(self, name: str) -> None:
        """A certificate was written."""
        self._fingerprints.pop(self._installation.certificate(name), None)

    # ------------------------------------------------------------ looking

    async def look(self) -> Observed:
        """Raises ``HaproxyError``."""
        self.load()
        try:
            return await self._look()
        except Away as exc:
            if exc.silent:
                raise
        self._runtime.close()  # perhaps only the worker before a reload has ended
        self.forget()
        return await self._look()

    async def _look(self) -> Observed:
        info = await self._info()
        if info.pid != self._worker:
            self.forget()
            self._worker = info.pid
        if info.description.partition(" ")[0] != MARK:
            return Observed(info, {"config": UNKNOWN})
        lists = ("show servers state", "show map", f"show map {self._installation.map('site')}")
        servers, sizes, sites, certificates, used = await self._runtime.ask(
            [*lists, "show ssl cert", "show ssl crt-list"]
        )
        known = dict(answers.entries(sites))
        await self._list_maps(answers.map_sizes(sizes), known)
        rows, bounds = answers.servers(servers), self._bounds
        out = frozenset(work.removed(rows))
        return Observed(
            info,
            self._engine(info),
            await self._certificates(answers.files(certificates), answers.files(used)),
            {
                key: replace(row, maxconn=bounds[key]) if key in bounds else row
                for key, row in rows.items()
                if key not in out and not key.section.startswith("_a")
            },
            self._sites(known),
            out,
        )

    async def _info(self) -> Info:
        """Of the worker that serves. The one from before a reload may accept connections for a moment yet."""
        try:
            async with asyncio.timeout(ANSWER):
                while (info := answers.info((await self._runtime.ask(["show info"]))[0])).stopping:
                    self._runtime.close()
                    self.forget()
                    await asyncio.sleep(LOOK)
                return info
        except TimeoutError as exc:
            raise Away("HAProxy is stopping") from exc

    def _engine(self, info: Info) -> Mapping[str, HttpEngine]:
        digest = digest_of(info.description, self._installation)
        if digest == self._other[0] != self.digest:
            self._other, (self.digest, self.static) = (self.digest, self.static), self._other
            self.slow = False
        if digest == NONE == self.digest:
            return {}
        if digest != self.digest:
            return {"config": HttpEngine(f"{digest}, but not in its file")}
        return {"config": HttpEngine(digest, listens=listens(self.static))}

    def _sites(self, known: Mapping[str, str]) -> Mapping[SiteKey, HttpSite]:
        sites = {}
        for key, root in known.items():
            gateway, _, host = key.partition("|")
            damaged = entries.graph_of(root) in self._damaged
            sites[SiteKey(gateway, host)] = HttpSite(f"damaged {root}" if damaged else root)
        return sites

    async def _list_maps(self, sizes: Mapping[str, int], sites: Mapping[str, str]) -> None:
        """Look at every entry if there is a reason to."""
        assert self.wanted is not None, "the files were read"
        now, first = self._clock(), self.maps is None
        counted = {name: sizes.get(str(self._installation.map(name)), -1) for name in MAPS}
        if (
            self.maps is None
            or now - self._listed_at > RESYNC
            or any(counted[name] != len(self.maps[name]) for name in MAPS)
        ):
            listed = await self._runtime.ask([f"show map {self._installation.map(name)}" for name in MAPS])
            self.maps = {name: _unique(answers.entries(text)) for name, text in zip(MAPS, listed, strict=True)}
            self._listed_at, self._fingerprints = now, {}
            self._damaged = entries.damaged(self.wanted, self.maps, sites.values())
            if first:
                written = self._files.sites()
                unsure = {root for key, root in sites.items() if written.get(key) != root}
                self._damaged |= frozenset(filter(None, map(entries.graph_of, unsure)))

    def doubt(self) -> None:
        """A command was refused, so the maps may differ from what was written: look at all of it."""
        self._listed_at = float("-inf")

    def mend(self, root: str) -> None:
        """A site was written, so its graph is whole again."""
        self._damaged -= {entries.graph_of(root)}

    async def _certificates(self, files: Iterable[str], used: Iterable[str]) -> Mapping[str, HttpCertificate]:
        folder, lists = self._installation.certificates, list(used)
        paths = [path for path in map(Path, files) if path.parent == folder and path.suffix == ".pem"]
        unknown = [path for path in paths if not self._fingerprints.get(path)]
        said = await self._runtime.ask(
            [*(f"show ssl cert {path}" for path in unknown), *(f"show ssl crt-list {one}" for one in lists)]
        )
        self._fingerprints |= {path: answers.fingerprint(text) for path, text in zip(unknown, said, strict=False)}
        users: dict[str, list[str]] = {}
        for one, text in zip(lists, said[len(unknown) :], strict=True):
            for file in answers.files(text):
                users.setdefault(file, []).append(original(Path(one).stem))
        return {
            path.stem: HttpCertificate(self._fingerprints[path], tuple(sorted(set(users.get(str(path), ())))))
            for path in paths
        }


def _unique(listed: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The entries of a map; one whose key is there more than once has the value of none."""
    contents: dict[str, str] = {}
    for key, value in listed:
        contents[key] = entries.TWICE if key in contents else value
    return contents
