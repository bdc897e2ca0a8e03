"""The addresses of keepalived's virtual servers, and of the groups that they name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from anycastlb.core.importers.documents import Note, address, number
from anycastlb.core.importers.keepalived_text import Statement, attempt
from anycastlb.core.model import Address

MAX_VIPS = 1024
"""Of one virtual server group."""
Targets = dict[int, list[Address]]
"""VIPs by port; 0 = every port."""


def targets(statement: Statement, groups: Mapping[str, Statement], notes: list[Note]) -> Targets:
    """Where a virtual server is reached; nothing, with a note, where keepalived would not serve it either."""
    words = statement.words[1:]
    if words[:1] == ("group",):
        return _group(statement, groups, notes)
    if words[:1] == ("fwmark",):
        notes.append(statement.note(f"{' '.join(words)[:40]}: a service needs its VIP; left out"))
        return {}
    return attempt(notes, {}, _single, statement, notes)


def _single(statement: Statement, notes: list[Note]) -> Targets:
    """One address, whatever prefix it is written with. Raises ``UnreadableInput``."""
    if not statement.argument:
        raise statement.bad("expected an address and port, fwmark or group after virtual_server")
    return {_port(statement, 2): [host(statement, notes)]}


def host(line: Statement, notes: list[Note]) -> Address:
    """The address of a virtual or real server, whatever follows it. Raises ``UnreadableInput``."""
    text = re.split("[-/]", line.argument, maxsplit=1)[0]
    found = address(text, line.line)
    if text != line.argument:
        notes.append(line.note(f"{line.argument:.50}: one address, as keepalived takes it: {found}"))
    return found


def _group(statement: Statement, groups: Mapping[str, Statement], notes: list[Note]) -> Targets:
    name = " ".join(statement.words[2:])
    if name not in groups:
        notes.append(statement.note(f"expected the name of a virtual_server_group, not {name!r:.60}; left out"))
        return {}
    targets: Targets = {}
    for line in groups[name].inside():
        if line.keyword == "fwmark":
            notes.append(line.note(f"{' '.join(line.words)[:40]}: a service needs its VIP; left out"))
            continue
        vips, port = attempt(notes, [], _range, line), attempt(notes, None, _port, line, 1)
        if vips and port is not None:
            targets.setdefault(port, []).extend(vips)
    if len({vip.version for vips in targets.values() for vip in vips}) > 1:
        notes.append(
            statement.note(f"group {name:.40} has addresses of both families: keepalived does not serve it; left out")
        )
        return {}
    return targets


def _port(line: Statement, at: int) -> int:
    return number(line.words[at], line.line, "a port", 0, 65535) if len(line.words) > at else 0


def _range(line: Statement) -> list[Address]:
    """``192.0.2.1``, ``192.0.2.1-10``, ``192.0.2.250-192.0.3.10`` or ``192.0.2.8/29``. Raises ``UnreadableInput``."""
    text = line.keyword
    try:
        if "/" in text:
            network = ip_network(text)
            if network.num_addresses > MAX_VIPS:
                raise ValueError
            return list(network)
        low, dash, high = text.partition("-")
        first = address(low, line.line)
        if not dash:
            return [first]
        if high.isalnum():
            joint = ":" if first.version == 6 else "."
            high = joint.join([*low.split(joint)[:-1], high])
        last = ip_address(high)
        if last.version != first.version or not 0 < int(last) - int(first) < MAX_VIPS:
            raise ValueError
        if first.version == 6 and int(last) >> 16 != int(first) >> 16:
            raise line.bad(f"expected a range that differs in its last 16 bits only, not {text!r:.60}")
    except ValueError:
        raise line.bad(f"expected an address or a range of at most {MAX_VIPS}, not {text!r:.60}") from None
    return [type(first)(value) for value in range(int(first), int(last) + 1)]
