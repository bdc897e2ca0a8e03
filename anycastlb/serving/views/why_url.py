"""Why does a request for an URL go where it goes? What the node knows of it, put together for ``why_request``.

Two steps, as HAProxy is asked in between: ``looked_up`` follows the rules, ``explain_url`` makes the answer. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from anycastlb.core.http.explain import Explanation, MapQuestion, explain_request
from anycastlb.core.http.request import Request, Target, request_of
from anycastlb.core.http.sites import Sites, listening
from anycastlb.core.model import EMPTY, Address, Catalog, Gateway, Snapshot
from anycastlb.serving.views.events import moment
from anycastlb.serving.views.http_links import engine_link, gateway_links, pool_link, vip_link
from anycastlb.serving.views.index import Index
from anycastlb.serving.views.links import Link, link
from anycastlb.serving.views.why_request import no_site_view, request_view


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What the rules of the catalog say of a request."""

    url: str
    target: Target
    request: Request
    gateway: Gateway | None
    """None: none speaks the scheme on that port."""
    found: Explanation | None = None
    """None: no route has the host."""

    @property
    def questions(self) -> tuple[MapQuestion, ...]:
        """What HAProxy can be asked about it."""
        return self.found.questions if self.found else ()


def looked_up(
    catalog: Catalog, url: str, method: str, headers: Iterable[tuple[str, str]], source: Address | None
) -> LookedUp:
    """Raises ValueError, which says what was expected."""
    target, request = request_of(url, method, headers, source)
    gateways = listening(catalog.gateways, target, request.host)
    names = {gateway.name for gateway in gateways}
    sites = Sites(route for route in catalog.routes if names & set(route.gateways))
    for gateway in gateways:
        if (site := sites.find(gateway.name, request.host)) is not None:
            return LookedUp(url, target, request, gateway, explain_request(site, request, target))
    return LookedUp(url, target, request, gateways[0] if gateways else None)


def explain_url(
    snapshot: Snapshot, now: float, looked: LookedUp, asked: Mapping[str, bool], ends: Mapping[str, float] = EMPTY
) -> dict[str, Any]:
    """``asked``: what HAProxy answered to ``looked.questions``, by their keys. ``ends``: when certificates do."""
    index = Index(snapshot, now)
    if looked.gateway is None:
        what = f"no gateway speaks {looked.target.scheme} on port {looked.target.port}"
        return {
            "object": f"{looked.request.method} {looked.url}",
            "kind": "request",
            "ok": False,
            "answer": "no gateway is there",
            "chain": [link("gateway", False, "none", what)],
        }
    above = _above(index, looked.gateway, ends)
    if looked.found is None:
        return no_site_view(looked.url, looked.request, above)
    pools = {end.pool: pool_link(index, end.pool) for end in looked.found.ends if end.pool}
    return request_view(looked.url, looked.request, looked.found, above, pools, asked)


def _above(index: Index, gateway: Gateway, ends: Mapping[str, float]) -> list[Link]:
    """The VIPs, the gateway's certificates, and HAProxy if something is wrong with it."""
    certificates = [_with_end(index, one, ends) for one in gateway_links(index, gateway) if one["what"] == "tls"]
    engine = engine_link(index)
    vips = [vip_link(index, vip) for vip in gateway.vips]
    return [*vips, *certificates, *([] if engine["ok"] else [engine])]


def _with_end(index: Index, certificate: Link, ends: Mapping[str, float]) -> Link:
    end = ends.get(certificate["object"])
    if end is None:
        return certificate
    day, over = (moment(end) or "")[:10], end <= index.snapshot.at_wall
    text = f"{certificate['text']}, {'but it ended on' if over else 'until'} {day}"
    return {**certificate, "text": text, "ok": certificate["ok"] and not over}
