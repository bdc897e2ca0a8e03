"""The floor, the fallback and the weights hold for every pool, whatever the edit that led to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision.judgement import Observed, judge
from anycastlb.core.decision.member import ObservedBackend
from anycastlb.core.decision.pool import Pool, weigh
from anycastlb.core.model import (
    Announce,
    Backend,
    Check,
    CheckState,
    DestinationKey,
    Result,
    Service,
    ServiceVerdict,
    Share,
    VirtualService,
)
from anycastlb.core.model.announce import most_failed

VIP = ip_address("192.0.2.1")
SHARES = [Share(1), Share(2), Share(percent=50), Share(percent=100), Share(weight=150)]


def check(number: int) -> Check:
    return Check("tcp", ip_address(f"10.0.0.{number}"), 80, (), 1, 1, 1, 1)


@st.composite
def services(draw: st.DrawFn) -> Service:
    backends = tuple(
        Backend(
            f"b{number}",
            ip_address(f"10.0.0.{number}"),
            80,
            check(number),
            weight=draw(st.sampled_from([0, 50, 100, 100])),
            drain=draw(st.sampled_from([False, False, False, True])),
            override=draw(st.sampled_from([None, None, None, 0, 30])),
            fallback=draw(st.sampled_from([False, False, False, True])),
        )
        for number in draw(st.lists(st.integers(1, 6), unique=True))
    )
    return Service(
        "web",
        (VIP,),
        "tcp",
        80,
        VirtualService("mh"),
        backends,
        announce=Announce(
            min_backends=draw(st.sampled_from(SHARES)),
            fail=draw(st.sampled_from(["withdraw", "keep"])),
            fallback=draw(st.sampled_from(["withdraw", "keep"])),
        ),
        slow_start=draw(st.sampled_from([0.0, 10.0])),
        slow_start_by_history=draw(st.booleans()),
        max_failed=draw(st.sampled_from([None, Share(0), Share(1), Share(percent=50)])),
    )


@st.composite
def sights(draw: st.DrawFn) -> Sight:
    backends = {}
    for number in range(1, 7):
        up = draw(st.sampled_from([True, True, False, None]))
        state = CheckState()
        if up is not None:
            asks = draw(st.sampled_from([None, None, 0, 40])), draw(st.sampled_from([False, False, True]))
            since = draw(st.sampled_from([0.0, 1.0, 2.0]))
            last = Result(up, "seen", 0.1, 0.0)
            state = CheckState(up, since=since, last=last, asks=asks, record=(5.0, 10))
        up_since, weight = draw(st.sampled_from([None, 50.0])), draw(st.sampled_from([None, 0, 100]))
        backends[f"b{number}"] = ObservedBackend(state, up_since, weight)
    return Sight(backends, draw(st.booleans()))


@dataclass(frozen=True)
class Sight:
    """What is known of all backends that a service may have."""

    backends: dict[str, ObservedBackend]
    was_open: bool = False


def assess(service: Service, seen: Sight) -> tuple[ServiceVerdict, Pool]:
    """Judge a service, and weigh its backends."""
    observed = Observed(tuple(seen.backends[member.name] for member in service.members(VIP)), was_open=seen.was_open)
    judged = judge(service, VIP, observed, 100.0)
    return judged.verdict, weigh(judged, None, 100.0)


def members(service: Service, pool: Pool, seen: Sight):
    """(backend, verdict, has it failed on health alone) of every primary that operators want flows on.

    A backend that was in and whose check says nothing yet is not out because somebody edited the check.
    """
    for backend in service.backends:
        verdict = pool.backends[DestinationKey(service.key(VIP), backend.address, 80)]
        state = seen.backends[backend.name].state
        asks = state.up and (state.asks[1] or state.asks[0] == 0)
        if not backend.fallback and backend.weight and not backend.drain and backend.override != 0 and not asks:
            was_in = seen.backends[backend.name].weight is not None
            yield backend, verdict, not verdict.up and (was_in if state.up is None else state.up is False)


@given(services(), sights())
def test_the_floor(service: Service, seen: Sight) -> None:
    """Never more than ``max_failed`` are out on health alone, unless fallback backends serve in their place."""
    _, pool = assess(service, seen)
    if service.max_failed is None:
        return
    wanted = list(members(service, pool, seen))
    out = [backend for backend, verdict, failed in wanted if failed and not verdict.weight]
    helped = any(verdict.weight for key, verdict in pool.backends.items() if _is_fallback(service, key))
    assert len(out) <= most_failed(service.max_failed, len(wanted)) or helped


@given(services(), sights())
def test_whoever_is_kept_in_is_named(service: Service, seen: Sight) -> None:
    _, pool = assess(service, seen)
    for _, verdict, failed in members(service, pool, seen):
        if failed and verdict.weight:
            assert verdict.reason.code in ("kept_floor", "kept_fail_open")


@given(services(), sights())
def test_fallback_backends_serve_only_alone(service: Service, seen: Sight) -> None:
    _, pool = assess(service, seen)
    helping = [verdict for key, verdict in pool.backends.items() if _is_fallback(service, key) and verdict.weight]
    if helping:
        assert not any(verdict.weight and verdict.up for _, verdict, _ in members(service, pool, seen))


@given(services(), sights())
def test_what_is_open_has_a_weight(service: Service, seen: Sight) -> None:
    verdict, pool = assess(service, seen)
    if verdict.open:
        assert any(row.weight for row in pool.rows.values())


@given(services(), sights())
def test_the_floor_only_ever_adds_weight(service: Service, seen: Sight) -> None:
    (verdict, with_floor), (plain, without) = assess(service, seen), assess(replace(service, max_failed=None), seen)
    for key, backend in without.backends.items():
        assert with_floor.backends[key].weight >= backend.weight
    assert verdict == plain, "what is only kept in does not open a gate"


@given(services(), sights())
def test_rows_and_table_weights(service: Service, seen: Sight) -> None:
    """Every backend but a drained one has a row, and its place in the table does not depend on health."""
    nobody = Sight(dict.fromkeys(seen.backends, ObservedBackend()))
    _, pool = assess(service, seen)
    _, down = assess(replace(service, announce=Announce(), max_failed=None), nobody)
    assert list(pool.rows) == [k for k, b in zip(pool.backends, service.backends, strict=True) if not b.drain]
    for key, row in pool.rows.items():
        assert row.last_weight == (row.weight or down.rows[key].last_weight)


def _is_fallback(service: Service, key: DestinationKey) -> bool:
    return next(b.fallback for b in service.backends if b.address == key.address)
