"""Another program that creates and deletes IPVS services of its own, as fast as it can, until it is killed.

Run as ``python -m tests.support.foreign_ipvs COUNT`` in the network namespace to disturb. It prints a line once it is
at work.
"""

from __future__ import annotations

import random
import sys
from ipaddress import ip_address

from anycastlb.adapters.drivers.ipvs import codec
from anycastlb.adapters.drivers.ipvs.driver import connect
from anycastlb.core.model import ServiceKey, VirtualService

FIRST = ip_address("172.16.0.0")


def main(count: int) -> None:
    kernel, chance = connect(), random.Random(1)
    keys = [ServiceKey("tcp", FIRST + n, 80) for n in range(count)]
    existing: set[ServiceKey] = set()
    while True:
        some = set(chance.sample(keys, max(1, count // 10)))
        new, old = some - existing, some & existing
        kernel.exchange([(codec.NEW_SERVICE, codec.service(key, VirtualService("rr"))) for key in new])
        kernel.exchange([(codec.DEL_SERVICE, codec.service_name(key)) for key in old])
        if not existing:
            print("it edits", flush=True)
        existing = (existing | new) - old


if __name__ == "__main__":
    main(int(sys.argv[1]))
