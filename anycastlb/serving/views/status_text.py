"""The pictures of ``status`` as JSON text, of which only those parts are written anew that have changed.

Equal to ``json.dumps(status_view(...))``, whatever the snapshots before were (``tests/unit/test_status_text``). A
``StatusTexts`` is for one caller at a time, in any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from hashlib import blake2b
from operator import is_
from typing import Any
from uuid import uuid4

from anycastlb.core.model import Address, Service, Snapshot
from anycastlb.serving.views.index import Places, Seat
from anycastlb.serving.views.status import backend_view, check_view, picture, service_view, vip_around
from anycastlb.serving.views.text import Slot, Stencil, Text

Name = tuple[Hashable, ...]


class StatusTexts:
    def __init__(self) -> None:
        self._places = Places()
        self._known: dict[Name, tuple[tuple[Any, ...], Text]] = {}
        """The parts of the last picture by their names, each with all that it was made of."""
        self._checks: dict[Name, tuple[tuple[Any, ...], Slot]] = {}
        self._kept: dict[Name, tuple[tuple[Any, ...], Text]] = {}
        self._kept_checks: dict[Name, tuple[tuple[Any, ...], Slot]] = {}
        """The same of the picture that is being made."""
        self._turned = False
        """Has a check another text than in the picture before?"""
        self._vips: tuple[Text, ...] = ()
        self._tag = uuid4().hex
        """Another whenever the VIPs differ from those before in more than their ages."""

    def status(self, snapshot: Snapshot, now: float, source: str) -> tuple[str, str]:
        """The whole picture of the node, and a tag that is another whenever more than ages differs."""
        index = Stencil(snapshot, now, self._places)
        vips = self._vips_of(index)
        text = index.text(picture(index, source, index.part(vips)))
        moments = [gap for gap in text.gaps if gap is not vips]
        around = blake2b(repr((text.pieces, moments)).encode(), digest_size=12).hexdigest()
        return text.at(now), f"{self._tag}-{around}"

    def vips(self, snapshot: Snapshot, now: float) -> tuple[str, str]:
        """The VIPs of the picture, and such a tag."""
        index = Stencil(snapshot, now, self._places)
        vips = self._vips_of(index)
        return index.text({"vips": index.part(vips)}).at(now), self._tag

    def _vips_of(self, index: Stencil) -> Text:
        self._places.keep(index.snapshot.inputs.catalog.services)
        self._kept, self._kept_checks, self._turned = {}, {}, False
        vips = tuple(self._vip(index, vip) for vip in index.vips())
        self._known, self._checks = self._kept, self._kept_checks
        if self._turned or not same(vips, self._vips):
            self._vips, self._tag = vips, uuid4().hex
        return listed(vips)

    def _vip(self, index: Stencil, vip: Address) -> Text:
        services = tuple(self._service(index, service, vip) for service in index.on(vip))
        actual, speaker = index.snapshot.actual, index.snapshot.speaker
        made_of = (
            *services,
            index.verdict(vip),
            index.damping(vip),
            index.gate(vip),
            vip in actual.addresses,
            vip in actual.routes,
            speaker.sessions,
            speaker.rejected.get(vip),
        )
        return self._part((vip,), made_of, index, lambda: vip_around(index, vip, index.part(listed(services))))

    def _service(self, index: Stencil, service: Service, vip: Address) -> Text:
        backends = tuple(self._backend(index, seat) for seat in index.seats(service, vip))
        key = service.key(vip)
        made_of = (
            *backends,
            service,
            index.service(vip, service.name),
            key in index.snapshot.actual.services,
            index.failure("services", key),
        )
        name = (vip, service.name)
        return self._part(name, made_of, index, lambda: service_view(index, service, vip, index.part(listed(backends))))

    def _backend(self, index: Stencil, seat: Seat) -> Text:
        name = (seat.vip, seat.service.name, seat.backend.name)
        check = self._check(index, seat, (*name, "check"))
        refused = index.failure("destinations", seat.key)
        made_of = seat.service, seat.verdict, seat.row, seat.leaves, refused, check
        return self._part(name, made_of, index, lambda: backend_view(index, seat, index.part(check)))

    def _check(self, index: Stencil, seat: Seat, name: Name) -> Slot:
        """What the check has found: with every result it is another, and nothing around it is."""
        made_of = seat.service, seat.state, index.probe_path(seat.check)
        before, slot = self._checks.get(name, ((), None))
        if slot is None or not (same(before, made_of) or before == made_of):
            text, self._turned = index.text(check_view(index, seat)), True
            if slot is None:
                slot = Slot(text)
            slot.text = text
        self._kept_checks[name] = made_of, slot
        return slot

    def _part(self, name: Name, made_of: tuple[Any, ...], index: Stencil, view: Callable[[], object]) -> Text:
        before, text = self._known.get(name, ((), None))
        if text is None or not (same(before, made_of) or before == made_of):
            text = index.text(view())
        self._kept[name] = made_of, text
        return text


def same(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    """Are they the same objects?"""
    return len(before) == len(now) and all(map(is_, before, now))


def listed(texts: Iterable[Text]) -> Text:
    """A list of texts as one."""
    items = tuple(texts)
    return Text(("[", *[", "] * (len(items) - 1), "]"), items) if items else Text(("[]",))
