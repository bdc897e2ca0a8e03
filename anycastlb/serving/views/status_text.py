"""The pictures of ``status`` as JSON text, of which only those parts are written anew that have changed.

Equal to ``json.dumps(status_view(...))``, whatever the snapshots before were (``tests/unit/test_status_text``). A
``StatusTexts`` is for one caller at a time, in any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from operator import is_
from typing import Any, TypeAlias
from uuid import uuid4

from anycastlb.core.model import Address, Service, Snapshot
from anycastlb.serving.views.index import Places, Seat
from anycastlb.serving.views.status import picture
from anycastlb.serving.views.text import Slot, Stencil, Text
from anycastlb.serving.views.vips import backend_view, check_view, service_view, vip_around

Parts: TypeAlias = dict[Hashable, tuple[tuple[Any, ...], Text]]
"""Texts by the names of what they are about, each with all that it was made of."""


@dataclass(slots=True, eq=False)
class Known:
    """The texts of one picture."""

    parts: Parts = field(default_factory=dict)
    """Of VIPs, and of services on them."""
    backends: dict[tuple[Address, str], dict[str, Backend]] = field(default_factory=dict)
    """By VIP and service, and then by name."""


@dataclass(slots=True, eq=False)
class Backend:
    """The text of one backend, with a place in it for what its check has found."""

    check: Slot
    check_of: tuple[Any, ...]
    """What the text of the check was made of."""
    text: Text
    made_of: tuple[Any, ...]


class StatusTexts:
    def __init__(self) -> None:
        self._places = Places()
        self._known, self._kept = Known(), Known()
        """Of the last picture, and of the one that is being made."""
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
        self._kept, self._turned = Known(), False
        vips = tuple(self._vip(index, vip) for vip in index.vips())
        self._known = self._kept
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
        return self._part(vip, made_of, index, lambda: vip_around(index, vip, index.part(listed(services))))

    def _service(self, index: Stencil, service: Service, vip: Address) -> Text:
        name, key = (vip, service.name), service.key(vip)
        known, kept = self._known.backends.get(name, {}), dict[str, Backend]()
        for seat in index.seats(service, vip):
            kept[seat.backend.name] = self._backend(index, seat, known.get(seat.backend.name))
        self._kept.backends[name] = kept
        backends = tuple(backend.text for backend in kept.values())
        made_of = (
            *backends,
            service,
            index.service(vip, service.name),
            key in index.snapshot.actual.services,
            index.failure("services", key),
        )
        return self._part(name, made_of, index, lambda: service_view(index, service, vip, index.part(listed(backends))))

    def _backend(self, index: Stencil, seat: Seat, known: Backend | None) -> Backend:
        """With every result a check has another text, and nothing around it has."""
        check_of = seat.service, seat.state, index.probe_path(seat.check)
        if known is None or not unchanged(known.check_of, check_of):
            text, self._turned = index.text(check_view(index, seat)), True
            if known is not None:
                known.check.text = text
        check = known.check if known is not None else Slot(text)
        made_of = seat.service, seat.verdict, seat.row, seat.leaves, index.failure("destinations", seat.key)
        if known is None or not unchanged(known.made_of, made_of):
            return Backend(check, check_of, index.text(backend_view(index, seat, index.part(check))), made_of)
        known.check_of, known.made_of = check_of, made_of
        return known

    def _part(self, name: Hashable, made_of: tuple[Any, ...], index: Stencil, view: Callable[[], object]) -> Text:
        before, text = self._known.parts.get(name, ((), None))
        if text is None or not unchanged(before, made_of):
            text = index.text(view())
        self._kept.parts[name] = made_of, text
        return text


def unchanged(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    return same(before, now) or before == now


def same(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    """Are they the same objects?"""
    return len(before) == len(now) and all(map(is_, before, now))


def listed(texts: Iterable[Text]) -> Text:
    """A list of texts as one."""
    items = tuple(texts)
    return Text(("[", *[", "] * (len(items) - 1), "]"), items) if items else Text(("[]",))
