"""Tell whether a route that ExaBGP has acknowledged can reach a router at all: some BGP session carries it.

ExaBGP acknowledges a route whatever its sessions do. A session carries the routes of its own family, which is that of
its peer's address. It is down only if that is known: one that is merely listed as down, because ExaBGP reports no
changes (``neighbor-changes`` is missing in its configuration), is unknown, and unknown is not down.

Pure. Decision record: docs/decisions/0009-believing-the-other-nodes.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address

from anycastlb.core.model import Address, Session, SessionSummary, Speaker

UNREPORTED = (
    "ExaBGP has not reported it; if it never does, encoder json or neighbor-changes is missing in exabgp.conf "
    "(see: anycastlb doctor)"
)


def known_state(session: Session) -> str:
    """The state as far as it is proven: ExaBGP gives a reason with each report that a session went down."""
    return "unknown" if session.state == "down" and not session.reason else session.state


def known_reason(session: Session) -> str:
    """Why it is so, in ExaBGP's words; of one that is unknown, in ours."""
    return UNREPORTED if known_state(session) == "unknown" and not session.reason else session.reason


def summaries(speaker: Speaker) -> tuple[SessionSummary, ...]:
    """What this node publishes of its sessions."""
    return tuple(SessionSummary(session.peer, known_state(session)) for session in speaker.sessions)


@lru_cache(maxsize=1024)
def cut_off(sessions: tuple[SessionSummary, ...]) -> frozenset[int]:
    """The families (4, 6) that have sessions, all of which are down."""
    down: dict[int, bool] = {}
    for session in sessions:
        family = _family(session.peer)
        down[family] = down.get(family, True) and session.state == "down"
    return frozenset(family for family, all_down in down.items() if all_down and family)


def carried(routes: Iterable[Address], speaker: Speaker) -> frozenset[Address]:
    """Those of the acknowledged routes that are announced to some router, as far as is known."""
    lost = cut_off(summaries(speaker))
    return frozenset(vip for vip in routes if vip.version not in lost)


def _family(peer: str) -> int:
    """0 for what is no address: what another node published may be anything."""
    try:
        return ip_address(peer).version
    except ValueError:
        return 0
