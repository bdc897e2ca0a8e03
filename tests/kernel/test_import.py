"""What ipvsadm saves from a real kernel comes back, through import and our driver, as the same kernel state."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

import pytest

from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.cli import formats
from anycastlb.core.decision import plan
from anycastlb.core.model import State
from tests.support.converted import desired
from tests.support.netns import run

pytestmark = pytest.mark.usefixtures("netns")
RULES = """\
-A -t 192.0.2.10:80 -s mh -b mh-fallback,mh-port
-a -t 192.0.2.10:80 -r 10.1.0.1:80 -i -w 5
-a -t 192.0.2.10:80 -r 10.1.0.2:80 -i -w 5 --tun-type gue --tun-port 6081 --tun-nocsum
-a -t 192.0.2.10:80 -r 10.1.0.3:80 -i -w 5 --tun-type gre --tun-nocsum
-A -u 192.0.2.10:53 -s mh -o
-a -u 192.0.2.10:53 -r 10.1.0.1:53 -g -w 1
-A -u 192.0.2.11:53 -s mh
-a -u 192.0.2.11:53 -r 10.1.0.1:53 -g -w 1
-A -t 192.0.2.11:0 -s lc -p 360 -M 255.255.255.0
-a -t 192.0.2.11:0 -r 10.1.0.1:0 -m -w 10
-A --sctp-service 192.0.2.10:99 -s sh -b sh-port
-a --sctp-service 192.0.2.10:99 -r 10.1.0.9:98 -m -w 100
-A -t [2001:db8::1]:80 -s wrr -p 60 -M 64
-a -t [2001:db8::1]:80 -r [fd00::1]:80 -g -w 7
"""


async def test_save_import_decide_and_nothing_is_left_to_change(require: Callable[[str], str]) -> None:
    """The plan of a node with the imported catalog, over the very kernel it was saved from: no change in IPVS."""
    program = require("ipvsadm")
    for line in RULES.splitlines():
        run(program, *line.split())
    documents, _ = formats.read(run(program, "-Sn"))
    assert len(documents) == 6
    driver = IpvsDriver([ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")])
    tables = await driver.observe()
    assert len(tables["services"]) == 6
    actual = State(services=tables["services"], destinations=tables["destinations"])
    changes = plan.diff(actual, desired(documents, actual))
    left = [c for c in changes if c.table in ("services", "destinations")]
    assert left == []
    driver.close()
