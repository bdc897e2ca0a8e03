"""The shrink guard: a catalog that lost too many VIPs at once is held back, but not what else it says.

While it is held, the services of the lost VIPs stay as they are, and every other edit comes into force: drains and
their ends, new services, backends' keys. Pure: no clock.
"""

from __future__ import annotations

from collections.abc import Collection

from anycastlb.core.model import Address, Catalog, Share, Shrink, Tree


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
    """The VIPs of the current catalog that the candidate has not; services that are the same object lose none."""
    one, two = current.services, candidate.services
    if len(one) == len(two) and all(a is b or a.vips == b.vips for a, b in zip(one, two, strict=True)):
        return frozenset()
    same = set(map(id, candidate.services))
    changed = {vip for service in current.services if id(service) not in same for vip in service.vips}
    return frozenset(changed - candidate.vips) if changed else frozenset()


def shrunk(lost: int, of: int, limit: Share, emptied: bool) -> bool:
    """Is so much lost at once that it must be confirmed?"""
    allowed = limit.count if limit.percent is None else of * limit.percent / 100
    return lost > allowed or (emptied and of > 0)


def without_loss(tree: Tree, current: Catalog, lost: Collection[Address]) -> Tree:
    """The tree of a held catalog with what the lost VIPs need put back from the catalog in force.

    Their services' documents and the defaults stay as they were; of their backends' keys those that are gone are put
    back, and those that were written since count. That a drain is gone counts too, unless all services are gone with
    it: then nobody ended the drain.
    """
    gone = set(lost)
    losing = {service.name for service in current.services if not gone.isdisjoint(service.vips)}
    emptied = not any(key.startswith("services/") for key in tree.entries)
    entries = {key: entry for key, entry in tree.entries.items() if key != "defaults"}
    for key, entry in current.good.items():
        kind, _, rest = key.partition("/")
        name, _, backend = rest.partition("/")
        if kind == "defaults" or (kind == "services" and name in losing and not backend):
            entries[key] = entry
        elif (kind == "services" and name in losing) or (kind == "drain" and emptied):
            entries.setdefault(key, entry)
    return Tree(entries, tree.index)
