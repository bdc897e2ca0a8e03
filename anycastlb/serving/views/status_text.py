"""The pictures of ``status`` as JSON text: equal to ``json.dumps(status_view(...))`` (``tests/unit/test_status_text``).

A picture of ten thousand backends is ten megabytes of which each object is much like the next. So only the values that
are an object's own are written for each (``views.text``); nothing is kept of the objects themselves, and the first
picture takes no longer than the next. A ``StatusTexts`` is for one caller at a time, in any thread.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from hashlib import blake2b
from itertools import chain, count
from json.encoder import encode_basestring_ascii
from typing import NamedTuple
from uuid import uuid4

from anycastlb.core.decision.health import UNKNOWN
from anycastlb.core.identity import same_objects
from anycastlb.core.model import Address, Backend, Check, CheckState, Service, Snapshot
from anycastlb.serving.pieces import Pieces, pieces
from anycastlb.serving.views.evidence import runs
from anycastlb.serving.views.index import Index, Places, Seat
from anycastlb.serving.views.status import picture
from anycastlb.serving.views.text import LIMIT, MARK, Moulds, Word, listed, word
from anycastlb.serving.views.vips import backend_view, check_view, service_view, vip_around


class Own(NamedTuple):
    """What a backend has that others have not: its name, its address and its check, as JSON."""

    name: str
    address: str
    check: str
    kind: int
    """A number that those have in common which are alike in all else."""


class Timeless(Index):
    """An index with moments in place of ages."""

    def age(self, since: float) -> float | None:
        return since

    def left(self, until: float) -> float:
        return until


class StatusTexts:
    def __init__(self) -> None:
        self._places = Places()
        self._known: dict[tuple[str, Address], tuple[Service, tuple[Own, ...]]] = {}
        """What is a backend's own by its document, by service and VIP, with the document that says so."""
        self._kinds: dict[Hashable, int] = {}
        """A number for all backends that are alike by their documents, but for what is their own and their weights."""
        self._numbers = count()
        self._states: dict[Hashable, int] = {}
        """A number for all states of checks that say the same but for their ages."""
        self._state: CheckState | None = None
        self._said: tuple[int, tuple[Word, ...]] = 0, ()
        """The last one, and what it says now: backends that nobody checks have one in common."""
        self._vips = Moulds("vip", "since_seconds", "services")
        self._services = Moulds("service", "key", "up", "total", "needed", "backends")
        self._backends = Moulds(
            *("backend", "address", "weight", "nominal_weight", "kernel_weight", "leaves_in_seconds"),
            *(f"weights.{name}" for name in ("nominal", "admin", "health", "ramp")),
            *("check.check", "check.since_seconds", "check.last.duration_seconds", "check.last.age_seconds"),
            *(f"check.runs.{name}_seconds" for name in ("newest", "oldest", "fastest", "slowest")),
            *("check.record.good", "check.record.of"),
        )
        self._parts: tuple[object, ...] = ()
        self._speaker: object = None
        """What the last VIPs were made of."""
        self._tag = ""

    def status(self, snapshot: Snapshot, now: float, source: str) -> tuple[Pieces, str]:
        """The whole picture of the node, and a tag that is another whenever more than ages differs."""
        index = Index(snapshot, now, self._places)
        before, after = json.dumps(picture(index, source, MARK)).split(f'"{MARK}"')
        around = json.dumps(picture(Timeless(snapshot, 0.0, self._places), source, ""))
        tag = f"{self._tag_of(snapshot)}-{blake2b(around.encode(), digest_size=12).hexdigest()}"
        return self._around(index, before, after), tag

    def vips(self, snapshot: Snapshot, now: float) -> tuple[Pieces, str]:
        """The VIPs of the picture, and such a tag."""
        return self._around(Index(snapshot, now, self._places), '{"vips": ', "}"), self._tag_of(snapshot)

    def _around(self, index: Index, before: str, after: str) -> Pieces:
        """The VIPs between these texts."""
        services = index.snapshot.inputs.catalog.services
        self._places.keep(services)
        if len(self._known) > sum(len(service.vips) for service in services):
            self._known.clear()
        if len(self._states) > LIMIT:
            self._states.clear()
        self._state = None  # its ages are others now
        vips = (f"{', ' * (place > 0)}{self._vip(index, vip)}".encode() for place, vip in enumerate(index.vips()))
        return pieces(chain((f"{before}[".encode(),), vips, (f"]{after}".encode(),)))

    def _tag_of(self, snapshot: Snapshot) -> str:
        speaker = snapshot.speaker.sessions, snapshot.speaker.rejected
        parts = snapshot.inputs.catalog, snapshot.inputs.health, snapshot.decision, snapshot.actual, snapshot.failures
        if speaker != self._speaker or not same_objects(parts, self._parts):
            self._speaker, self._parts, self._tag = speaker, parts, uuid4().hex
        return self._tag

    def _vip(self, index: Index, vip: Address) -> str:
        services = [self._service(index, service, vip) for service in index.on(vip)]
        verdict, gate = index.verdict(vip), index.gate(vip)
        actual, speaker = index.snapshot.actual, index.snapshot.speaker
        common = (
            vip.version,  # of the sessions, those of its family carry it
            verdict and (verdict.open, verdict.reason, verdict.kept, verdict.penalty),
            gate and gate.suppressed_since is not None,
            index.damping(vip),
            index.leaving(vip),
            tuple(gateway.name for gateway in index.gateways_on(vip)),
            vip in actual.addresses,
            vip in actual.routes,
            speaker.sessions,
            speaker.rejected.get(vip),
        )
        mould = self._vips.get(common, lambda: vip_around(index, vip, []))
        return mould % (f'"{vip}"', word(index.age(verdict.since) if verdict else None), listed(services))

    def _service(self, index: Index, service: Service, vip: Address) -> str:
        owns, seats = self._owns(index, service, vip), index.seats(service, vip)
        backends = [self._backend(index, seat, own) for seat, own in zip(seats, owns, strict=True)]
        verdict, key, announce = index.service(vip, service.name), service.key(vip), service.announce
        common = (
            service.protocol,
            service.port,
            service.virtual,
            verdict and (verdict.open, verdict.reason, verdict.unsettled),
            announce.min_backends,
            announce.reopen,
            service.backends_from,
            key in index.snapshot.actual.services,
            index.failure("services", key),
        )
        mould = self._services.get(common, lambda: service_view(index, service, vip, []))
        numbers = (verdict.up, verdict.total, verdict.needed) if verdict else ("null",) * 3
        return mould % (encode_basestring_ascii(service.name), f'"{key}"', *numbers, listed(backends))

    def _owns(self, index: Index, service: Service, vip: Address) -> tuple[Own, ...]:
        known, owns = self._known.get((service.name, vip), (None, ()))
        if known is not service:
            owns = tuple(self._own(backend, check) for backend, _, check in index.places_of(service, vip))
            self._known[service.name, vip] = service, owns
        return owns

    def _own(self, backend: Backend, check: Check) -> Own:
        times = check.interval, check.fast_interval, check.down_interval, check.timeout, check.rise, check.fall
        via = check.via and (check.via.forward, check.via.address)
        common = backend.port, backend.forward, backend.drain, backend.fallback, times, via
        kind = self._kinds.setdefault(common, next(self._numbers))
        return Own(
            encode_basestring_ascii(backend.name), f'"{backend.address!s}"', encode_basestring_ascii(str(check)), kind
        )

    def _backend(self, index: Index, seat: Seat, own: Own) -> str:
        verdict, state, row = seat.verdict, seat.state or UNKNOWN, seat.row
        if state is not self._state:
            self._state, self._said = state, self._check(index, state)
        said, found = self._said
        refused = index.failure("destinations", seat.key)
        common = (
            own.kind,
            verdict and (verdict.up, verdict.reason.text, verdict.reason.code, verdict.notes),
            refused.text,
            refused.code,
            seat.check.via and index.probe_path(seat.check),
            said,
        )
        mould = self._backends.get(common, lambda: backend_view(index, seat, check_view(index, seat)))
        weights: tuple[Word, ...] = ("null", seat.backend.weight)
        if verdict is not None:
            parts, admin = verdict.weights, verdict.weights.admin
            weights = verdict.weight, seat.backend.weight, parts.nominal, "null" if admin is None else admin
            weights = *weights, parts.health, parts.ramp
        seen = "null" if row is None else row.weight
        left = "null" if seat.leaves is None else index.left(seat.leaves)
        return mould % (own.name, own.address, *weights, seen, left, own.check, *found)

    def _check(self, index: Index, state: CheckState) -> tuple[int, tuple[Word, ...]]:
        """A number for all states that say the same but for their ages, and the words of this one."""
        age, last, groups = index.age, state.last, runs(state)
        common = (
            state.up,
            state.streak,
            state.asks,
            last and (last.ok, last.detail),
            tuple([(run.last.ok, run.last.detail, len(run.results), run.earlier) for run in groups]),
        )
        words: list[Word] = ["null" if state.up is None else word(age(state.since))]
        if last is not None:
            took, ago = round(last.duration, 6), word(age(last.at))
            words += (took, ago)
        for run in groups:
            if run.results == (last,):
                words += (ago, ago, took, took)
                continue
            durations = [result.duration for result in run.results]
            words += (word(age(run.last.at)), word(age(run.first.at)))
            words += (round(min(durations), 6), round(max(durations), 6))
        words += (round(state.record[0], 1), state.record[1])
        return self._states.setdefault(common, next(self._numbers)), tuple(words)
