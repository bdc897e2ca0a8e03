"""The memory of a daemon that meets its own work in HAProxy: nothing of it may flap because of the restart. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from anycastlb.core.decision import gate
from anycastlb.core.http.names import escaped, original
from anycastlb.core.model import HttpMemory, HttpServer, PoolMemory, State


def adopt_http(actual: State) -> HttpMemory:
    """A backend that gets requests counts as up until its first result, as one does that gets flows in the kernel."""
    pools: dict[str, dict[str, HttpServer]] = {}
    for key, row in actual.http_servers.items():
        pool = original(key.section)
        if key.section == escaped(pool):  # its other sections have the same servers
            pools.setdefault(pool, {})[key.server] = row
    marks = {(key.address, key.port): row.mark for key, row in actual.ingress_marks.items()}
    return HttpMemory({name: _adopted(servers) for name, servers in pools.items()}, marks=marks)


def _adopted(servers: Mapping[str, HttpServer]) -> PoolMemory:
    used = {(row.address, row.port): gate.NEVER for row in servers.values() if row.state == "ready" and row.weight}
    return PoolMemory(up_since=used, serving=bool(used), servers=servers)
