"""A network namespace from which packets leave, and IPVS brought to a state: what tests on flows share."""

from __future__ import annotations

from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.core.decision import plan
from anycastlb.core.model import State
from tests.support.netns import run


def wire() -> None:
    for command in (
        "link add out type dummy",
        "address add 10.0.0.254/24 dev out",
        "address add 2001:db8:1::fe/64 dev out nodad",
        "link set out up",
        "route add default dev out",
        "-6 route add default dev out",
    ):
        run("ip", *command.split())


async def settle(driver: IpvsDriver, desired: State) -> None:
    for _ in range(2):
        actual = State(**{str(table): rows for table, rows in (await driver.observe()).items()})
        assert not await driver.apply(plan.diff(actual, desired))
