"""What still comes to a node that leaves: the counters as one sum, their rate, and how long it may take."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from anycastlb.core.decision.drain_traffic import QUIET, count, eta, rate
from anycastlb.core.model import DestinationKey, NodeDrain, Reason, ServiceKey, Stage, Traffic, TrafficCounters

NOW = 1000.0
WEB = ServiceKey("tcp", ip_address("192.0.2.1"), 80)


def drain(stage: Stage = "withdrawn", until: float | None = 60.0, *packets: int, calm: int | None = None) -> NodeDrain:
    """One with a sample every two seconds, the last of them now; ``calm``: which of them is the first quiet one."""
    samples = tuple(
        Traffic(NOW - 2.0 * back, number, 1) for back, number in zip(range(len(packets))[::-1], packets, strict=True)
    )
    end, quiet = None if until is None else NOW + until, None if calm is None else samples[calm]
    return NodeDrain(stage, "drained", NOW - 20.0, end, Reason("", ""), samples=samples, calm=quiet)


def test_everything_counts_but_probes() -> None:
    low, probe, high, mark = (ServiceKey("fwmark", ip_address("0.0.0.0"), port) for port in (100, 150, 200, 201))
    port = ServiceKey("tcp", WEB.address, 150)  # a port, not a mark
    counters = {
        key: TrafficCounters(packets_in=packets, packets_out=packets * 10)
        for key, packets in ((WEB, 1), (low, 1000), (probe, 2000), (high, 4000), (mark, 20), (port, 300))
    }
    backends = {
        DestinationKey(key, ip_address("10.0.0.1"), 80): TrafficCounters(active=active, packets_in=7)
        for key, active in ((WEB, 3), (probe, 100), (mark, 40))
    }
    assert count({**counters, **backends}, NOW, (100, 200)) == Traffic(NOW, 321 * 11, 43)


@pytest.mark.parametrize(
    ("packets", "expected"),
    [((), 0.0), ((50,), 0.0), ((0, 100), 50.0), ((0, 10, 100), 25.0), ((100, 20), 0.0)],  # the last: counted anew
)
def test_the_rate_is_that_of_all_samples(packets: tuple[int, ...], expected: float) -> None:
    assert rate(drain("withdrawn", 60.0, *packets)) == expected


@pytest.mark.parametrize(
    ("drained", "expected"),
    [
        (drain("drained", None), 0.0),
        (drain("waiting", 20.0), None),
        (drain("withdrawn", None), None),
        (drain("graceful", 4.0), 4.0 + QUIET),
        (drain("graceful", -4.0), QUIET),
        (drain("withdrawn", 60.0), 60.0),  # nobody counts
        (drain("withdrawn", -1.0), 0.0),
        (drain("withdrawn", 60.0, 0, 0, 0, calm=1), QUIET - 2.0),
        (drain("withdrawn", 1.0, 0, 0, 0, calm=1), 1.0),
        (drain("withdrawn", 60.0, *[0] * 5, calm=0), 0.0),
        (drain("withdrawn", 60.0, 0, 100, 200), 60.0),  # as much as before
        (drain("withdrawn", 60.0, 0, 100, 250), 60.0),
        (drain("withdrawn", 60.0, 0, 200, 300, calm=2), 2.0 + QUIET),  # half as much in two seconds
        (drain("withdrawn", 60.0, 0, 200, 400, 500, 600), 4.0 + QUIET),
        (drain("withdrawn", 5.0, 0, 200, 300), 5.0),
        (drain("withdrawn", 60.0, 100), 60.0),
    ],
)
def test_how_long_it_may_take(drained: NodeDrain, expected: float | None) -> None:
    assert eta(drained, NOW) == expected
