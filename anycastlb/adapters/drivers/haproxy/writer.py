"""Carries out changes by commands, in an order in which no request finds something missing.

What a row was is asked of what HAProxy was last seen to have, and not of the change: a reload in between may have taken
it away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from anycastlb.adapters.certificates import fingerprint
from anycastlb.adapters.drivers.haproxy import entries, work
from anycastlb.adapters.drivers.haproxy.commands import Command
from anycastlb.adapters.drivers.haproxy.engine import Engine
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.inventory import Inventory
from anycastlb.adapters.drivers.haproxy.names import FILE_NAME, UnsafeName, checked
from anycastlb.adapters.drivers.haproxy.observed import Observed
from anycastlb.adapters.drivers.haproxy.sockets import Runtime
from anycastlb.adapters.drivers.haproxy.work import Step
from anycastlb.core.model import Change, HttpServerKey, Reason, Table

Key: TypeAlias = tuple[Table, Any]
Refusals: TypeAlias = dict[Key, Reason]
Script: TypeAlias = list[tuple[Key, Step]]
ARRIVE: tuple[Table, ...] = ("http_certificates", "http_servers", "http_sites")
LEAVE: tuple[Table, ...] = ("http_sites", "http_servers", "http_certificates")


class Writer:
    """``inventory`` is kept up to date with what is written."""

    def __init__(self, installation: Installation, runtime: Runtime, inventory: Inventory, engine: Engine) -> None:
        self._installation, self._runtime = installation, runtime
        self._inventory, self._engine = inventory, engine

    async def write(self, changes: Sequence[Change], seen: Observed, waits: Reason | None) -> Refusals:
        """All changes but of the engine; why some were not made. ``waits``: why there is no new configuration.

        Raises ``HaproxyError``.
        """
        arriving = [[one for one in changes if one.table == table and one.new is not None] for table in ARRIVE]
        leaving = [[one for one in changes if one.table == table and one.new is None] for table in LEAVE]
        refusals: Refusals = {}
        for group in filter(None, (*arriving, *leaving)):
            if group[0].table == "http_sites":
                refusals |= await self._write_sites(group, seen, waits)
            elif group[0].table == "http_servers":
                refusals |= await self._write_servers(group, seen, waits)
            elif group[0].table == "http_certificates":
                refusals |= await self._write_certificates(group, seen)
        return refusals

    async def do(self, script: Iterable[Command]) -> list[str]:
        """HAProxy's refusals of these commands; empty for those that it has carried out."""
        asked = list(script)
        said = await self._runtime.ask([command.text for command in asked]) if asked else []
        return [command.refusal(answer) for command, answer in zip(asked, said, strict=True)]

    async def _run(self, script: Script) -> Refusals:
        """For each key HAProxy's first refusal."""
        refusals: Refusals = {}
        refused = await self.do(step.command for _, step in script)
        for (key, step), refusal in zip(script, refused, strict=True):
            if refusal:
                refusals.setdefault(key, Reason("haproxy_refused", f"{key[1]}: HAProxy refused it: {refusal}"))
                self._inventory.doubt()
            elif step.writes is not None:
                self._inventory.wrote(step.writes)
        return refusals

    # ------------------------------------------------------------ servers

    async def _write_servers(self, changes: Sequence[Change], seen: Observed, waits: Reason | None) -> Refusals:
        sections, refusals, script = self._engine.offers().sections, Refusals(), Script()
        for change in changes:
            key: HttpServerKey = change.key
            if key.section not in sections and change.new is None:
                continue  # it went with its pool
            if key.section not in sections:
                text = f"HAProxy's configuration lacks pool {key.section}"
                refusals[change.table, key] = waits or Reason("section_missing", text)
                continue
            try:
                steps = list(work.server(key, seen.servers.get(key), change.new, key in seen.out_of_use))
            except UnsafeName as exc:
                refusals[change.table, key] = Reason("haproxy_refused", str(exc))
            else:
                script += [((change.table, key), Step(step)) for step in steps]
        refusals |= await self._run(script)
        for change in changes:
            if (change.table, change.key) not in refusals:
                self._inventory.bind(change.key, change.new)
        return refusals

    # ------------------------------------------------------------ sites

    async def _write_sites(self, changes: Sequence[Change], seen: Observed, waits: Reason | None) -> Refusals:
        offered, refusals, possible = self._engine.offers(), Refusals(), list[Change]()
        for change in changes:
            lacks = entries.needs(change.new.entries) - offered if change.new is not None else None
            if lacks:
                text = f"HAProxy's configuration lacks {lacks}"
                refusals[change.table, change.key] = waits or Reason("section_missing", text)
            else:
                possible.append(change)
        refusals |= await self._add_entries([change for change in possible if change.new is not None])
        return refusals | await self._switch([one for one in possible if (one.table, one.key) not in refusals], seen)

    async def _add_entries(self, changes: Sequence[Change]) -> Refusals:
        """Everything that the hostnames will lead to. What several of them share is added once."""
        refusals, script = self._entries(changes)
        if not await self._run(script):
            return refusals
        for change in changes:  # something was refused that others may share: one after the other
            unsafe, script = self._entries([change])
            refusals |= unsafe | await self._run(script)
        return refusals

    def _entries(self, changes: Iterable[Change]) -> tuple[Refusals, Script]:
        assert self._inventory.maps is not None, "HAProxy was looked at"
        planned = {name: dict(contents) for name, contents in self._inventory.maps.items()}
        refusals, script, done = Refusals(), Script(), set[str]()
        for change in changes:
            key = (change.table, change.key)
            if change.new.root in done:
                continue
            try:
                steps = list(work.entries(change.new, planned, self._installation))
            except UnsafeName as exc:
                refusals[key] = Reason("haproxy_refused", str(exc))
                continue
            done.add(change.new.root)
            script += [(key, step) for step in steps]
            for step in steps:
                if step.writes is not None:
                    planned[step.writes.map].update(step.writes.entries)
        return refusals, script

    async def _switch(self, changes: Sequence[Change], seen: Observed) -> Refusals:
        """Let hostnames lead to graphs that are there, or nowhere any more."""
        refusals, script = Refusals(), Script()
        for change in changes:
            exists = change.key in seen.sites
            if change.new is None and not exists:
                continue
            try:
                command = work.switch(change.key, change.new, exists, self._installation)
            except UnsafeName as exc:
                refusals[change.table, change.key] = Reason("haproxy_refused", str(exc))
            else:
                script.append(((change.table, change.key), Step(command)))
        refusals |= await self._run(script)
        for change in changes:
            if change.new is not None and (change.table, change.key) not in refusals:
                self._inventory.mend(change.new.root)
        return refusals

    # ------------------------------------------------------------ certificates

    async def _write_certificates(self, changes: Sequence[Change], seen: Observed) -> Refusals:
        refusals: Refusals = {}
        for change in changes:
            key = (change.table, change.key)
            try:
                steps = list(self._certificate_steps(change, seen))
            except (OSError, ValueError) as exc:
                what = exc.strerror if isinstance(exc, OSError) else exc
                text = f"cannot use {self._installation.certificate(change.key)}: {what}"
                refusals[key] = Reason("certificate_unusable", text, change.key)
                continue
            except UnsafeName as exc:
                refusals[key] = Reason("haproxy_refused", str(exc))
                continue
            refused = await self._run([(key, Step(step)) for step in steps])
            self._inventory.renewed(change.key)
            if refused and change.key not in seen.certificates:
                await self.do([work.undone(change.key, self._installation)])
            refusals |= refused
        return refusals

    def _certificate_steps(self, change: Change, seen: Observed) -> Iterator[Command]:
        """Raises OSError, ValueError, ``UnsafeName``."""
        old, pem = seen.certificates.get(change.key), ""
        if change.new is None and old is None:
            return  # it went with its gateway
        if change.new is not None:
            pem = self._installation.certificate(checked(change.key, FILE_NAME)).read_text("latin-1")
            if fingerprint(pem) != change.new.fingerprint:
                raise ValueError("it was replaced a moment ago; the next look tells")
        yield from work.certificate(change.key, old, change.new, pem, old is not None, self._installation)
