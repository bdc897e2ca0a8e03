"""Which changes must not be tried after others have failed.

A failure is contained in what depends on it: nothing is torn down under a route that could not be withdrawn, or before
what replaces it was made, and no route is announced whose address, services or backends could not be built, whose
backends got no weight, or of a gateway none of whose hostnames HAProxy knows. Everything else goes on.

Pure. Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from anycastlb.core.decision.basis import unheard
from anycastlb.core.decision.handover import vips_of
from anycastlb.core.decision.plan import Destinations, by_service
from anycastlb.core.model import (
    EMPTY,
    Address,
    Change,
    DestinationKey,
    Failure,
    Reason,
    ServiceKey,
    ServiceVerdict,
    SiteKey,
    Table,
    Verdict,
    on_vip,
)

Fwmarks: TypeAlias = Mapping[ServiceKey, frozenset[Address]]
"""The VIPs of fwmark services (``Memory.fwmarks``)."""


class FailedChanges:
    """The failures of a plan so far, by what depends on them.

    ``desired``: the destinations that the plan leads to. Of a service that gets none of its weights, none is taken.
    ``leaving``: the rows nobody asks for any more. They lose no weight under a route that is still up.
    ``sites``: the hostnames that the plan leads to.
    """

    def __init__(
        self,
        verdicts: Mapping[Address, Verdict],
        fwmarks: Fwmarks = EMPTY,
        failures: Collection[Failure] = (),
        desired: Destinations = EMPTY,
        leaving: Container[tuple[Table, Any]] = (),
        sites: Iterable[SiteKey] = (),
    ) -> None:
        self._verdicts, self._fwmarks, self._desired, self._leaving = verdicts, fwmarks, desired, leaving
        self._sites = sites
        self._hostnames: Counter[str] | None = None
        """How many each gateway is to have."""
        self._first: dict[tuple[Table, Any], Failure] = {}
        """The first failure of each row."""
        self._of_service: dict[ServiceKey, Failure] = {}
        """The first failure of each service, or of a backend that it was to get; one that is under way comes last."""
        self._raises: dict[ServiceKey, Failure] = {}
        """The first failure of each service to give a weight to a destination that had none."""
        self._weighted: dict[ServiceKey, list[DestinationKey]] | None = None
        self._without_hostname: dict[str, list[Failure]] = {}
        """The failures of each gateway, by its name as a service, to get a hostname."""
        self._doubt: Reason | None = None
        """A fault of ours that keeps this from knowing what has failed."""
        if failures:
            self.add(failures)

    def add(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            change = failure.change
            self._first.setdefault((change.table, change.key), failure)
            if change.table == "services":
                self._note(change.key, failure)
            elif change.table == "destinations" and change.verb == "create" and change.new.weight:
                self._note(change.key.service, failure)
            elif change.table == "http_engine":
                for listener in unheard(change):
                    self._note(listener, failure)
            elif change.table == "destinations" and _gives_weight(change):
                self._raises.setdefault(change.key.service, failure)
            elif change.table == "http_sites" and change.verb == "create":
                self._without_hostname.setdefault(on_vip(change.key.gateway), []).append(failure)

    def doubt(self, why: Reason) -> None:
        """From now on nothing is tried but to withdraw routes: nobody knows what depends on what has failed."""
        self._doubt = why

    def _note(self, service: ServiceKey, failure: Failure) -> None:
        known = self._of_service.get(service)
        if known is None or (known.pending and not failure.pending):
            self._of_service[service] = failure

    def blocks(self, change: Change) -> Failure | None:
        """What becomes of a change that must not be tried after these failures; None = go ahead.

        A change that waits only for what is under way is under way itself.
        """
        if self._doubt is not None and not (change.table == "routes" and change.new is None):
            return Failure(change, self._doubt)
        if not self._first:
            return None
        if change.table == "routes" and change.new is not None:
            return self._incomplete(change)
        if change.verb == "delete" and (vips := _vips(change, self._fwmarks)):
            return self._still_needed(change, vips)
        if change.table != "destinations":
            return None
        if change.verb == "update" and not change.new.weight and (outcome := self._last_weight(change)):
            return outcome
        service = self._first.get(("services", change.key.service))
        if service and service.change.verb == "create":
            why = Reason("service_missing", f"its service is missing: {service.reason}", str(service.change.key))
            return Failure(change, why, service.pending)
        return None

    def _incomplete(self, change: Change) -> Failure | None:
        """A route whose VIP has no address, or misses a service or a backend that the decision counts on."""
        address = self._first.get(("addresses", change.key))
        cause = _worst([*([address] if address else []), *self._services(change.key)])
        if cause is None:
            return None
        why = Reason("vip_incomplete", f"not announced: {cause.reason}", str(cause.change.key))
        return Failure(change, why, cause.pending)

    def _last_weight(self, change: Change) -> Failure | None:
        """A weight that must stay: no other could be given, or a route that is still up leads to what is leaving."""
        if cause := self._weightless(change.key.service):
            return _kept(change, cause)
        if ("destinations", change.key) in self._leaving:
            return self._still_led_to(change, _vips(change, self._fwmarks))
        return None

    def _still_led_to(self, change: Change, vips: frozenset[Address]) -> Failure | None:
        """A row under a route that is still up."""
        for vip in vips:
            if (up := self._first.get(("routes", vip))) and up.change.verb == "delete":
                why = f"kept, because the route is still up: {up.reason}"
                return Failure(change, Reason("route_still_up", why, str(up.change.key)), up.pending)
        return None

    def _still_needed(self, change: Change, vips: frozenset[Address]) -> Failure | None:
        """A row under a route that is still up, or whose replacement could not be made."""
        if up := self._still_led_to(change, vips):
            return up
        cause = _worst([failure for vip in vips for failure in self._services(vip, replacing=True)])
        return None if cause is None else _kept(change, cause)

    def _weightless(self, service: ServiceKey) -> Failure | None:
        """The failure that leaves a service without any of the weights that the plan leads to; None if it has one."""
        failure = self._raises.get(service)
        if failure is None:
            return None
        if self._weighted is None:
            self._weighted = by_service(key for key, row in self._desired.items() if row.weight)
        has_one = any(not self._lost(key) for key in self._weighted.get(service, ()))
        return None if has_one else failure

    def _nameless(self, gateway: str) -> Failure | None:
        """The failure that leaves a gateway without any of its hostnames; None if HAProxy knows one of them.

        One of many does not keep the others from being announced: an edit may add hostnames all the time.
        """
        failures = self._without_hostname.get(gateway)
        if failures is None:
            return None
        if self._hostnames is None:
            self._hostnames = Counter(on_vip(key.gateway) for key in self._sites)
        return None if len(failures) < self._hostnames[gateway] else _worst(failures)

    def _lost(self, key: DestinationKey) -> bool:
        failure = self._first.get(("destinations", key))
        return failure is not None and (failure.change.old is None or _gives_weight(failure.change))

    def _services(self, vip: Address, replacing: bool = False) -> list[Failure]:
        """The failures of the services that the decision to announce a VIP counts on.

        ``replacing``: only of services that can be served. The next decision knows of the failure, and counts on it no
        more, so that nothing is kept for long.
        """
        verdict = self._verdicts.get(vip)
        services = [item for item in verdict.services if item.open or not replacing] if verdict else []
        return [failure for failure in map(self._of, services) if failure]

    def _of(self, item: ServiceVerdict) -> Failure | None:
        return self._of_service.get(item.key) or self._weightless(item.key) or self._nameless(item.service)


def _gives_weight(change: Change) -> bool:
    """Does it give a weight to a destination that had none?"""
    return change.old is not None and change.new is not None and bool(change.new.weight) and not change.old.weight


def _kept(change: Change, cause: Failure) -> Failure:
    why = f"kept until the next look, because what replaces it could not be made: {cause.reason}"
    return Failure(change, Reason("replacement_missing", why, str(cause.change.key)), cause.pending)


def _worst(failures: Sequence[Failure]) -> Failure | None:
    """The first that is not merely under way; else the first."""
    return min(failures, key=lambda failure: failure.pending, default=None)


def _vips(change: Change, fwmarks: Fwmarks) -> frozenset[Address]:
    """The VIPs that a row serves; none for a name, a route or a probe's row."""
    if change.table == "addresses":
        return frozenset({change.key})
    if change.table in ("services", "destinations"):
        return vips_of(change.key.service if change.table == "destinations" else change.key, fwmarks)
    return frozenset()
