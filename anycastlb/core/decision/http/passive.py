"""Passive failures: which backends fail the requests of clients, although their checks may pass.

Theory of operation. HAProxy counts how the requests have ended that it has tried on each server. ``take`` adds what it
has counted since it was last asked to the spans of each backend, which together are as long as its ``fail_timeout``. A
backend *fails* if ``max_fails`` requests failed within that time, and if it fails at least twice as often as the best
of the backends that serve beside it: what all of them fail alike is the fault of the requests, or of what stands behind
all of them, and another backend would do no better. It then gets no requests for ``fail_timeout`` seconds, as in nginx
and ELB, and starts anew after them.

A counter that is lower than it was has begun anew with a reload or restart of HAProxy. What it lost is not known, and
counts for nothing. Requests that a client broke off, and answers below 500, are no failures.

``out`` says which of them are taken out of a pool. A check decides first: what it finds down is down anyway. At most
half of a pool goes by passive failures, never its last backend, and never more than its floor (``max_failed``) leaves.

Pure. Decision record: docs/decisions/0019-http-tier.md.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import sub
from typing import NamedTuple

from anycastlb.core.model import EMPTY, Endpoint, Passive, PassiveFailure, Reason, Service, Tries
from anycastlb.core.model.announce import most_failed

SPANS = 10
"""Of a ``fail_timeout``: how exactly the age of a failure is known."""
FAILED = "passive_failures"
"""The code of the reason."""
WORSE = 2
"""So many times as often as the best of the others."""


class Span(NamedTuple):
    """The requests that ended from ``begin`` on, within one part of the time that counts."""

    begin: float
    good: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class PassiveRecord:
    """What is known of the requests to one pool."""

    tries: Tries = field(default_factory=lambda: EMPTY)
    """As HAProxy counted them when it was last asked."""
    spans: Mapping[Endpoint, tuple[Span, ...]] = field(default_factory=lambda: EMPTY)
    """Oldest first."""
    failures: Mapping[Endpoint, PassiveFailure] = field(default_factory=lambda: EMPTY)


NOTHING_KNOWN = PassiveRecord()


def counts(pool: Service) -> bool:
    """Do requests count against any backend of it?"""
    return not pool.vips and any(backend.passive is not None for backend in pool.backends)


def take(pool: Service, known: PassiveRecord, tries: Tries, now: float) -> PassiveRecord:
    """The record of a pool after HAProxy was asked once more."""
    if not known.spans and not known.failures and tries == known.tries:
        return known
    wanted = {(backend.address, backend.port): backend.passive for backend in pool.backends}
    longest = max((passive.fail_timeout for passive in wanted.values() if passive), default=0.0)
    failures = {at: one for at, one in known.failures.items() if at in wanted and one.until > now}
    spans: dict[Endpoint, tuple[Span, ...]] = {}
    since = _since(known.tries, tries)
    for at in known.spans.keys() | since.keys():
        if at in wanted and at not in failures:
            kept = [span for span in known.spans.get(at, ()) if span.begin > now - longest]
            if added := _added(kept, since.get(at, (0, 0)), longest / SPANS, now):
                spans[at] = added
    for at, (timeout, what) in _failing(wanted, spans, now).items():
        failures[at] = PassiveFailure(now, now + timeout, what)
        del spans[at]
    return PassiveRecord(tries, spans, known.failures if failures == known.failures else failures)


def out(
    pool: Service, ups: Sequence[bool], failures: Mapping[Endpoint, PassiveFailure], now: float
) -> Mapping[Endpoint, Reason]:
    """The backends that get no requests because of their passive failures; those that failed first, where not all of
    them may go. ``ups``: which of its backends are up otherwise, in their order."""
    failing: dict[Endpoint, PassiveFailure] = {}
    up = total = 0
    for backend, is_up in zip(pool.backends, ups, strict=True) if failures else ():
        if backend.fallback or backend.drain or not backend.weight or backend.override == 0:
            continue
        total, up = total + 1, up + is_up
        failure = failures.get((backend.address, backend.port))
        if failure is not None and failure.until > now and is_up:
            failing[backend.address, backend.port] = failure
    room = min(max(1, total // 2), up - 1)
    if pool.max_failed is not None:
        room = min(room, most_failed(pool.max_failed, total) - (total - up))
    first = sorted(failing.items(), key=lambda item: item[1].at)
    return {at: _reason(failure) for at, failure in first[: max(0, room)]}


def notes(failures: Mapping[Endpoint, PassiveFailure], gone: Container[Endpoint], now: float) -> dict[Endpoint, str]:
    """What is said of backends that fail and are not out."""
    kept = {at: failure for at, failure in failures.items() if at not in gone and failure.until > now}
    return {at: f"{failure.what}; kept in, since too few others are up" for at, failure in kept.items()}


# ------------------------------------------------------------ steps


def _reason(failure: PassiveFailure) -> Reason:
    return Reason(FAILED, f"out: {failure.what}; it gets none for {failure.until - failure.at:g} s")


def _since(before: Tries, tries: Tries) -> dict[Endpoint, tuple[int, int]]:
    """How many requests to each server were good, and failed, between two answers of HAProxy."""
    ended: dict[Endpoint, tuple[int, int]] = {}
    for key, counters in tries.items():
        old = before.get(key)
        if old is None or old == counters:
            continue
        grown = tuple(map(sub, counters, old))
        if min(grown) < 0:
            continue
        good, errors, unanswered, refused, retried, redispatched = grown
        # HAProxy counts a failed try in several columns: which ones depends on its release.
        failed = errors + refused + max(unanswered, retried, redispatched)
        had = ended.get(key[1], (0, 0))
        ended[key[1]] = had[0] + good, had[1] + failed
    return ended


def _added(spans: Sequence[Span], ended: tuple[int, int], width: float, now: float) -> tuple[Span, ...]:
    if not any(ended):
        return tuple(spans)
    if spans and now - spans[-1].begin < width:
        last = spans[-1]
        return (*spans[:-1], Span(last.begin, last.good + ended[0], last.failed + ended[1]))
    return (*spans, Span(now, *ended))


def _failing(
    wanted: Mapping[Endpoint, Passive | None], spans: Mapping[Endpoint, Sequence[Span]], now: float
) -> dict[Endpoint, tuple[float, str]]:
    """By backend that has failed too much: for how long it is to get no requests, and what it has failed.

    ``spans``: of those that may get requests. Each is summed up once, however many fail: a large pool may fail whole.
    """
    failing: dict[Endpoint, tuple[float, str]] = {}
    if not any(span.failed for kept in spans.values() for span in kept):
        return failing
    for timeout in {passive.fail_timeout for passive in wanted.values() if passive}:  # nearly always one
        sums = {at: _sum(kept, now - timeout) for at, kept in spans.items()}
        shares = sorted(failed / (good + failed) for good, failed in sums.values() if good or failed)
        for at, (good, failed) in sums.items():
            passive = wanted[at]
            if passive is None or passive.fail_timeout != timeout or failed < passive.max_fails or len(shares) < 2:
                continue
            share = failed / (good + failed)
            best = shares[1] if share == shares[0] else shares[0]  # of the others
            if share >= WORSE * best:
                failing[at] = timeout, f"{failed} of {good + failed} requests failed within {timeout:g} s"
    return failing


def _sum(spans: Iterable[Span], begin: float) -> tuple[int, int]:
    counted = [span for span in spans if span.begin > begin]
    return sum(span.good for span in counted), sum(span.failed for span in counted)
