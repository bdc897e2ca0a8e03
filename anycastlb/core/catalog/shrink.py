"""The shrink guard: a catalog that lost too many VIPs at once is held back, but not what else it says.

While it is held, the services of the lost VIPs stay as they are, and every other edit comes into force: drains and
their ends, new services, backends' keys. Pure: no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import compress
from operator import is_not

from anycastlb.core.model import Address, Catalog, Gateway, Service, Share, Shrink, Tree


def admit(
    current: Catalog,
    candidate: Catalog,
    max_shrink: Share,
    confirm: float | None,
    held: Shrink | None,
    now: float,
) -> Shrink | None:
    """None: apply the candidate. Else: hold it back, because it lost too many of the current VIPs at once.

    ``confirm``: seconds after which a shrink that persists is believed (None = never); ``held``: the shrink in force.
    A loss is believed at its own age: a VIP that was not lost before makes the whole wait begin anew, and VIPs that
    were added meanwhile make the loss no smaller.
    """
    lost = lost_vips(current, candidate)
    if not lost:
        return None
    of = held.of if held else len(current.vips)
    if not shrunk(len(lost), of, max_shrink, emptied=not candidate.vips):
        return None
    since = held.since if held and lost <= set(held.lost) else now
    until = None if confirm is None else since + confirm
    if until is not None and now >= until:
        return None
    return Shrink(tuple(sorted(lost, key=lambda vip: (vip.version, vip))), of, since, until)


def lost_vips(current: Catalog, candidate: Catalog) -> frozenset[Address]:
    """The VIPs of the current catalog that the candidate has not. What is the same object loses none."""
    if same_vips(current, candidate):
        return frozenset()
    changed = _given_up(current.services, candidate.services) | _given_up(current.gateways, candidate.gateways)
    return frozenset(changed - candidate.vips) if changed else frozenset()


def same_vips(one: Catalog, two: Catalog) -> bool:
    """Have they the same VIPs, as is seen at a glance?"""
    return _alike(one.services, two.services) and _alike(one.gateways, two.gateways)


def _alike(one: Sequence[Service | Gateway], two: Sequence[Service | Gateway]) -> bool:
    if len(one) != len(two):
        return False
    others = map(is_not, one, two)
    return all(a.vips == b.vips for a, b in compress(zip(one, two, strict=True), others))


def _given_up(one: Sequence[Service | Gateway], two: Sequence[Service | Gateway]) -> set[Address]:
    """The VIPs of those that are not as they were."""
    same = set(map(id, two))
    return {vip for before in one if id(before) not in same for vip in before.vips}


def shrunk(lost: int, of: int, limit: Share, emptied: bool) -> bool:
    """Is so much lost at once that it must be confirmed?"""
    allowed = limit.count if limit.percent is None else of * limit.percent / 100
    return lost > allowed or (emptied and of > 0)


def without_loss(tree: Tree, current: Catalog, lost: Collection[Address]) -> Tree:
    """The tree of a held catalog with what the lost VIPs need put back from the catalog in force.

    Their services' documents and the defaults stay as they were; of their backends' keys those that are gone are put
    back, and those that were written since count. Gateways stay, with their routes and the pools of those. That a drain
    is gone counts too, unless all services are gone with it: then nobody ended the drain.
    """
    gone = set(lost)
    losing = {service.name for service in current.services if not gone.isdisjoint(service.vips)}
    gateways = {gateway.name for gateway in current.gateways if not gone.isdisjoint(gateway.vips)}
    routes = [route for route in current.routes if not gateways.isdisjoint(route.gateways)]
    used = losing.union(*(route.pools() for route in routes))
    stay = {*(f"services/{name}" for name in losing), *(f"gateways/{name}" for name in gateways), "defaults"}
    named = {f"routes/{route.name}" for route in routes}
    emptied = not any(key.startswith("services/") for key in tree.entries)
    entries = {key: entry for key, entry in tree.entries.items() if key != "defaults"}
    for key, entry in current.good.items():
        kind, _, rest = key.partition("/")
        if key in stay:
            entries[key] = entry
        elif key in named or (kind == "services" and rest.split("/")[0] in used) or (kind == "drain" and emptied):
            entries.setdefault(key, entry)
    return Tree(entries, tree.index)
