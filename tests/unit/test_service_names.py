"""Which names should be there."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision import service_names
from anycastlb.core.decision.containment import Containment
from anycastlb.core.model import (
    Catalog,
    Cluster,
    ConsulKey,
    ConsulName,
    ConsulService,
    DnsKey,
    DnsName,
    DnsPolicy,
    DnsRecord,
    Inputs,
    Naming,
    Peer,
    Policy,
    Reason,
    Service,
    SessionSummary,
    Status,
    Verdict,
    VipSummary,
    VirtualService,
)

V4, V6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")
POLICY = DnsPolicy("lb.example.net.", ttl=30.0)
WEB = Service("web", (V4, V6), "tcp", 80, VirtualService("mh"), (), dns=DnsName("www", srv="_http._tcp"))
WWW = "www.lb.example.net."
A, AAAA = DnsKey(WWW, "A", str(V4)), DnsKey(WWW, "AAAA", str(V6))
SRV = DnsKey(f"_http._tcp.{WWW}", "SRV", f"0 0 80 {WWW}")
ROW = DnsRecord(30, "web")
ALL = {A: ROW, AAAA: ROW, SRV: ROW}


def peer(name: str, *vips: Any, alive: bool = True, status: bool = True, services: tuple[str, ...] = ()) -> Peer:
    told = Status(name, vips={vip: VipSummary(True, True) for vip in vips}, services={item: {} for item in services})
    return Peer(name, alive, told if status else None, "" if status else "garbage")


def cluster(*peers: Peer, connected: bool = True) -> Cluster:
    return Cluster(follows=True, connected=connected, peers={peer.name: peer for peer in peers})


NOBODY = Cluster()
PUBLISHING = Naming(POLICY)


def records(
    known: Cluster = NOBODY,
    own: tuple[Any, ...] = (),
    standing: dict[DnsKey, DnsRecord] | None = None,
    services: tuple[Service, ...] = (WEB,),
    company: bool | None = None,
    naming: Naming = PUBLISHING,
    **inputs: Any,
) -> dict[DnsKey, DnsRecord]:
    values = {"announced": frozenset(own), "names": {"dns_records": standing or {}}}
    policy = Policy("lb1", naming=naming)
    given = Inputs(**{"policy": policy, "catalog": Catalog(services), "cluster": known, **values, **inputs})
    return dict(
        service_names.dns_records(
            given, service_names.votes(given, own), service_names.view(known, company), Containment()
        )
    )


def test_a_record_for_each_vip_that_is_announced() -> None:
    assert records(own=(V4, V6)) == {A: ROW, AAAA: ROW, SRV: ROW}
    assert records(own=(V6,)) == {AAAA: ROW, SRV: ROW}
    assert records() == {}


def test_nothing_is_decided_before_the_zone_was_seen_or_without_a_zone() -> None:
    assert records(own=(V4,), names={}) == {}
    assert records(own=(V4,), naming=Naming()) == records(standing=ALL, naming=Naming()) == {}


@pytest.mark.parametrize(
    ("known", "company", "kept"),
    [
        (Cluster(), None, False),  # of a file: nobody else
        (cluster(), None, False),
        (cluster(peer("lb2")), None, False),
        (cluster(peer("lb2", V4, V6)), None, True),
        (cluster(peer("lb2", V4, V6, alive=False)), None, False),
        (cluster(peer("lb2", status=False)), None, True),  # who knows what it announces
        (cluster(Peer("lb2", True)), None, True),
        (cluster(connected=False), None, True),
        (cluster(connected=False), False, False),  # it never had any
        (cluster(peer("lb2"), connected=False), True, True),
    ],
)
def test_what_becomes_of_a_record_when_the_own_gate_is_closed(known: Cluster, company: Any, kept: bool) -> None:
    assert records(known, standing=ALL, company=company) == (ALL if kept else {})


def test_a_peer_that_announces_is_enough_to_publish_and_a_doubt_is_not() -> None:
    assert records(cluster(peer("lb2", V4))) == {A: ROW, SRV: ROW}
    assert records(cluster(connected=False)) == {}
    doubtful, old = cluster(peer("lb2", V4), peer("lb3", status=False)), DnsRecord(99, "web")
    assert records(doubtful, standing={AAAA: old}) == ALL, "a name has one time to live"
    assert records(cluster(peer("lb3", status=False)), standing={AAAA: old}) == {AAAA: old}


def test_routes_that_could_not_be_seen_yet_change_nothing() -> None:
    given = Inputs(Policy(naming=Naming(POLICY)), Catalog((WEB,)), names={"dns_records": {A: ROW}}, announced=None)
    assert service_names.dns_records(
        given, service_names.votes(given, (V4, V6)), service_names.PeerAnnouncements(True), Containment()
    ) == {A: ROW}
    given = replace(given, names={"dns_records": ALL})
    assert service_names.dns_records(
        given, service_names.votes(given, (V4,)), service_names.PeerAnnouncements(True), Containment()
    ) == {A: ROW, SRV: ROW}, "the gate of the other one is closed"


def test_records_of_a_service_this_catalog_does_not_have() -> None:
    old = {DnsKey("old.lb.example.net.", "A", "192.0.2.9"): DnsRecord(30, "old")}
    assert records(standing=old) == {}
    assert records(cluster(peer("lb2", services=("old",))), standing=old) == old, "a peer's catalog has it"
    assert records(cluster(peer("lb2", services=("web",))), standing=old) == {}
    assert records(cluster(connected=False), standing=old) == old
    mine = {DnsKey("before.lb.example.net.", "A", str(V4)): DnsRecord(30, "web")}
    assert records(cluster(peer("lb2", services=("web",))), standing=mine) == {}, "renamed"


def test_services_that_share_a_name() -> None:
    tls = replace(WEB, name="tls", port=443, dns=DnsName("www", ttl=10.0, srv="_https._tcp"))
    shared = records(own=(V4,), services=(WEB, tls))
    assert shared[A] == DnsRecord(10, "web"), "one marker and one time to live: the first one's, and the shortest"
    assert set(shared) == {A, SRV, DnsKey(f"_https._tcp.{WWW}", "SRV", f"0 0 443 {WWW}")}
    assert records(own=(V4,), services=(tls, WEB))[A] == DnsRecord(10, "tls")
    brief = replace(WEB, dns=DnsName("www", ttl=0.4))
    assert records(own=(V4,), services=(brief,)) == {A: DnsRecord(1, "web")}, "in whole seconds, and never 0"


def test_which_services_have_a_name() -> None:
    plain, off = replace(WEB, dns=None), replace(WEB, dns=DnsName(publish=False))
    every = replace(POLICY, every=True)
    assert service_names.dns_names((plain,), POLICY) == frozenset() == service_names.dns_names((off,), every)
    assert service_names.dns_names((plain,), every) == {"web.lb.example.net."}
    assert service_names.dns_names((WEB,), POLICY) == {WWW, SRV.name}
    assert records(own=(V4,), standing=ALL, services=(off,)) == {}


@given(
    st.sets(st.sampled_from([V4, V6])),
    st.lists(st.tuples(st.sets(st.sampled_from([V4, V6])), st.booleans(), st.booleans()), max_size=3),
    st.booleans(),
    st.sets(st.sampled_from([A, AAAA, SRV])),
)
def test_a_record_leaves_only_when_nobody_announces_and_comes_only_when_somebody_does(
    own: set[Any], others: list[tuple[set[Any], bool, bool]], connected: bool, there: set[DnsKey]
) -> None:
    peers = [peer(f"lb{n}", *vips, alive=alive, status=read) for n, (vips, alive, read) in enumerate(others, 2)]
    found = records(cluster(*peers, connected=connected), tuple(own), dict.fromkeys(there, ROW), company=bool(peers))
    announced = set(own)
    announced |= {vip for vips, alive, read in others if alive and read and connected for vip in vips}
    certain = (connected and all(read for _, alive, read in others if alive)) or (not connected and not peers)
    for key, vip in ((A, V4), (AAAA, V6)):
        if vip in announced:
            assert key in found
        elif certain:
            assert key not in found
        else:
            assert (key in found) == (key in there)
    assert set(found) <= {A, AAAA, SRV}


@pytest.mark.parametrize(
    ("known", "before", "after"),
    [
        (Cluster(), None, False),  # there is no registry, and nobody else
        (cluster(), None, False),
        (cluster(connected=False), None, None),
        (cluster(connected=False), False, False),
        (cluster(peer("lb2")), False, True),
        (cluster(peer("lb2"), connected=False), None, True),
        (cluster(), True, True),  # it may only be out of sight
        (Cluster(), True, True),
    ],
)
def test_whether_other_nodes_were_ever_known(known: Cluster, before: bool | None, after: bool | None) -> None:
    assert service_names.had_peers(known, before) is after


def test_a_peer_announces_what_its_sessions_carry() -> None:
    lb2 = peer("lb2", V4, V6)
    assert lb2.status is not None
    cut = replace(lb2, status=replace(lb2.status, sessions=(SessionSummary("192.0.2.254", "down"),)))
    assert service_names.view(cluster(cut)).announced == {V6}
    held = replace(lb2, status=replace(lb2.status, vips={V4: VipSummary(False, True), V6: VipSummary(True, True)}))
    assert service_names.view(cluster(held)).announced == {V6}
    assert not service_names.view(cluster(replace(lb2, error="garbage"))).known


def test_a_registration_has_the_name_the_tags_and_the_port_of_its_service() -> None:
    services = (
        replace(WEB, vips=(V4,)),
        Service("db", (V4,), "fwmark", 7, VirtualService("mh"), (), consul=ConsulName("sql", tags=("blue",))),
        Service("off", (V4,), "tcp", 81, VirtualService("mh"), (), consul=ConsulName(publish=False)),
    )
    given = Inputs(Policy("lb1", naming=Naming(consul=True)), Catalog(services), names={"consul_services": {}})
    rows = service_names.consul_services(given, service_names.votes(given, ()), {}, Containment())
    assert rows == {
        ConsulKey("web", V4, "lb1"): ConsulService("anycastlb-web", V4, 80, (), False, "not decided yet"),
        ConsulKey("db", V4, "lb1"): ConsulService("sql", V4, 0, ("blue",), False, "not decided yet"),
    }


def test_a_registration_says_why_it_is_critical() -> None:
    verdicts = {
        V4: Verdict(V4, True, Reason("backends_up", "2/2 backends up"), 0.0),
        V6: Verdict(V6, False, Reason("too_few_backends", "0/2 backends up, needs 1"), 0.0),
    }
    given = Inputs(
        Policy("lb1", naming=Naming(consul=True)),
        Catalog((WEB, replace(WEB, name="off", consul=ConsulName(publish=False)))),
        names={"consul_services": {}},
        announced=frozenset(),
    )

    def told(inputs: Inputs) -> dict[Any, tuple[bool, str]]:
        rows = service_names.consul_services(inputs, service_names.votes(inputs, (V4,)), verdicts, Containment())
        return {key.vip: (row.passing, row.reason) for key, row in rows.items()}

    assert told(given) == {V4: (False, "its route is not up"), V6: (False, "0/2 backends up, needs 1")}
    up = replace(given, announced=frozenset({V4}))
    assert told(up)[V4] == (True, "2/2 backends up")
    assert (
        told(replace(up, stopping=True)) == told(replace(up, names={})) == told(replace(up, policy=Policy("lb1"))) == {}
    )
    early = replace(given, announced=None, names={"consul_services": service_names.consul_services(
        up, service_names.votes(up, (V4,)), verdicts, Containment())})  # fmt: skip
    assert told(early)[V4] == (True, "2/2 backends up"), "a restart does not touch what stands there"
    assert told(replace(given, announced=None))[V4] == (False, "its route is not up"), "nothing stands there"


@pytest.mark.parametrize("step", ["_asked", "_instances"])
def test_names_of_a_service_that_cannot_be_told_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    real = getattr(service_names, step)

    def broken(service: Service, *args: Any) -> Any:
        if service.name == "web":
            raise ZeroDivisionError("float division by zero")
        return real(service, *args)

    api = Service("api", (V6,), "tcp", 81, VirtualService("mh"), (), dns=DnsName("api"))
    policy, empty = Policy("lb1", naming=Naming(POLICY, consul=True)), {"dns_records": {}, "consul_services": {}}
    before = Inputs(policy, Catalog((WEB, api)), announced=frozenset((V4, V6)), names=empty)
    up = {vip: Verdict(vip, True, Reason("backends_up", "2/2 backends up"), 0.0) for vip in (V4, V6)}

    def names(inputs: Inputs, vips: tuple[Any, ...]) -> tuple[dict[str, Any], dict[object, Reason]]:
        own, contained = service_names.votes(inputs, vips), Containment()
        peers = service_names.PeerAnnouncements(True)
        return {
            "dns_records": service_names.dns_records(inputs, own, peers, contained),
            "consul_services": service_names.consul_services(inputs, own, up, contained),
        }, contained.faults

    standing, _ = names(before, (V4, V6))
    monkeypatch.setattr(service_names, step, broken)
    gone = ConsulService("anycastlb-old", V4, 80, (), True, "2/2 backends up")
    standing["consul_services"] = {**standing["consul_services"], ConsulKey("old", V4, "lb1"): gone}
    after, faults = names(replace(before, names=standing), ())
    table = "dns_records" if step == "_asked" else "consul_services"
    assert list(faults) == ["web"] and faults["web"].code == "internal_error"
    assert {key: row for key, row in after[table].items() if "web" in str(row)} == {
        key: row for key, row in standing[table].items() if "web" in str(row)
    }
    assert after[table] != standing[table], "those of the other service follow its gate"
    assert gone not in after[table].values(), "the fault is about nothing else"
    nothing, _ = names(before, ())
    assert not [row for row in nothing[table].values() if "web" in str(row)]


class CountedName(str):
    """The name of a service, which counts how often it is hashed or compared."""

    steps = 0

    def __hash__(self) -> int:
        CountedName.steps += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        CountedName.steps += 1
        return super().__eq__(other)


def test_records_of_many_deleted_services_cost_no_more_than_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many steps as there are services and records, not as their product (which took four seconds)."""
    monkeypatch.setattr(CountedName, "steps", 0)
    many = 1_000
    services = tuple(replace(WEB, name=CountedName(f"web-{number}"), dns=None) for number in range(many))
    standing = {
        DnsKey(f"old-{number}.lb.example.net.", "A", "192.0.2.9"): DnsRecord(30, CountedName(f"old-{number}"))
        for number in range(many)
    }
    assert records(standing=standing, services=services) == {}
    assert 2 * many <= CountedName.steps < 20 * many, "at least one for each service and for each record"
