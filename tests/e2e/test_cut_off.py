"""A node is cut off from the backends, from Consul, from its peers, each alone and in pairs: no connection breaks, and
the VIP is never without a route.

*Peers*: nodes meet in Consul, and nowhere else (but for connection sync, if it is on). So a node that is cut off from
its peers can reach no other node in the LAN, and nobody sees a status of another: they are taken out of Consul as fast
as they are written, which is more than a real network would do to them. A node that the router does not hear is another
matter: see ``test_takeover``.

A node that sees its backends dead and no peer that reaches them refuses what the router sends it until its withdrawal
has arrived there. That may cost a request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import combinations

from tests.lab.lab import CHECK, Lab, document
from tests.lab.namespaces import LabError
from tests.lab.node import Node
from tests.lab.server import ECHO
from tests.lab.topology import BACKENDS, CONSUL, own
from tests.lab.traffic import Traffic
from tests.support.clients_story import Scene
from tests.support.two_nodes import BOTH, VIP

CHECKED = {**CHECK, "interval": "500ms", "timeout": "1500ms", "rise": 1, "fall": 2}
FAR = {
    "backends": [own(name, version) for name in BACKENDS for version in (4, 6)],
    "Consul": [CONSUL],
    "peers": [own("lb2", version) for version in (4, 6)],
}
CASES = [("backends",), ("Consul",), *combinations(FAR, 2)]


@contextmanager
def unseen(lab: Lab) -> Iterator[None]:
    """No node sees another's status."""
    over = threading.Event()

    def hide() -> None:
        while not over.wait(0.1):
            with suppress(OSError, LabError):
                lab.consul.delete("anycastlb/nodes/", below=True)

    thread = threading.Thread(target=hide, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def reason(node: Node) -> str:
    return next(str(view["reason"]) for view in node.status()["vips"] if view["vip"] == str(VIP))


def says_it(lab: Lab, case: tuple[str, ...]) -> None:
    """The node knows what happened to it."""
    if "Consul" in case:
        lab.lb1.until(lambda: not lab.lb1.status()["catalog"]["connected"], "it says that Consul is away")
    if "backends" in case:
        words = "1 of 1 peers reach these backends" if case == ("backends",) else "backends up"
        lab.lb1.until(lambda: words in reason(lab.lb1), f"it says: {words}")


def test_a_node_that_is_cut_off_breaks_no_connection(lab: Lab) -> None:
    for name, port in (("web", 80), ("echo", ECHO)):
        lab.put(name, document(VIP, port=port, check={**CHECKED, "port": 80}))
    lab.router.until(VIP, BOTH)
    with Traffic(lab.client.namespace, VIP, lines=100) as traffic, lab.router.always(VIP):
        traffic.established()
        scene = Scene(lab, {"tunnel v4": traffic})
        try:
            for case in CASES:
                name = " and ".join(case)
                left = {"lb2"} if "backends" in case else BOTH
                with ExitStack() as stack:
                    if "peers" in case:
                        stack.enter_context(unseen(lab))
                    stack.callback(lab.lb1.unmute)
                    addresses = [address for part in case for address in FAR[part]]
                    alone = "backends" in case and case != ("backends",)
                    scene.step(f"cut off: {name}", partial(lab.lb1.sever, addresses), *left, lossy=True, failing=alone)
                    says_it(lab, case)
                scene.step("and back", lambda: None, *BOTH)
        finally:
            print("\n".join(scene.figures))
