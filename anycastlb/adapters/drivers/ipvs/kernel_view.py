"""What the kernel lists of our IPVS services, and what is known of them.

The last look is remembered, and so is what was written since. A later look compares bytes with bytes: an answer that is
the same, but for its counters, stands for the same rows, and none of it is decoded. Rows that are known are the same
objects at every look.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anycastlb.adapters.drivers.ipvs import codec, proc_table, reader
from anycastlb.adapters.system.generic_netlink import PAYLOAD, GenericNetlink
from anycastlb.adapters.system.netlink import Datagram, NetlinkRefused, messages
from anycastlb.core.model import (
    Address,
    Change,
    Destination,
    DestinationKey,
    Network,
    Reason,
    Rows,
    ServiceKey,
    Table,
    TrafficCounters,
    VirtualService,
)

FEW = 16
"""Up to so many services are asked for one by one; of more, the list of all is read."""
Destinations = dict[DestinationKey, Destination]


@dataclass(frozen=True, slots=True)
class Listed:
    """A service's destinations: the rows that are known of it, oldest first, and the answer that stands for them."""

    answer: tuple[Datagram, ...]
    """Empty if the rows are known from what was written."""
    rows: Destinations
    usual: bool
    """Does each message of the answer stand for one row?"""
    masks: tuple[int, ...] | None = None
    """Which bits of each datagram are no counters; None before they are needed."""


def _same(one: Datagram, other: Datagram, mask: int) -> bool:
    """Are two datagrams the same, but for their counters?"""
    return one == other or (one[1] == other[1] and _number(one) & mask == _number(other) & mask)


def _hidden(rows: Destinations) -> bool:
    """Has a destination what ``/proc/net/ip_vs`` does not show: thresholds, or another tunnel than IPIP?"""
    return any(row.upper or row.lower or row.forward in ("gue", "gre") for row in rows.values())


def _number(datagram: Datagram) -> int:
    return int.from_bytes(datagram[0][: datagram[1]], "little")


class KernelView:
    """The methods that take ``kernel`` ask it, and may raise ``DriverError``."""

    def __init__(self, vip_ranges: Sequence[Network], mark_ranges: Sequence[tuple[int, int]]) -> None:
        """Ours is every service whose address lies in ``vip_ranges``, or whose mark lies in ``mark_ranges``."""
        self._vip_ranges, self._mark_ranges = tuple(vip_ranges), tuple(mark_ranges)
        self._in_ranges: dict[Address, bool] = {}
        self._reader = reader.IpvsReader()
        self._services: dict[ServiceKey, VirtualService] = {}
        self._listed: dict[ServiceKey, Listed] = {}
        self._shown: dict[ServiceKey, tuple[bytes, Listed | None]] = {}
        """How the text of ``/proc/net/ip_vs`` showed a service while its destinations were these."""
        self._suspected: Mapping[ServiceKey, bytes | None] = {}
        """How it showed those that have to be looked at, when it was read last; None: not at all."""
        self._last: tuple[list[Destinations], Mapping[Table, Rows]] | None = None
        """Of the last look, while nothing was written since: the destinations of each service, and the tables."""
        self._lowered: dict[DestinationKey, int] = {}
        """The last non-zero weight of destinations that we set to 0: the kernel cannot be asked for it."""
        self._absent: set[DestinationKey] = set()
        """Those of them that the last look did not show: forgotten when the next one does not show them either."""
        self._counted: dict[ServiceKey, tuple[tuple[Datagram, ...], dict[DestinationKey, TrafficCounters]]] = {}
        self._counted_services: dict[ServiceKey, tuple[bytes, TrafficCounters]] = {}
        """What answer had which counters."""

    # ------------------------------------------------------------ looks

    def look(self, kernel: GenericNetlink) -> Mapping[Table, Rows]:
        """Our services and their destinations, oldest first; the very tables of the last look if they are the same."""
        services = self._list_services(kernel)
        lists = []
        for key in services:
            self._listed[key] = listed = self._list(kernel, key)
            lists.append(listed.rows)
        if (last := self._last) is not None:
            same = len(lists) == len(last[0]) and all(map(_is, lists, last[0]))
            if same and list(services.items()) == list(self._services.items()):
                self._forget(last[1]["destinations"])
                return last[1]
        destinations: Destinations = {}
        for rows in lists:
            destinations.update(rows)  # dict to dict: no key is hashed again
        for gone in self._listed.keys() - services.keys():
            del self._listed[gone]
        self._forget(destinations)
        self._services = dict(services)
        tables: Mapping[Table, Rows] = {"services": services, "destinations": destinations}
        self._last = lists, tables
        return tables

    def differ(self, kernel: GenericNetlink, keys: Collection[ServiceKey]) -> bool:
        """Are these services or their destinations not as last seen or written?"""
        return self.services_differ(kernel, keys) or self.destinations_differ(kernel, keys)

    def services_differ(self, kernel: GenericNetlink, keys: Collection[ServiceKey] | None) -> bool:
        """Are these services (None: is the list of all) not as last seen or written, whatever their destinations?"""
        if keys is None:
            return self._list_services(kernel) != self._services
        if len(keys) <= FEW:
            return any(self._ask(kernel, key) != self._services.get(key) for key in keys)
        listed = self._list_services(kernel)
        return any(listed.get(key) != self._services.get(key) for key in keys)

    def destinations_differ(self, kernel: GenericNetlink, keys: Iterable[ServiceKey]) -> bool:
        """Are the destinations of these services not as last seen or written?"""
        for key in keys:
            now = self._list(kernel, key)
            known = self._listed.get(key)
            if now.rows is not known.rows if known is not None else now.rows:
                return True
            if known is not None:
                self._listed[key] = now
                if (block := self._suspected.get(key)) is not None and not _hidden(now.rows):
                    self._shown[key] = block, now
        return False

    def suspects(self, text: bytes, services: Sequence[ServiceKey]) -> list[ServiceKey]:
        """Those of these services that the text of ``/proc/net/ip_vs`` does not show as it did when their destinations
        were last as they are known. All are, until ``destinations_differ`` has looked at them once; and always those
        that have what the text does not show."""
        now = proc_table.blocks(text)
        suspects = []
        for key in services:
            block, (before, listed) = now.get(proc_table.label(key)), self._shown.get(key, (b"", None))
            if block is None or listed is None or listed is not self._listed.get(key):
                suspects.append(key)
            elif block != before:
                self._counted.pop(key, None)  # its connections may be others although no packet has come
                if proc_table.without_connections(block) != proc_table.without_connections(before):
                    suspects.append(key)
                else:
                    self._shown[key] = block, listed
        self._suspected = {key: now.get(proc_table.label(key)) for key in suspects}
        for gone in self._shown.keys() - self._listed.keys():
            del self._shown[gone]
        return suspects

    def _ask(self, kernel: GenericNetlink, key: ServiceKey) -> VirtualService | None:
        """One service; None if it does not exist."""
        try:
            data = kernel.ask(codec.GET_SERVICE, codec.service_name(key))
        except NetlinkRefused as exc:
            if exc.number != errno.ESRCH:
                raise
            return None
        entry = self._reader.service(data, PAYLOAD, len(data))
        return entry[1] if entry is not None else None

    def _list_services(self, kernel: GenericNetlink) -> dict[ServiceKey, VirtualService]:
        return {key: row for _, (key, row) in self._service_messages(kernel)}

    def _service_messages(
        self, kernel: GenericNetlink
    ) -> Iterator[tuple[tuple[bytes, int, int], tuple[ServiceKey, VirtualService]]]:
        """The messages of our services, and what they stand for."""
        for message in kernel.dump(codec.GET_SERVICE):
            entry = self._reader.service(*message)
            if entry is not None and self._ours(entry[0]):
                yield message, entry

    def _ours(self, key: ServiceKey) -> bool:
        if key.protocol == "fwmark":
            return any(low <= key.port <= high for low, high in self._mark_ranges)
        known = self._in_ranges.get(key.address)
        if known is None:
            if len(self._in_ranges) > reader.REMEMBERED:
                self._in_ranges.clear()
            known = self._in_ranges[key.address] = any(key.address in network for network in self._vip_ranges)
        return known

    def _list(self, kernel: GenericNetlink, service: ServiceKey) -> Listed:
        """A service's destinations; with the rows that are known of it, if they are the same."""
        known = self._listed.get(service)
        before = known.answer if known is not None else ()
        answer = tuple(kernel.datagrams(codec.GET_DESTINATION, codec.service_name(service), before))
        if known is not None and known.usual:
            if known.answer == answer:
                return known
            masks = known.masks or self._reader.masks(known.answer)
            if masks is not None and len(answer) == len(masks) and all(map(_same, known.answer, answer, masks)):
                return Listed(answer, known.rows, True, masks)
        reals = [self._reader.destination(*message) for message in _messages(answer)]
        rows: Destinations = {}
        for real in reversed(reals):  # the kernel lists the newest first
            if real is None:
                continue
            address, port, row = real
            name = DestinationKey(service, address, port)
            if not row.weight and name in self._lowered:
                row = replace(row, last_weight=self._lowered[name])
            rows[name] = row
        if known is not None and list(rows.items()) == list(known.rows.items()):
            rows = known.rows
        return Listed(answer, rows, usual=len(rows) == len(reals) > 0)

    def _forget(self, destinations: Rows) -> None:
        """Forget the last weights of destinations that have a weight again, and of those gone for two looks."""
        absent = {name for name in self._lowered if name not in destinations}
        raised = {name for name in self._lowered if name not in absent and destinations[name].weight}
        for name in raised | (absent & self._absent):
            del self._lowered[name]
        self._absent = absent - self._absent

    # ------------------------------------------------------------ what was written

    def wrote(self, changes: Sequence[Change], reasons: Mapping[int, Reason]) -> None:
        """These changes were made, but for those that have a reason. Of what failed half-way nothing is known."""
        self._last = None
        for change in changes:
            key = change.key if change.table == "services" else change.key.service
            if id(change) in reasons:
                self._services.pop(key, None)
                self._listed.pop(key, None)
            elif change.table == "services":
                self._wrote_service(change)
            if change.table == "destinations":
                self._wrote_destination(change, id(change) in reasons)

    def forget(self) -> None:
        """Nothing is known any more, but for the last weights of what was lowered."""
        self._last = None
        self._services.clear()
        self._listed.clear()

    def _wrote_service(self, change: Change) -> None:
        key: ServiceKey = change.key
        if change.new is None:
            self._services.pop(key, None)
            self._listed.pop(key, None)
        else:
            self._services[key] = change.new
            self._listed.setdefault(key, Listed((), {}, usual=False))

    def _wrote_destination(self, change: Change, failed: bool) -> None:
        key: DestinationKey = change.key
        new: Destination | None = change.new
        last = None if new is None or new.weight or failed else new.last_weight
        if last is not None:
            self._lowered[key] = last
        else:
            self._lowered.pop(key, None)
        listed = self._listed.get(key.service)
        if listed is None:
            return
        if listed.usual:
            listed = self._listed[key.service] = Listed((), listed.rows, usual=False)
        if new is None or change.moved:
            listed.rows.pop(key, None)  # moved: it becomes the newest
        if new is not None:
            listed.rows[key] = new

    # ------------------------------------------------------------ counters

    def statistics(self, kernel: GenericNetlink) -> Mapping[ServiceKey | DestinationKey, TrafficCounters]:
        """What the kernel has counted, of our services and destinations.

        A service without traffic is not asked for its destinations, since it counts all that they count.
        """
        counted: dict[Any, TrafficCounters] = {}
        silent: dict[ServiceKey, bool] = {}
        for (data, start, end), (key, _) in self._service_messages(kernel):
            message, known = data[start:end], self._counted_services.get(key)
            silent[key] = known is not None and known[0] == message and self._at_rest(key)
            if known is None or known[0] != message:
                known = message, reader.counters(message, 0, len(message), of_destination=False)
                self._counted_services[key] = known
            counted[key] = known[1]
        for service, at_rest in silent.items():
            counted.update(self._counted[service][1] if at_rest else self._of_destinations(kernel, service))
        for memory in (self._counted, self._counted_services):
            for gone in memory.keys() - silent.keys():
                del memory[gone]
        return counted

    def _at_rest(self, service: ServiceKey) -> bool:
        """Are its destinations as they were counted, as far as is known, and has none of them a connection?

        Connections end without a packet, and another node's are synchronised without one: the patrol's looks show that.
        """
        known, listed = self._counted.get(service), self._listed.get(service)
        if known is None or listed is None or not listed.usual or known[0] != listed.answer:
            return False
        return not any(now.active or now.inactive for now in known[1].values())

    def unused(self, kernel: GenericNetlink, services: Iterable[ServiceKey]) -> frozenset[DestinationKey]:
        """The destinations of these services that have no connection. One that does not exist has none of either."""
        counted: dict[DestinationKey, TrafficCounters] = {}
        for service in services:
            try:
                counted.update(self._of_destinations(kernel, service))
            except NetlinkRefused as exc:
                if exc.number != errno.ESRCH:
                    raise
        return frozenset(key for key, now in counted.items() if not now.active + now.inactive)

    def _of_destinations(self, kernel: GenericNetlink, service: ServiceKey) -> dict[DestinationKey, TrafficCounters]:
        now = self._list(kernel, service)
        known = self._counted.get(service)
        if known is not None and known[0] == now.answer:
            return known[1]
        counted: dict[DestinationKey, TrafficCounters] = {}
        if now.usual:
            for key, message in zip(reversed(now.rows), _messages(now.answer), strict=True):
                counted[key] = self._reader.counters(*message)
        else:
            for message in _messages(now.answer):
                if (real := self._reader.destination(*message)) is not None:
                    counted[DestinationKey(service, real[0], real[1])] = self._reader.counters(*message)
        self._counted[service] = now.answer, counted
        return counted


def _is(one: object, other: object) -> bool:
    return one is other


def _messages(answer: Iterable[Datagram]) -> Iterator[tuple[bytes, int, int]]:
    """Every message of an answer as (datagram, start of its attributes, end)."""
    for data, size in answer:
        for start, end, _ in messages(data, size):
            yield data, start + PAYLOAD, end
