"""Which flows survive when the router moves them to another node: by scheduler and forward, with and without sync.

Every connection has done its handshake and nothing else, the hardest case for connection sync. The figures of
docs/FLOWS.md come from here.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.netns import run
from tests.support.site import BACKENDS, Site, alive, site, until

FLOWS = 100
"""Of each service."""
SYNC = 'sync_interface = "lan"\nsync_id = 7\n'
REFRESH = SYNC + 'sync_refresh = "1m"\n'


@pytest.fixture(autouse=True)
def _kernel(require: Callable[[str], str]) -> None:
    require("kernel")


def service(port: int, scheduler: str, forward: str, *names: str, **more: Any) -> dict[str, Any]:
    flags = ["mh-port", "mh-fallback"] if scheduler == "mh" else []
    backends = {name: {"address": BACKENDS[name], "forward": forward} for name in names or ("s1", "s2", "s3", "s4")}
    return {"port": port, "scheduler": scheduler, "scheduler_flags": flags, "backends": backends, **more}


SERVICES = {
    "mh": service(8001, "mh", "dr"),
    "mh-nat": service(8002, "mh", "nat"),
    "rr": service(8003, "rr", "dr"),
    "rr-nat": service(8004, "rr", "nat"),
    "persistent": service(8005, "rr", "dr", persistence={"timeout": "5m"}),
    "changed": service(8006, "mh", "dr"),
}
CHANGED = service(8006, "mh", "dr", *BACKENDS)
CHANGED["backends"]["s3"]["drain"] = True


async def survivors(flows: dict[str, list[Any]]) -> dict[str, int]:
    return {name: await alive(sockets) for name, sockets in flows.items()}


async def opened(made: Site) -> dict[str, list[Any]]:
    """Flows through a; then, of one service, one backend is added and another drained."""
    await made.put(**SERVICES)
    made.route("a")
    flows = {name: await made.open(document["port"], FLOWS) for name, document in SERVICES.items()}
    assert made.entries("a") == FLOWS * len(SERVICES)
    return flows


@pytest.mark.parametrize("ipvs", [SYNC, REFRESH], ids=["by packets", "by time"])
async def test_with_sync_every_flow_survives_every_move(tmp_path: Path, ipvs: str) -> None:
    async with site(tmp_path, ipvs) as made:
        flows = await opened(made)
        everything = dict.fromkeys(SERVICES, FLOWS)
        total = sum(everything.values())
        assert await until(lambda: made.entries("b") >= total), f"b knows {made.entries('b')} of {total}"
        for name in ("a", "b"):
            with made.machines[name].inside():
                daemons = run("ipvsadm", "-L", "--daemon")
            assert re.findall(r"^(master|backup) sync daemon \(mcast=lan, syncid=7,", daemons, re.MULTILINE) == [
                "master", "backup",
            ]  # fmt: skip
        await made.put(**{**SERVICES, "changed": CHANGED})
        for node in ("b", "a"):
            made.route(node)
            assert await survivors(flows) == everything
        made.route("a", replies="b")  # of nat: whichever node the replies meet knows their flow
        assert await survivors(flows) == everything
        with pytest.raises(TimeoutError):  # but a new flow is known only to the node that saw it begin
            await made.open(SERVICES["rr-nat"]["port"], 1, patience=1.5)
        made.kill("a")
        made.route("b")
        assert await survivors(flows) == everything


async def test_without_sync_only_mh_survives_as_long_as_no_backend_changes(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        flows = await opened(made)
        await made.put(**{**SERVICES, "changed": CHANGED})
        made.route("b")
        found = await survivors(flows)
        print(f"\nof {FLOWS} flows each, without sync: {found}")
        assert found.pop("mh") == found.pop("mh-nat") == FLOWS
        assert all(count < FLOWS for count in found.values()), found
        made.kill("a")
        assert await alive(flows["mh"]) == await alive(flows["mh-nat"]) == FLOWS


def longest_command() -> float:
    """Seconds that a command takes here: to move a route takes several, and flows must not end meanwhile."""

    def took() -> float:
        began = time.monotonic()
        run("ip", "link")
        return time.monotonic() - began

    return max(took() for _ in range(3))


@pytest.mark.parametrize("ipvs", [SYNC, SYNC + 'sync_refresh = "1s"\n'], ids=["by packets", "by time"])
async def test_slow_flows_stay_known_to_the_others_only_by_time(tmp_path: Path, ipvs: str) -> None:
    """Each flow sends often enough to live on its own node, but never fifty packets within the time-out."""
    flows_of, pause = SERVICES["rr-nat"], max(1.0, 10 * longest_command())
    async with site(tmp_path, ipvs + f'tcp_timeout = "{8 * pause:.0f}s"\n') as made:
        await made.put(web=flows_of)
        made.route("a")
        flows = await made.open(flows_of["port"], 20)
        assert await until(lambda: made.entries("b") >= len(flows))
        known = []
        for _ in range(10):
            assert await alive(flows) == len(flows) == made.entries("a")
            known.append(made.entries("b"))
            await asyncio.sleep(pause)
        made.route("b")
        survive = await alive(flows)
        if "refresh" in ipvs:
            assert known == [len(flows)] * 10 and survive == len(flows)
        else:
            assert known[-1] == 0 and survive < len(flows)
