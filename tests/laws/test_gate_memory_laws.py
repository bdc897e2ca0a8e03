"""What a restart remembers of the gates: what was written is read, and nothing else ends the daemon."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.adapters.gate_memory import NAME, GateFile
from anycastlb.core.decision.recollection import adopted_gates, recalled
from anycastlb.core.model import Catalog, Gate, Recollection, ServiceKey, State, VipAddress
from tests.support.states import VIPS

MOMENTS = st.floats(1.7e9, 1.9e9)
GATES = st.builds(
    Gate,
    open=st.booleans(),
    since=st.one_of(st.just(float("-inf")), MOMENTS),
    penalty=st.floats(0, 1e6),
    penalty_at=MOMENTS,
    suppressed_since=st.none() | MOMENTS,
    withdrawn_wall=st.integers(0, 2 * 10**9),
)
KEYS = st.builds(ServiceKey, st.sampled_from(["tcp", "fwmark"]), st.sampled_from(VIPS), st.integers(1, 65535))
RECORDS = st.builds(Recollection, st.dictionaries(st.sampled_from(VIPS), GATES), st.frozensets(KEYS), MOMENTS)
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["192.0.2.1", "tcp"])
FIELDS = ["version", "at", "gates", "below_threshold", "192.0.2.1", "open", "since", "penalty", "penalty_at",
          "suppressed_since", "withdrawn"]  # fmt: skip
JSON = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6)
)


@given(RECORDS)
def test_what_was_written_is_read(record: Recollection) -> None:
    with tempfile.TemporaryDirectory() as folder:
        GateFile(folder).save(record)
        assert GateFile(folder).load() == record


@given(st.one_of(st.binary(), JSON.map(lambda value: json.dumps({"version": 1, "x": value}).encode()),
                 JSON.map(lambda value: json.dumps(value).encode()),
                 st.dictionaries(st.sampled_from(FIELDS), JSON).map(
                     lambda fields: json.dumps({**fields, "version": 1}).encode())))  # fmt: skip
def test_anything_else_is_told_and_not_believed(content: bytes) -> None:
    told: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NAME).write_bytes(content)
        record = GateFile(folder, lambda what, remedy: told.append(what)).load()
    assert (record is None) == bool(told)


@given(RECORDS, st.floats(-1e10, 1e10), st.booleans())
def test_what_is_recalled_lies_in_the_past_and_closes_no_route(
    record: Recollection, off: float, connected: bool
) -> None:
    """Whatever the wall clock says; and what the bridge still announces counts as open."""
    now, actual = 500.0, State(addresses=dict.fromkeys(VIPS, VipAddress()), routes=dict.fromkeys(VIPS[:1]))
    known = recalled(record, 1.8e9 + off, now)
    gates = adopted_gates(actual, Catalog(), known, connected, now)
    for gate in gates.values():
        assert gate.since <= now and (gate.suppressed_since is None or gate.suppressed_since <= now)
        assert gate.penalty >= 0 and gate.penalty_at <= now
    assert gates[VIPS[0]].open
    assert not connected or not any(gate.open for vip, gate in gates.items() if vip not in actual.routes)
