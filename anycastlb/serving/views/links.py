"""The links of the chain that ``why`` shows: evidence, weight, gate, kernel, route and BGP sessions.

Each link is ``ok`` or not, in the decision's own words. Pure: nothing here decides.
"""

from __future__ import annotations

from typing import Any

from anycastlb.core.decision import flow_takeover
from anycastlb.core.decision.sessions import known_reason, known_state
from anycastlb.core.model import Address, Check, CheckState, Service, ServiceVerdict, endpoint
from anycastlb.serving.views.arithmetic import explain_penalty, explain_threshold, explain_weight
from anycastlb.serving.views.evidence import Run, runs
from anycastlb.serving.views.format import UNDECIDED, attributes, host_route, span, virtual
from anycastlb.serving.views.index import Index, Seat
from anycastlb.serving.views.names import names_of_vip

Link = dict[str, Any]
ARROW = " → "


def link(what: str, ok: bool | None, name: str, text: str, links: list[Link] | None = None) -> Link:
    """One link: its kind, whether it holds (None: not known), the object, what to say of it, what is under it."""
    return {"what": what, "ok": ok, "object": name, "text": text, "links": links or []}


def evidence_links(index: Index, seat: Seat) -> list[Link]:
    """One backend link by link: check, last result, state, weight, kernel."""
    kernel = link("kernel", None if seat.drained else seat.row is not None, str(seat.key), _kernel(index, seat))
    return [*weight_links(index, seat), kernel]


def weight_links(index: Index, seat: Seat) -> list[Link]:
    """From a backend's check to its weight."""
    verdict = seat.verdict
    return [
        _check(index, seat.check),
        _results(index, seat.state),
        link("state", verdict.up if verdict else None, "", state_text(index, seat) + _unproven(index, seat.state)),
        link("weight", serves(seat), "", _weight(seat)),
    ]


def _check(index: Index, check: Check) -> Link:
    parts = [f"every {span(check.interval)}"]
    parts += [f"every {span(check.fast_interval)} while it turns"] if check.fast_interval else []
    parts += [f"up to {span(check.down_interval)} while down"] if check.down_interval else []
    parts += [f"time-out {span(check.timeout)}", f"rise {check.rise}", f"fall {check.fall}"]
    probe_path = index.probe_path(check)
    if probe_path is None:
        return link("check", None, str(check), ", ".join(parts))
    way = f"through IPVS by mark {probe_path}" if isinstance(probe_path, int) else probe_path
    return link("check", False if isinstance(probe_path, str) else None, str(check), ", ".join([*parts, way]))


def _results(index: Index, state: CheckState | None) -> Link:
    """The last result, and under it what came before."""
    groups = runs(state)
    if not groups:
        return link("result", None, "", result_text(index, state))
    alike = len(groups[0].results) - 1
    repeated = f"; the {alike} before were alike" if alike > 1 else "; the one before was alike" if alike else ""
    before = [link("earlier" if run.earlier else "before", run.last.ok, "", _run(index, run)) for run in groups[1:]]
    return link("result", groups[0].last.ok, "", result_text(index, state) + repeated, before)


def _run(index: Index, run: Run) -> str:
    last, first = run.last, run.first
    if len(run.results) == 1:
        return f"{last.detail}, took {span(last.duration)}, {span(index.age(last.at))} ago"
    durations = [result.duration for result in run.results]
    took = _between(span(min(durations)), span(max(durations)))
    ago = _between(span(index.age(last.at)), span(index.age(first.at)))
    return f"{last.detail}, {len(run.results)} times, took {took}, {ago} ago"


def _between(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def result_text(index: Index, state: CheckState | None) -> str:
    if not state or not state.last:
        return "no result yet"
    last = state.last
    return f"{last.detail}, took {span(last.duration)}, {span(index.age(last.at))} ago"


def state_text(index: Index, seat: Seat) -> str:
    state, check = seat.state, seat.check
    up = bool(seat.verdict and seat.verdict.up)
    if not state or state.up is None:
        return f"{'up' if up else 'down'}: {seat.verdict.reason if seat.verdict else UNDECIDED}"
    text = f"{'up' if state.up else 'down'} for {span(index.age(state.since))}{_record(state)}"
    if state.streak and state.up:
        return f"{text}, {state.streak} of {check.fall} failures in a row to go down"
    if state.streak:
        return f"{text}, {state.streak} of {check.rise} successes in a row to come up"
    return text if up == state.up or not seat.verdict else f"{text}; counted as {'up' if up else seat.verdict.reason}"


def _unproven(index: Index, state: CheckState | None) -> str:
    """What the last probe lacked, if it says nothing of the backend."""
    if state is None or state.up is None or state.unproven is None:
        return ""
    return f"; {span(index.age(state.unproven.at))} ago {state.unproven.detail}"


def _record(state: CheckState) -> str:
    good, of = state.record
    return f", {good:.0f} of the last {of} results good" if round(good) < of else ""


def _weight(seat: Seat) -> str:
    verdict, configured = seat.verdict, seat.backend.weight
    if not verdict:
        return "not decided yet"
    worked = explain_weight(verdict.weights, configured, verdict.weight)
    return f"{verdict.weight} of {configured}: {verdict.reason}" + (f" ({worked})" if worked else "")


def _kernel(index: Index, seat: Seat) -> str:
    if refused := index.refusal("destinations", seat.key):
        return f"the kernel refused it: {refused}"
    if not seat.row:
        return "drained, not in the kernel" if seat.drained else "not in the kernel"
    text = f"{seat.row.forward}, weight {seat.row.weight}"
    return text if seat.leaves is None else f"{text}, draining for at most {span(index.left(seat.leaves))}"


def service_link(index: Index, service: Service, vip: Address, every: bool) -> Link:
    """A service's arithmetic on one VIP; with ``every``, a one-line chain for each backend under it."""
    verdict = index.service(vip, service.name)
    key = service.key(vip)
    backends = []
    for seat in index.seats(service, vip) if every else ():
        parts = [result_text(index, seat.state), state_text(index, seat), short_weight(seat), _kernel(index, seat)]
        name = f"{seat.backend.name} {endpoint(seat.backend.address, seat.backend.port)}"
        backends.append(link("backend", serves(seat), name, ARROW.join(parts)))
    sync = "sync_master" in index.snapshot.actual.config
    text = "; ".join([f"{key}: {verdict.reason if verdict else UNDECIDED}", *_terms(service, verdict, sync)])
    return link("service", verdict.open if verdict else None, service.name, text, backends)


def _terms(service: Service, verdict: ServiceVerdict | None, sync: bool) -> list[str]:
    """What else the service's verdict depends on, beside its reason, and whether its flows can move."""
    terms = [explain_threshold(service.announce)]
    if verdict and verdict.unsettled:
        terms.append(f"some backends are not checked yet: all will be within {span(verdict.unsettled)}")
    if service.backends_from:
        terms.append(f"backends from {service.backends_from}")
    if warning := flow_takeover.warning(service, sync):
        terms.append(warning.text)
    return [text for text in terms if text]


def serves(seat: Seat) -> bool | None:
    """Does it get flows; None: it could, and is not meant to."""
    if not seat.verdict:
        return False
    return True if seat.verdict.weight else None if seat.verdict.up else False


def short_weight(seat: Seat) -> str:
    return f"weight {seat.verdict.weight}/{seat.backend.weight}" if seat.verdict else "not decided yet"


def route_links(index: Index, vip: Address) -> list[Link]:
    """From the gate to the sessions: gate, loopback, kernel service, route, BGP sessions."""
    snapshot, verdict = index.snapshot, index.verdict(vip)
    row = snapshot.actual.addresses.get(vip)
    refused = index.refusal("addresses", vip)
    links = [
        link("gate", bool(verdict and verdict.open), str(vip), _gate(index, vip)),
        link(
            "address",
            row is not None,
            host_route(vip),
            f"on {row.interface}" if row else f"refused: {refused}" if refused else "not on the loopback",
        ),
    ]
    for service in index.on(vip):
        key = service.key(vip)
        virtual_row, refused = snapshot.actual.services.get(key), index.refusal("services", key)
        missing = f"the kernel refused it: {refused}" if refused else "not in the kernel"
        links.append(
            link("kernel", virtual_row is not None, str(key), virtual(virtual_row) if virtual_row else missing)
        )
    links.append(_route(index, vip))
    return [*links, _sessions(index, vip)]


def _gate(index: Index, vip: Address) -> str:
    verdict = index.verdict(vip)
    if not verdict:
        return "nothing asks for this VIP any more; its flows are draining" if index.leaving(vip) else "not decided yet"
    open_services = sum(service.open for service in verdict.services)
    announced = [*(one.announce for one in index.on(vip)), *(one.announce for one in index.gateways_on(vip))]
    needs = ["all" if announce.when == "all" else "any" for announce in announced]
    rule = f" ({open_services}/{len(needs)} services open, needs {' and '.join(sorted(set(needs)))})"
    age = index.age(verdict.since)
    lasting = f" for {span(age)}" if age is not None else ""
    damped = explain_penalty(verdict, index.gate(vip), index.damping(vip))
    text = f"{'open' if verdict.open else 'closed'}{lasting}: {verdict.reason}{rule if len(needs) > 1 else ''}"
    return f"{text}; {damped}" if damped else text


def _route(index: Index, vip: Address) -> Link:
    snapshot, name = index.snapshot, host_route(vip)
    row = snapshot.actual.routes.get(vip)
    if row is not None:
        shown = attributes(row)
        return link("route", True, name, "announced" + (f", {shown}" if shown else ""))
    if reason := snapshot.speaker.rejected.get(vip):
        return link("route", False, name, f"rejected: {reason}")
    if reason := index.refusal("routes", vip):
        return link("route", False, name, f"refused: {reason}")
    if vip not in snapshot.decision.desired.routes:
        return link("route", False, name, "withdrawn, because the gate is closed")
    waiting = "ExaBGP has not acknowledged it yet" if snapshot.speaker.connected else "the BGP bridge is not connected"
    return link("route", False, name, f"wanted, but {waiting}")


def name_links(index: Index, vip: Address) -> list[Link]:
    return [link("name", ok, name, text) for ok, name, text in names_of_vip(index, vip)]


def _sessions(index: Index, vip: Address) -> Link:
    speaker = index.snapshot.speaker
    sessions = [
        link(
            "session",
            s.state == "up",
            s.peer,
            f"{known_state(s)} for {span(index.age(s.since))}" + (f": {why}" if (why := known_reason(s)) else ""),
        )
        for s in index.carriers(vip)
    ]
    if not speaker.connected:
        return link("bgp", False, "ExaBGP", "bridge not connected: is ExaBGP running?", sessions)
    up = any(session["ok"] for session in sessions)
    return link("bgp", up, "ExaBGP", f"bridge connected, {sessions_up(index, vip)} up", sessions)


def sessions_up(index: Index, vip: Address) -> str:
    sessions = index.carriers(vip)
    return f"{sum(s.state == 'up' for s in sessions)} of {len(sessions)} BGP sessions"
