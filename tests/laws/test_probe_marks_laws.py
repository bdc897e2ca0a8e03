"""The laws of marks: one mark one way, kept as long as it is needed, over reloads and restarts."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision import probe_marks
from anycastlb.core.decision.decide import adopt, decide
from anycastlb.core.decision.plan import apply, diff
from anycastlb.core.decision.vip_groups import group_vips
from anycastlb.core.model import Backend, Catalog, Check, ForwardPath, Inputs, Memory, Policy, Service, VirtualService

RANGES = st.sampled_from([(1, 3), (100, 104), (100, 200)])
BACKENDS = [ip_address(f"10.0.0.{n}") for n in range(1, 5)] + [ip_address("2001:db8::1")]
VIAS = st.builds(
    ForwardPath,
    st.sampled_from(BACKENDS),
    st.sampled_from(["dr", "tunnel", "nat"]),
    st.just(0),
    st.sampled_from([4, 6]),
)
WANTED = st.lists(VIAS, unique=True, max_size=8)


@given(WANTED, st.dictionaries(VIAS, st.integers(1, 200)), RANGES)
def test_one_mark_is_one_way(wanted: list[ForwardPath], known: dict[ForwardPath, int], limits: tuple[int, int]) -> None:
    known = {via: mark for mark, via in {mark: via for via, mark in known.items()}.items()}
    marks = probe_marks.allot(wanted, known, limits)
    given_marks = [mark for mark in marks.values() if mark is not None]
    assert set(marks) == set(wanted)
    assert len(set(given_marks)) == len(given_marks)
    assert all(limits[0] <= mark <= limits[1] for mark in given_marks)
    for via, mark in marks.items():
        if via in known and limits[0] <= known[via] <= limits[1]:
            assert mark == known[via], "what has a mark keeps it"
        else:
            assert mark not in known.values(), "no mark of another is given away"
    if None in marks.values():
        assert {*known.values(), *given_marks} >= set(range(limits[0], limits[1] + 1)), "none was left"


@given(WANTED, st.randoms(), RANGES)
def test_order_does_not_matter(wanted: list[ForwardPath], chance: st.random_module, limits: tuple[int, int]) -> None:
    shuffled = list(wanted)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert probe_marks.allot(wanted, {}, limits) == probe_marks.allot(shuffled, {}, limits)


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    names = draw(st.lists(st.sampled_from([("web", 80), ("api", 443)]), unique=True))
    return Catalog(tuple(draw(services(name, port)) for name, port in names))


@st.composite
def services(draw: st.DrawFn, name: str, port: int) -> Service:
    members = draw(st.lists(st.integers(1, 4), unique=True))
    return Service(
        name=name,
        vips=(ip_address("192.0.2.1"), ip_address("2001:db8:2::1"))[: draw(st.integers(1, 2))],
        protocol="tcp",
        port=port,
        virtual=VirtualService("mh"),
        backends=tuple(
            Backend(
                f"b{number}",
                (address := ip_address(f"10.0.0.{number}")),
                port,
                Check("tcp", address, port, (), 1, 1, 1, 1),
                forward=draw(st.sampled_from(["tunnel", "nat"])),
                through=draw(st.booleans()),
            )
            for number in members
        ),
        drain=draw(st.sampled_from([0.0, 30.0])),
    )


HISTORIES = st.lists(st.tuples(st.booleans(), catalogs()), min_size=1, max_size=6)


@given(HISTORIES, RANGES)
def test_no_reload_and_no_restart_moves_a_mark(history: list[tuple[bool, Catalog]], limits: tuple[int, int]) -> None:
    """Each step: the daemon dies first or it does not, then there is a new catalog."""
    memory, desired, before, now = Memory(), None, {}, 100.0
    for died, catalog in history:
        now += 1
        if died and desired is not None:
            memory = adopt(desired, now, limits)
        decision = decide(Inputs(Policy(marks=limits), catalog), memory, now)
        assert set(decision.probe_paths) == set(group_vips(catalog.services).paths)
        for via, mark in before.items():
            if mark is not None and via in decision.probe_paths:
                assert decision.probe_paths[via] == mark
        rows = [key for key in decision.desired.services if key.protocol == "fwmark"]
        assert sorted(key.port for key in rows) == sorted(m for m in decision.probe_paths.values() if m is not None)
        for key in rows:  # exactly one destination each, never one that is on its way out
            assert [row.weight for k, row in decision.desired.destinations.items() if k.service == key] == [1]
        memory, desired, before = decision.memory, decision.desired, dict(decision.probe_paths)


@given(catalogs(), RANGES)
def test_probes_change_nothing_else(catalog: Catalog, limits: tuple[int, int]) -> None:
    """But for the rows of its marks, a decision is what it would be without them."""
    decision = decide(Inputs(Policy(marks=limits), catalog), Memory(), 1.0)
    known, rest = probe_marks.split(decision.desired, limits)
    assert known == {via: mark for via, mark in decision.probe_paths.items() if mark is not None}
    none = decide(Inputs(Policy(marks=(5, 5)), catalog), Memory(), 1.0)
    assert rest == probe_marks.split(none.desired, (5, 5))[1]


@given(catalogs(), catalogs(), RANGES)
def test_the_kernel_gets_there(first: Catalog, second: Catalog, limits: tuple[int, int]) -> None:
    before = decide(Inputs(Policy(marks=limits), first), Memory(), 1.0)
    after = decide(Inputs(Policy(marks=limits), second), before.memory, 2.0)
    state = before.desired
    for change in diff(state, after.desired):
        state = apply(state, change)
    assert diff(state, after.desired) == ()
