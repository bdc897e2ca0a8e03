"""Why is it so? The chain from evidence to route for one VIP, service or backend.

Check results, their fold into a state, the weight, the gate's arithmetic, the kernel's rows, the route and the BGP
sessions that carry it: one link each, ``ok`` or not, with the decision's own words. Pure, and it decides nothing.
"""

from __future__ import annotations

from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any

from anycastlb.core.model import Address, Problem, Service, Snapshot
from anycastlb.serving.views.evidence import results
from anycastlb.serving.views.format import UNDECIDED
from anycastlb.serving.views.http_links import gateway_links
from anycastlb.serving.views.index import Index, Seat
from anycastlb.serving.views.links import Link, evidence_links, link, name_links, route_links, service_link, sessions_up
from anycastlb.serving.views.vips import result_view
from anycastlb.serving.views.why_http import explain_http, http_names


def explain(snapshot: Snapshot, now: float, name: str) -> dict[str, Any] | None:
    """The chain of the object called ``name`` (a VIP, ``SERVICE`` or ``SERVICE/BACKEND``); None if there is none."""
    index = Index(snapshot, now)
    if (vip := _address(name)) is not None:
        return _explain_vip(index, vip) if vip in index.vips() else None
    services = {service.name: service for service in snapshot.inputs.catalog.services}
    service_name, _, backend = name.partition("/")
    if service := services.get(service_name):
        return _explain_backend(index, service, backend) if backend else _explain_service(index, service)
    if (view := explain_http(index, name)) is not None:
        return view
    problems = [problem for problem in snapshot.inputs.catalog.problems if _concerns(problem, service_name)]
    return _explain_problems(name, problems) if problems else None


def near(snapshot: Snapshot, name: str, limit: int = 5) -> list[str]:
    """Names that exist and look like ``name``: a backend named without its service, then what is spelt alike."""
    services = (*snapshot.inputs.catalog.services, *snapshot.inputs.catalog.pools)
    members = [f"{service.name}/{backend.name}" for service in services for backend in service.backends]
    names = [str(vip) for vip in Index(snapshot, 0.0).vips()] + [service.name for service in services]
    names += http_names(snapshot.inputs.catalog)
    exact = [member for member in members if member.partition("/")[2] == name.rpartition("/")[2]]
    alike = get_close_matches(name, names, n=limit, cutoff=0.5)
    if "/" in name and len(members) <= 5000:
        alike += get_close_matches(name, members, n=limit, cutoff=0.5)
    return list(dict.fromkeys(exact + alike))[:limit]


def _address(name: str) -> Address | None:
    try:
        return ip_address(name.strip().strip("[]"))
    except ValueError:
        return None


def _concerns(problem: Problem, service: str) -> bool:
    """Is this problem in a document of that service? By catalog key, or by the name of its file."""
    folder, _, rest = problem.key.partition("/")
    name = rest.split("/")[0]
    return folder == "services" and bool(service) and service in (name, name.rpartition(".")[0])


def _problem_text(problem: Problem) -> str:
    return f"{problem.path}: {problem.expected}" if problem.path else problem.expected


def _answer(kind: str, name: str, ok: bool, text: str, chain: list[Link]) -> dict[str, Any]:
    return {"object": name, "kind": kind, "ok": ok, "answer": text, "chain": chain}


def _explain_problems(name: str, problems: list[Problem]) -> dict[str, Any]:
    chain = [link("problem", False, problem.key, _problem_text(problem)) for problem in problems]
    return _answer("service", name, False, "not served: its document is wrong", chain)


def _explain_vip(index: Index, vip: Address) -> dict[str, Any]:
    services = [service_link(index, service, vip, every=True) for service in index.on(vip)]
    services += [one for gateway in index.gateways_on(vip) for one in gateway_links(index, gateway)]
    verdict, tail = index.verdict(vip), route_links(index, vip)
    announced = vip in index.snapshot.actual.routes
    if announced:
        text = f"announced to {sessions_up(index, vip)}"
    else:
        text = f"not announced: {verdict.reason if verdict and not verdict.open else tail[-2]['text']}"
    heard = announced and any(session.state == "up" for session in index.carriers(vip))
    return _answer("vip", str(vip), heard, text, services + tail + name_links(index, vip))


def _explain_service(index: Index, service: Service) -> dict[str, Any]:
    chain = [
        link(
            "vip",
            vip in index.snapshot.actual.routes,
            str(vip),
            "",
            [service_link(index, service, vip, every=True), *tail, *name_links(index, vip)],
        )
        for vip in service.vips
        for tail in [route_links(index, vip)]
    ]
    served = [vip for vip in service.vips if (v := index.service(vip, service.name)) and v.open]
    announced = [vip for vip in served if vip in index.snapshot.actual.routes]
    chain += [
        link("problem", False, problem.key, f"{_problem_text(problem)} (the last good version is in force)")
        for problem in index.snapshot.inputs.catalog.problems
        if _concerns(problem, service.name)
    ]
    text = f"served on {len(served)} of {len(service.vips)} VIPs, {len(announced)} of them announced"
    return _answer("service", service.name, len(announced) == len(service.vips), text, chain)


def _explain_backend(index: Index, service: Service, name: str) -> dict[str, Any] | None:
    chain: list[Link] = []
    weights, evidence = [], []
    for vip in service.vips:
        for seat in index.seats(service, vip):
            if seat.backend.name != name:
                continue
            weights.append((seat.verdict.weight if seat.verdict else 0, seat))
            evidence.append(_raw(index, seat))
            tail = [service_link(index, service, vip, every=False), *route_links(index, vip)]
            announced = vip in index.snapshot.actual.routes
            chain.append(link("vip", announced, str(vip), "", [*evidence_links(index, seat), *tail]))
    if not weights:
        return None
    weight, seat = max(weights, key=lambda item: item[0])
    reason = seat.verdict.reason if seat.verdict else UNDECIDED
    text = f"weight {weight} of {seat.backend.weight}: {reason}" if weight else f"gets no new flows: {reason}"
    answer = _answer("backend", f"{service.name}/{name}", weight > 0, text, chain)
    return {**answer, "evidence": evidence}


def _raw(index: Index, seat: Seat) -> dict[str, Any]:
    """Every result that is known, newest first, for scripts."""
    recent, earlier = results(seat.state)
    return {
        "vip": str(seat.vip),
        "check": str(seat.check),
        "results": [result_view(index, one) for one in recent],
        "failures": [result_view(index, one) for one in earlier],
    }
