"""Brings a new static configuration into HAProxy: written, checked, reloaded, and taken back if it is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from anycastlb.adapters.drivers.haproxy import entries
from anycastlb.adapters.drivers.haproxy.config import certificate_list, keep, offers, render_static, with_servers
from anycastlb.adapters.drivers.haproxy.entries import OF_PATTERNS, Maps, Needs
from anycastlb.adapters.drivers.haproxy.errors import Away, Unfinished
from anycastlb.adapters.drivers.haproxy.files import Files, Identity, identity
from anycastlb.adapters.drivers.haproxy.installation import MAPS, Installation
from anycastlb.adapters.drivers.haproxy.inventory import NONE, Inventory, MapContents
from anycastlb.adapters.drivers.haproxy.names import UnsafeName
from anycastlb.adapters.drivers.haproxy.observed import Observed
from anycastlb.adapters.drivers.haproxy.sockets import Runtime
from anycastlb.core.model import HttpConfig, HttpEngine, HttpServer, HttpServerKey, Reason

INTERVAL = 2.0
"""Seconds between two reloads, at least."""
LONGEST = 120.0
"""Seconds for which a master that does not answer may be about to reload."""
WAITS = "haproxy_reload_waits"
RETRY = 30.0
"""Seconds after which a configuration that was refused is tried again."""
NOTHING = HttpEngine(NONE, HttpConfig((), (), (), (), ()))


@dataclass(frozen=True, slots=True)
class _Subject:
    """Everything that HAProxy can refuse."""

    text: str
    patterns: tuple[tuple[str, ...], ...]
    certificates: tuple[Identity, ...]


@dataclass(frozen=True, slots=True)
class _Refused:
    subject: _Subject
    reason: Reason
    at: float


class Engine:
    """The static configuration. What it writes besides is what HAProxy has, or should have while it is away."""

    def __init__(
        self,
        installation: Installation,
        files: Files,
        inventory: Inventory,
        runtime: Runtime,
        clock: Callable[[], float],
    ) -> None:
        self._installation, self._files, self._inventory = installation, files, inventory
        self._runtime, self._clock = runtime, clock
        self._checked: _Subject | None = None
        """What was given to HAProxy last."""
        self._refused: _Refused | None = None
        self._reloaded_at = float("-inf")
        """When a reload was asked for last."""
        self._unfinished_at = float("-inf")
        """When one had not ended that was waited for last."""
        self.reloading = False
        """A reload is being waited for."""
        self._rendered: tuple[str, Mapping[HttpServerKey, HttpServer], str] = "", {}, ""
        """The configuration that was written last, and what it was made of: most changes are not of servers."""

    def offers(self) -> Needs:
        """What entries may lead to in the configuration that runs."""
        return offers(self._inventory.static)

    def next_reload(self) -> float:
        return self._reloaded_at + INTERVAL

    def write(self, rows: Observed) -> None:
        """Bring the files to what HAProxy has. Raises OSError, ``UnsafeName``."""
        self._write_maps(rows, self._inventory.wanted or {})
        for gateway, names in _users(rows).items():
            was = dict.fromkeys(self._files.listed(gateway))
            self._write_list(gateway, {name: None for name in {**was, **names} if name in names})
        if static := self._inventory.coming:
            if self._rendered[:2] != (static, rows.servers):
                self._rendered = static, rows.servers, with_servers(static, rows.servers)
            self._files.write(self._installation.config, self._rendered[2])

    async def reload(self, row: HttpEngine, rows: Observed) -> Reason | None:
        """Run ``row`` with the wanted servers among ``rows``; why that failed. Raises ``HaproxyError``.

        Slow is not refused: whichever configuration HAProxy comes up with is known, and asked for again if need be.
        """
        before = self._files.config()
        static, reason = await self._prepare(row, rows, self._inventory.wanted or {})
        if reason is not None:
            return reason
        self.reloading = True
        try:
            why = await self._runtime.reload()
        except Unfinished as exc:
            self._inventory.expect(row.digest, static)
            self._reloaded_at = self._unfinished_at = self._clock()
            return Reason(WAITS, str(exc))
        except Away as exc:
            if self._clock() - self._unfinished_at < LONGEST:
                self._inventory.expect(row.digest, static)
                return Reason(WAITS, str(exc))
            self._files.write(self._installation.config, before)
            return Reason("haproxy_master_away", f"{exc}; it was not reloaded")
        finally:
            self.reloading = False
        self._reloaded_at = self._clock()
        if why:
            self._files.write(self._installation.config, before)
            return self._refuse(why)
        self._inventory.installed(row.digest, static)
        self._inventory.forget()
        return None

    async def write_for_start(self, row: HttpEngine | None, rows: Observed, maps: MapContents) -> Reason | None:
        """HAProxy is away: let it find what is wanted when it starts; why it would not start with that."""
        if row is None or row.config is None:
            return None
        static, reason = await self._prepare(row, rows, maps)
        if reason is None:
            self._inventory.installed(row.digest, static)
            self._inventory.wanted = maps
        return reason

    # ------------------------------------------------------------ steps

    async def _prepare(self, row: HttpEngine, rows: Observed, maps: Maps) -> tuple[str, Reason | None]:
        """Write everything, the configuration only if HAProxy takes it."""
        assert row.config is not None, "a wanted row says what it wants"
        alive = entries.live(maps, (site.root for site in rows.sites.values()))
        try:
            config, kept = keep(self._inventory.static, row.config, entries.needs(entries.living(maps, alive)))
            static = render_static(config, row.digest, self._installation) + kept
            text = with_servers(static, rows.servers)
            users = _users(rows)
            lists = {
                gateway.name: dict.fromkeys([*gateway.tls.certificates, *users.get(gateway.name, ())])
                for gateway in row.config.gateways
                if gateway.tls
            }
            subject = self._subject(text, maps, chain.from_iterable(lists.values()))
            if (refused := self._refused) and refused.subject == subject and self._clock() - refused.at < RETRY:
                return static, refused.reason
            self._write_maps(rows, maps)
            for gateway, names in lists.items():
                self._write_list(gateway, names)
            if self._checked == subject and self._files.config() == text:
                return static, None
            self._checked = subject
            if why := await self._runtime.check(self._files.write_candidate(text)):
                return static, self._refuse(why)
            self._files.write_config(text)
        except UnsafeName as exc:
            return "", Reason("haproxy_refused", str(exc))
        except OSError as exc:
            return "", Reason("haproxy_files", f"cannot write {exc.filename}: {exc.strerror}; is it this user's?")
        return static, None

    def _subject(self, text: str, maps: Maps, certificates: Iterable[str]) -> _Subject:
        patterns = tuple(tuple(maps.get(name, ())) for name in MAPS if name.startswith(OF_PATTERNS))
        return _Subject(text, patterns, tuple(identity(self._installation.certificate(name)) for name in certificates))

    def _write_maps(self, rows: Observed, maps: Maps) -> None:
        self._files.write_maps(maps, {str(key): site.root.removeprefix("damaged ") for key, site in rows.sites.items()})

    def _write_list(self, gateway: str, names: Mapping[str, None]) -> None:
        path = self._installation.certificate_list(gateway)
        self._files.write(path, certificate_list(names, self._installation))

    def _refuse(self, why: str) -> Reason:
        reason = Reason("haproxy_refused", f"HAProxy does not take the configuration: {why}")
        if self._checked is not None:
            self._refused = _Refused(self._checked, reason, self._clock())
        self._checked = None
        return reason


def _users(rows: Observed) -> dict[str, dict[str, None]]:
    """The certificates of each gateway."""
    users: dict[str, dict[str, None]] = {}
    for name, row in sorted(rows.certificates.items()):
        for gateway in row.gateways:
            users.setdefault(gateway, {})[name] = None
    return users
