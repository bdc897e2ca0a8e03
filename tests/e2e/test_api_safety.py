"""Nobody on the node can harm it through its API: not by right, not by force. With a real Consul, on a real kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.lab.http import request
from tests.lab.lab import Lab
from tests.lab.node import API_PORT, ROOT, Node
from tests.lab.process import until
from tests.lab.topology import BACKENDS
from tests.support.examples import EXAMPLES
from tests.support.two_nodes import BOTH, VIP, serve

NOBODY = 65534
REQUESTS = EXAMPLES or 1000
CONFIRM = ("-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", f"http://127.0.0.1:{API_PORT}/v1/confirm")


def descriptors(node: Node) -> int:
    return len(list(Path(f"/proc/{node.daemon.pid}/fd").iterdir()))


def stored(lab: Lab) -> str:
    """The whole catalog, as Consul has it, without the indexes that nodes' own statuses move."""
    status, body = request(lab.consul.namespace, "GET", "127.0.0.1", 8500, "/v1/kv/anycastlb/services?recurse")
    assert status == 200, body
    return body


def test_an_unprivileged_user_reads_and_cannot_write(lab: Lab) -> None:
    serve(lab)
    as_nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    whoami = ("curl", "-s", f"http://127.0.0.1:{API_PORT}/v1/whoami")
    assert json.loads(lab.lb1.namespace.run(*as_nobody, *whoami))["rights"] == "read"
    assert json.loads(lab.lb1.namespace.run(*whoami))["rights"] == "write"
    assert lab.lb1.namespace.run(*as_nobody, "curl", *CONFIRM) == "403"
    assert lab.lb1.namespace.run("curl", *CONFIRM) == "409", "root may, but nothing is held"
    sock = str(Path(lab.lb1.settings).with_name("api.sock"))
    assert '"write"' in lab.lb1.namespace.run("curl", "-s", "--unix-socket", sock, "http://node/v1/whoami")
    assert "denied" in lab.lb1.http("/v1/events")[1]


def test_a_thousand_random_requests_leave_the_node_healthy(lab: Lab) -> None:
    serve(lab)
    node, catalog = lab.lb1, stored(lab)
    assert node.http("/healthz")[0] == 200
    before, updates = descriptors(node), lab.router.all_updates()

    script = str(ROOT / "tests" / "lab" / "barrage.py")
    told = node.namespace.run(sys.executable, script, str(NOBODY), str(API_PORT), str(REQUESTS), "1", timeout=1800)

    report = json.loads(told)
    assert report["healthy"] == {"200": 1}, "alive, while hundreds of idle connections were open"
    tally = report["tally"]
    assert sum(count for status, count in tally.items() if status.isdigit()) > REQUESTS / 10, tally
    assert not {"500", "501", "502", "503"} & set(tally), tally
    assert {"400", "401", "403"} <= set(tally), tally
    until(lambda: node.http("/healthz")[0] == 200 and node.http("/readyz")[0] == 200, "it is healthy")
    # Of hundreds; checks and reads of the daemon's own come and go.
    until(lambda: descriptors(node) <= before + 10, "every connection is closed")
    assert stored(lab) == catalog
    assert lab.router.all_updates() == updates, "no route moved"
    assert lab.router.routes(VIP) == BOTH
    assert set(lab.client.spread(30, VIP)) == set(BACKENDS)
    assert "Traceback" not in node.daemon.tail(100_000)
