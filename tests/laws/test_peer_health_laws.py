"""Nodes that know of each other: whatever each reaches, however late the others' word comes, and whoever is cut off."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision import gate
from anycastlb.core.decision.decide import decide
from anycastlb.core.decision.peer_reports import news
from anycastlb.core.decision.plan import diff
from anycastlb.core.model import Announce, Catalog, Cluster, Share
from tests.support.cluster import ALL, BACKENDS, OTHER, VIP, Company, service

NAMES = ("lb1", "lb2", "lb3")
NONE: frozenset[int] = frozenset()
REACH = st.sampled_from([ALL, NONE, NONE, frozenset({1, 2}), frozenset({3, 4}), frozenset({1})])
NOTHING = st.none()
KEEPS = st.sampled_from(["withdraw", "keep"])
EVENTS = st.one_of(
    st.tuples(st.just("reach"), st.sampled_from(NAMES), REACH),
    st.tuples(st.just("deliver"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("deliver"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("look"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("look"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("pass"), st.sampled_from(NAMES), st.sampled_from([0.1, 1.0, 4.0, 20.0, 90.0])),
    st.tuples(st.just("connect"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("drain"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("live"), st.sampled_from(NAMES), st.booleans()),
)


def happen(company: Company, event) -> None:
    kind, name, what = event
    node = company.nodes[name]
    if kind == "reach":
        node.reach = what
    elif kind == "deliver":
        company.deliver(name, what)
    elif kind == "look" and node.alive:
        company.look(node)
    elif kind == "pass":
        company.now += what
    elif kind == "connect":
        node.connected = what
    elif kind == "drain":
        company.drain(name, what)
    elif kind == "live":
        node.alive = what


@st.composite
def announces(draw: st.DrawFn, fail=KEEPS, last=KEEPS) -> Announce:
    return Announce(
        min_backends=draw(st.sampled_from([Share(1), Share(1), Share(1), Share(2)])),
        when=draw(st.sampled_from(["any", "any", "all"])),
        fail=draw(fail),
        last=draw(last),
        hold_up=draw(st.sampled_from([0.0, 0.0, 5.0])),
    )


@st.composite
def companies(draw: st.DrawFn, fail=KEEPS, last=KEEPS, limit=NOTHING, one=False) -> Company:
    """After any history: the registry late, nodes away, drained and killed; in the end everybody is back, and known."""
    names = ["web"] if one else draw(st.sampled_from([["web"], ["web", "api"]]))
    catalog = Catalog(tuple(service(name, draw(announces(fail, last))) for name in names))
    company = Company(catalog, NAMES, draw(limit))
    if draw(st.booleans()):
        company.quiet()
    for event in draw(st.lists(EVENTS, max_size=12)):
        happen(company, event)
    for turn in draw(st.lists(st.tuples(REACH, REACH, REACH), max_size=2)):
        for node, reach in zip(company, turn, strict=True):
            node.reach = reach
        for _ in range(draw(st.integers(0, 2))):
            company.exchange()
    for node in company:
        node.connected = True
    return company


def told(company: Company) -> str:
    return "; ".join(f"{node.name}: {node.decision.verdicts.get(VIP)}" for node in company)


@given(companies())
def test_it_comes_to_rest_and_who_reaches_backends_serves(company: Company) -> None:
    company.quiet()
    well = [node for node in company.active if node.own() == "well"]
    assert not well or any(node.open() for node in well), told(company)


@given(companies(last=st.just("keep")))
def test_the_last_route_stays_while_a_candidate_lives(company: Company) -> None:
    company.quiet()
    assert not company.active or any(node.open() for node in company.active), told(company)


@given(
    announces(last=st.just("keep")),
    st.lists(st.tuples(st.tuples(REACH, REACH, REACH), st.sampled_from([0.0, 0.5, 1.0, 2.9])), min_size=1, max_size=12),
)
def test_the_route_is_made_before_it_is_broken(announce: Announce, history) -> None:
    """While what nodes publish arrives within the time it is given, there is no moment without a route."""
    company = Company(Catalog((service("web", announce),)), NAMES)
    company.quiet()
    assert all(node.open() for node in company)
    for turn, pause in history:
        company.now += pause
        for node, reach in zip(company, turn, strict=True):
            node.reach = reach
        for node in company:
            company.look(node)
            assert any(node.open() for node in company), told(company)
        company.exchange()
        assert any(node.open() for node in company), told(company)


@given(companies(fail=st.just("withdraw"), last=st.just("keep"), one=True))
def test_one_node_holds_the_last_route(company: Company) -> None:
    company.quiet()
    if company.active and all(node.own() == "ill" for node in company.active):
        (holder,) = [node for node in company.active if node.open()]
        assert holder is min(company.active, key=lambda node: node.name)
        assert holder.decision.verdicts[VIP].kept == "last"


@given(companies(fail=st.just("withdraw"), last=st.just("withdraw")))
def test_nobody_is_held_open_by_echo(company: Company) -> None:
    company.quiet()
    if not any(node.own() == "well" for node in company.living):
        assert not any(node.open() for node in company), told(company)


@given(companies(fail=st.just("keep"), one=True))
def test_nobody_is_held_closed_by_echo(company: Company) -> None:
    """Backends that are dead for everybody, and ``fail: keep``: whoever closed on old news opens again."""
    for node in company:
        node.reach = NONE
    company.quiet()
    assert all(node.open() for node in company.active), told(company)


@given(companies(last=st.just("withdraw"), one=True))
def test_the_sick_one_is_closed_and_its_weights_are_its_peers(company: Company) -> None:
    company.quiet()
    serving = [node for node in company.active if node.own() == "well" and node.open()]
    for node in company.living if serving else ():
        if node.reach & set(BACKENDS["web"]):
            continue
        assert not node.open(), told(company)
        peers = {n for peer in serving if peer is not node for n in peer.reach & set(BACKENDS["web"])}
        rows = node.decision.desired.destinations.items()
        assert {int(str(key.address)[-1]) for key, row in rows if row.weight} == peers, told(company)
        if node in company.active:
            reason = f"of {len(company.active) - 1} peers reach these backends"
            assert reason in node.decision.verdicts[VIP].reason.text


@given(companies(limit=st.sampled_from([None, Share(1)])))
def test_what_is_open_has_backends_and_a_second_look_changes_nothing(company: Company) -> None:
    for _ in range(3):
        company.exchange()
    for node in company.living:
        decision = decide(node.inputs, node.memory, company.now)
        for vip in decision.desired.routes:
            assert any(r.weight for k, r in decision.desired.destinations.items() if k.service.address == vip)
        again = decide(node.inputs, decision.memory, company.now)
        assert again.desired == decision.desired and again.verdicts == decision.verdicts


@given(companies(limit=st.sampled_from([None, Share(1)])), st.sampled_from([0.5, 2.0, 10.0, 100.0]))
def test_wakes_in_time(company: Company, later: float) -> None:
    company.exchange()
    for node in company.living:
        decision, then = node.decision, company.now + later
        if decision.wake_at is not None:
            assert decision.wake_at > company.now
            then = min(then, decision.wake_at - 0.001)
        after = decide(node.inputs, decision.memory, then)
        assert diff(decision.desired, after.desired) == () and decision.desired.routes == after.desired.routes


@given(companies(last=st.just("withdraw")))
def test_without_peers_it_is_local_health(company: Company) -> None:
    """Whatever is remembered of nodes that are not followed any more."""
    company.exchange()
    for node in company.living:
        known = replace(node.inputs.cluster, connected=False)
        away = decide(replace(node.inputs, cluster=known), node.memory, company.now)
        alone = decide(replace(node.inputs, cluster=Cluster()), replace(node.memory, troubles={}), company.now)
        assert away.desired == alone.desired and away.verdicts == alone.verdicts
        if node.name in company.catalog.drained:
            continue
        for verdict in alone.verdicts.values():
            services = [s.announce for s in company.catalog.services]
            ready, _ = gate.combine(list(zip(services, verdict.services, strict=True)))
            held = max(announce.hold_up for announce in services) or any(
                s.unsettled or s.returning for s in verdict.services
            )
            assert verdict.open == ready or (held and not verdict.open)


@given(companies(), EVENTS)
def test_what_makes_no_news_changes_no_decision(company: Company, event) -> None:
    for _ in range(2):
        company.exchange()
    before = {node.name: node.inputs for node in company.living}
    happen(company, event)
    company.exchange()
    for node in company.living:
        if node.name in before and node.inputs.catalog == before[node.name].catalog:
            old, new = before[node.name], company.see(node)
            if not news(old.cluster, new.cluster):
                mixed = replace(new, cluster=old.cluster)
                one, two = (decide(given_inputs, node.memory, company.now) for given_inputs in (new, mixed))
                assert one.desired == two.desired and one.verdicts == two.verdicts


@given(st.permutations(NAMES), st.sampled_from([1, 2]), st.booleans())
def test_the_limit_bounds_what_health_withdraws(order, most: int, together: bool) -> None:
    """Everything dies everywhere: within a minute no more VIPs lose their routes than allowed; in the end all do."""
    catalog = Catalog((service("web", Announce(), (VIP,)), service("api", Announce(), (OTHER,))))
    company = Company(catalog, NAMES, Share(most))
    company.quiet()
    started = company.now
    for name in order:
        company.nodes[name].reach = NONE
        if not together:
            company.exchange()
    while any(node.open(vip) for node in company for vip in (VIP, OTHER)):
        if not company.exchange():
            gone = [vip for vip in (VIP, OTHER) if not any(node.open(vip) for node in company)]
            assert len(gone) <= most * (1 + (company.now - started) // 60)
            company.now = min(node.decision.wake_at for node in company if node.decision.wake_at is not None)
        assert company.now - started < 130
    assert company.now - started >= 60 or most == 2
