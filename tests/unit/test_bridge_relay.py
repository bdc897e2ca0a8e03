"""The bridge's decisions, against an ExaBGP that keeps its routes in a dict and misbehaves on order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.bridge.exchange import LOST_TIMEOUT
from anycastlb.bridge.lease import SHORT_LIVES, STEADY
from anycastlb.bridge.protocol import Heartbeat, ProtocolError, Report, RouteSet
from anycastlb.bridge.relay import ACK_TIMEOUT, REFUSALS, RETRY, Relay
from anycastlb.core.model import Address, Route, Session
from tests.support.effort import calls
from tests.support.fake_exabgp import FakeExaBGP, neighbor, state
from tests.support.routes import routes

RANGES = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
HOLD = 10.0
P1, P2, P6 = "10.99.1.1", "10.99.2.1", "fd00:99:1::1"
ONE, TWO, SIX = ip_address("192.0.2.1"), ip_address("192.0.2.2"), ip_address("2001:db8::1")
OUTSIDE = ip_address("203.0.113.1")
MANY = {ip_address("192.0.2.0") + n: Route() for n in range(250)}


class Talk:
    """A relay, an ExaBGP, and the time."""

    def __init__(self, *peers: str) -> None:
        self.exabgp = FakeExaBGP(*peers)
        self.now = 100.0
        self.relay = Relay(RANGES, HOLD, self.now)

    def pump(self, most: int = 1000) -> Report:
        """Let them talk until there is nothing more to say."""
        self.relay.tick(self.now)
        for _ in range(most):
            if (command := self.relay.next(self.now)) is None:
                return self.relay.report()
            assert self.relay.next(self.now) is None, "one command at a time"
            for line in self.exabgp.answer(command.line):
                self.relay.hear(line, self.now)
        raise AssertionError(f"they never come to an end: {self.exabgp.said[-5:]}")

    def order(self, wanted: Mapping[Address, Route], serial: int = 1) -> Report:
        self.relay.obey(RouteSet(serial, HOLD, wanted), self.now)
        return self.pump()

    def later(self, seconds: float) -> Report:
        self.now += seconds
        return self.pump()


@pytest.fixture
def talk() -> Talk:
    talk = Talk(P1, P6)
    talk.pump()
    talk.relay.connected(talk.now)
    return talk


def test_the_talk_begins_with_a_handshake_and_a_look(talk: Talk) -> None:
    listings = [f"show adj-rib out {peer} extensive" for peer in (P1, P6)]
    assert talk.exabgp.said == ["version", "enable-ack", "show neighbor json", *listings]
    report = talk.relay.report()
    assert report.ready and report.version == "5.0.15" and report.serial == 0
    assert [(session.peer, session.state) for session in report.sessions] == [(P1, "up"), (P6, "up")]


def test_routes_go_to_the_sessions_of_their_family(talk: Talk) -> None:
    report = talk.order({ONE: Route(med=5), SIX: Route()}, serial=3)
    assert talk.exabgp.announced(P1) == {ONE} and talk.exabgp.announced(P6) == {SIX}
    assert report.announced == {ONE: Route(med=5), SIX: Route()} and report.serial == 3


def test_nothing_is_done_before_the_daemon_has_spoken() -> None:
    talk = Talk(P1)
    talk.exabgp.rib[P1] = {"192.0.2.1/32": ""}
    report = talk.pump()
    assert report.announced == {ONE: Route()}
    assert talk.later(HOLD - 0.1).announced == {ONE: Route()}
    assert talk.later(0.2).announced == {} and talk.exabgp.rib[P1] == {}


def test_a_respawned_bridge_changes_nothing_when_all_is_as_wanted() -> None:
    talk = Talk(P1)
    route = Route(("65001:2", "65001:1"), as_path_prepend=1)
    talk.exabgp.rib[P1] = {"192.0.2.1/32": "as-path ( 65001 65001 ) community [ 65001:1 65001:2 ]"}
    assert talk.order({ONE: route}).announced == {ONE: route}
    assert not any("announce" in line or "withdraw" in line for line in talk.exabgp.said)


def test_a_respawned_bridge_resynchronises() -> None:
    talk = Talk(P1)
    talk.exabgp.rib[P1] = {"192.0.2.1/32": "", "192.0.2.9/32": "", "192.0.2.2/32": "med 7"}
    talk.order({ONE: Route(), TWO: Route(med=8)})
    assert talk.exabgp.rib[P1] == {"192.0.2.1/32": "", "192.0.2.2/32": "med 8"}


def test_what_is_not_ours_stays() -> None:
    talk = Talk(P1)
    talk.exabgp.rib[P1] = {"198.51.100.7/32": "", "192.0.2.0/24": ""}
    talk.order({})
    assert talk.later(HOLD + 1).announced == {}
    assert set(talk.exabgp.rib[P1]) == {"198.51.100.7/32", "192.0.2.0/24"}


def test_withdrawals_come_first_and_batches_are_small(talk: Talk) -> None:
    many = {ip_address(f"192.0.2.{n}"): Route() for n in range(250)}
    talk.order(many)
    talk.exabgp.said.clear()
    others = {ip_address(f"192.0.2.{n}"): Route(med=1) for n in range(200, 256)}
    talk.order(others, serial=2)
    verbs = [line.split()[2] for line in talk.exabgp.said]
    assert verbs == ["withdraw"] * 3 + ["announce"]
    assert talk.exabgp.announced(P1) == set(others)


def test_a_route_outside_the_ranges_is_refused_and_told(talk: Talk) -> None:
    report = talk.order({ONE: Route(), OUTSIDE: Route(), TWO: Route(communities=("shutdown now",))})
    assert set(report.announced) == {ONE}
    assert "outside vip_ranges" in report.rejected[OUTSIDE] and "communities" in report.rejected[TWO]
    assert not any(str(OUTSIDE) in line or "shutdown" in line for line in talk.exabgp.said)


def test_a_route_of_a_family_without_a_session_is_told() -> None:
    talk = Talk(P1)
    assert "no neighbor with an IPv6 session" in talk.order({SIX: Route()}).rejected[SIX]


def test_events_between_the_lines_of_an_answer_harm_nothing(talk: Talk) -> None:
    talk.exabgp.noise = [state(P1, "connected"), '{ "type": "notification" }', "{ nonsense", ""]
    assert set(talk.order({ONE: Route(), SIX: Route()}).announced) == {ONE, SIX}
    assert talk.exabgp.announced(P1) == {ONE}


def test_answers_meant_for_the_bridge_before_this_one_are_not_taken() -> None:
    talk = Talk(P1)
    first = talk.relay.next(talk.now)
    assert first and first.line == "version"
    for line in ["done", "error", "10.99.1.1 something", "done", "exabgp 5.0.15", "done"]:
        talk.relay.hear(line, talk.now)
    second = talk.relay.next(talk.now)
    assert second and second.line == "enable-ack"
    talk.relay.hear("done", talk.now)  # a stray one, taken for the answer
    third = talk.relay.next(talk.now)
    assert third and third.line == "show neighbor json"
    for line in ["done", "error", json.dumps([neighbor(P1)]), "done"]:
        talk.relay.hear(line, talk.now)
    fourth = talk.relay.next(talk.now)
    assert fourth and fourth.line == f"show adj-rib out {P1} extensive"


def test_one_refused_route_does_not_keep_its_batch_back(talk: Talk) -> None:
    talk.exabgp.refuse = lambda line: "announce" in line and "192.0.2.2/32" in line
    wanted = {ip_address(f"192.0.2.{n}"): Route() for n in range(6)}
    report = talk.order(wanted, serial=4)
    assert report.serial == 4
    assert set(report.rejected) == {TWO} and P1 in report.rejected[TWO]
    assert talk.exabgp.announced(P1) == set(wanted) - {TWO}

    tries = sum("192.0.2.2/32" in line for line in talk.exabgp.said)
    talk.relay.obey(Heartbeat(4), talk.now)
    talk.later(HOLD / 2)
    assert sum("192.0.2.2/32" in line for line in talk.exabgp.said) == tries, "not tried again blindly"
    talk.exabgp.refuse = lambda line: False
    for _ in range(int(RETRY / 5) + 1):
        talk.relay.obey(Heartbeat(4), talk.now)
        report = talk.later(5)
    assert report.rejected == {} and TWO in report.announced


def test_a_session_that_comes_up_gets_its_routes(talk: Talk) -> None:
    talk.order({ONE: Route()})
    talk.exabgp.peers.append(P2)
    talk.exabgp.rib[P2] = {}
    talk.relay.hear(state(P2, "connected"), talk.now)
    talk.relay.hear(state(P2, "up"), talk.now)
    report = talk.pump()
    assert talk.exabgp.announced(P2) == {ONE}
    assert {session.peer: session.state for session in report.sessions}[P2] == "up"


def test_a_session_that_comes_up_during_a_resync_starts_another_one(talk: Talk) -> None:
    talk.order({ONE: Route()})
    talk.relay.hear(state(P1, "up"), talk.now)
    command = talk.relay.next(talk.now)
    assert command and command.kind == "neighbors"
    answer = talk.exabgp.answer(command.line)
    talk.exabgp.peers.append(P2)
    talk.exabgp.rib[P2] = {}
    talk.relay.hear(state(P2, "up"), talk.now)
    for line in answer:
        talk.relay.hear(line, talk.now)
    talk.pump()
    assert talk.exabgp.announced(P2) == {ONE}


def test_a_neighbor_that_was_removed_is_forgotten(talk: Talk) -> None:
    talk.order({ONE: Route(), SIX: Route()})
    talk.exabgp.peers.remove(P6)
    del talk.exabgp.rib[P6]
    talk.now += 5
    report = talk.order({ONE: Route()}, serial=2)
    assert report.serial == 2 and report.announced == {ONE: Route()}
    assert [session.peer for session in report.sessions] == [P1]
    assert talk.relay.stuck(talk.now) == ""


def test_a_refusing_peer_is_no_news_every_second(talk: Talk) -> None:
    talk.relay.hear(state(P1, "down", "hold timer expired"), talk.now)
    talk.pump()
    first, revision = talk.relay.report().sessions, talk.relay.revision
    for _ in range(5):
        talk.now += 1
        talk.relay.hear(state(P1, "connected"), talk.now)
        talk.relay.hear(state(P1, "down", "closing connection"), talk.now)
    assert talk.relay.report().sessions == first and talk.relay.revision == revision
    assert {s.peer: s.reason for s in first}[P1] == "hold timer expired"


def test_a_session_that_was_listed_as_down_is_reported_as_down_with_its_reason(talk: Talk) -> None:
    """Without a reason nobody knows whether ExaBGP reports changes at all."""
    talk.relay._questions.sessions[ip_address(P1)] = Session(P1, "down", talk.now)  # as ExaBGP lists it while it starts
    talk.relay.hear(state(P1, "down", "connection refused"), talk.now)
    assert {s.peer: s.reason for s in talk.pump().sessions}[P1] == "connection refused"


# ---------------------------------------------------------------- silence of the daemon


def test_a_silent_daemon_loses_every_route(talk: Talk) -> None:
    talk.order({ONE: Route(), SIX: Route()})
    assert len(talk.later(HOLD - 0.1).announced) == 2
    assert talk.later(0.2).announced == {}
    assert talk.exabgp.rib == {P1: {}, P6: {}}


def test_heartbeats_keep_the_routes(talk: Talk) -> None:
    talk.order({ONE: Route()}, serial=7)
    for _ in range(5):
        talk.relay.obey(Heartbeat(7), talk.now)
        assert ONE in talk.later(HOLD - 0.1).announced


def test_after_a_silence_only_a_new_set_brings_routes_back(talk: Talk) -> None:
    """What was wanted before it may be dead by now: the first heartbeat after a freeze says nothing about that."""
    talk.order({ONE: Route(), TWO: Route()}, serial=7)
    assert talk.later(HOLD + 1).serial == 0
    talk.relay.obey(Heartbeat(7), talk.now)
    assert talk.pump().announced == {} and talk.exabgp.rib[P1] == {}
    assert talk.order({ONE: Route()}, serial=8).announced == {ONE: Route()}
    assert talk.relay.report().serial == 8


def test_a_connection_is_no_sign_of_life(talk: Talk) -> None:
    talk.order({ONE: Route()})
    for _ in range(int(HOLD) + 1):
        talk.relay.disconnected(talk.now)
        talk.relay.connected(talk.now)
        talk.later(1.1)
    assert talk.exabgp.rib[P1] == {}


def test_hold_counts_from_the_end_of_the_connection_if_the_daemon_beat_until_then(talk: Talk) -> None:
    talk.order({ONE: Route()})
    talk.now += 0.9
    talk.relay.disconnected(talk.now)
    assert ONE in talk.later(HOLD - 0.05).announced
    assert talk.later(0.1).announced == {}


def test_the_end_of_a_connection_long_silent_gives_no_more_than_a_second(talk: Talk) -> None:
    talk.order({ONE: Route()})
    talk.now += HOLD - 1
    talk.relay.disconnected(talk.now)
    assert ONE in talk.later(1.9).announced
    assert talk.later(0.2).announced == {}


def test_a_daemon_that_restarts_within_hold_changes_nothing(talk: Talk) -> None:
    talk.order({ONE: Route(("65001:2", "65001:1"))}, serial=9)
    talk.relay.disconnected(talk.now)
    talk.exabgp.said.clear()
    talk.later(HOLD / 2)
    talk.relay.connected(talk.now)
    assert talk.relay.report().serial == 0, "serials belong to a connection"
    assert talk.order({ONE: Route(("65001:2", "65001:1"))}, serial=1).serial == 1
    assert talk.exabgp.said == []


@pytest.mark.parametrize("serial", [1, 3])
def test_a_heartbeat_of_another_set_is_an_error(talk: Talk, serial: int) -> None:
    talk.order({ONE: Route()}, serial=2)
    with pytest.raises(ProtocolError, match="beat"):
        talk.relay.obey(Heartbeat(serial), talk.now)


def test_a_beat_before_any_set_is_an_error_and_no_sign_of_life(talk: Talk) -> None:
    talk.order({ONE: Route()}, serial=2)
    talk.relay.disconnected(talk.now)
    talk.relay.connected(talk.now)
    with pytest.raises(ProtocolError):
        talk.relay.obey(Heartbeat(2), talk.now)
    assert talk.later(HOLD + 1).announced == {}


# ---------------------------------------------------------------- a daemon that dies again and again


def live(talk: Talk, seconds: float, routes: Mapping[Address, Route]) -> None:
    """One life of a daemon: it proves life until its end, and its successor comes two seconds later."""
    talk.relay.connected(talk.now)
    talk.order(routes)
    for _ in range(int(seconds)):
        talk.later(1)
        talk.relay.obey(Heartbeat(1), talk.now)
    talk.pump()
    talk.relay.disconnected(talk.now)
    talk.later(2)


@pytest.mark.parametrize("seconds", [0, 1, STEADY - 1])
def test_a_daemon_that_dies_again_and_again_loses_its_routes(talk: Talk, seconds: float) -> None:
    for _ in range(SHORT_LIVES):
        live(talk, seconds, {ONE: Route()})
        assert str(ONE) + "/32" in talk.exabgp.rib[P1]
    began = talk.now
    while talk.exabgp.rib[P1]:
        live(talk, seconds, {ONE: Route()})
        assert talk.now - began <= HOLD + seconds + 2
    for _ in range(20):
        live(talk, seconds, {ONE: Route()})
        assert talk.exabgp.rib[P1] == {}
    notes = [note for note in talk.relay.notes if "times in a row" in note]
    assert len(notes) == 2 and notes[1].endswith("every route is withdrawn")


def test_a_daemon_that_lives_on_after_all_gets_its_routes_back(talk: Talk) -> None:
    for _ in range(SHORT_LIVES + 10):
        live(talk, 1, {ONE: Route()})
    talk.relay.connected(talk.now)
    report = talk.order({ONE: Route()})
    assert report.serial == 0 and "within 10 s of its start" in report.rejected[ONE]
    for _ in range(int(STEADY)):
        assert talk.exabgp.rib[P1] == {}
        talk.relay.obey(Heartbeat(1), talk.later(1) and talk.now)
    report = talk.pump()
    assert report.announced == {ONE: Route()} and report.serial == 1 and not report.rejected
    live(talk, 1, {ONE: Route()})
    assert str(ONE) + "/32" in talk.exabgp.rib[P1], "one more restart costs nothing"


def test_a_life_on_trial_with_a_silence_in_it_proves_nothing(talk: Talk) -> None:
    for _ in range(SHORT_LIVES + 10):
        live(talk, 1, {ONE: Route()})
    talk.relay.connected(talk.now)
    talk.order({ONE: Route()})
    talk.later(HOLD + STEADY)
    talk.relay.obey(Heartbeat(1), talk.now)
    assert talk.pump().announced == {}


def test_a_withdrawal_is_obeyed_on_trial(talk: Talk) -> None:
    for _ in range(SHORT_LIVES):
        live(talk, 1, {ONE: Route(), TWO: Route()})
    talk.relay.connected(talk.now)
    assert talk.order({TWO: Route()}).announced == {TWO: Route()}


def test_restarts_between_which_the_daemon_lives_on_cost_nothing(talk: Talk) -> None:
    for n in range(5 * SHORT_LIVES):
        live(talk, STEADY if n % (SHORT_LIVES - 1) == 0 else 1, {ONE: Route()})
        assert str(ONE) + "/32" in talk.exabgp.rib[P1]


# ---------------------------------------------------------------- silence of ExaBGP


def test_an_exabgp_that_does_not_withdraw_must_be_killed(talk: Talk) -> None:
    talk.order({ONE: Route()})
    talk.exabgp.silent = lambda line: "withdraw" in line
    talk.relay.obey(RouteSet(2, HOLD, {}), talk.now)
    talk.pump()
    talk.later(ACK_TIMEOUT - 0.1)
    assert talk.relay.stuck(talk.now) == ""
    talk.later(0.2)
    assert "routes have to leave" in talk.relay.stuck(talk.now)


def test_an_exabgp_that_does_not_announce_is_told_and_lives(talk: Talk) -> None:
    talk.exabgp.silent = lambda line: "announce" in line
    talk.order({ONE: Route()})
    report = talk.later(ACK_TIMEOUT + 1)
    assert talk.relay.stuck(talk.now) == ""
    assert "has not answered" in report.rejected[ONE] and report.serial == 0
    talk.relay.hear("done", talk.now)
    report = talk.pump()
    assert report.rejected == {} and report.serial == 1 and ONE in report.announced


def test_an_exabgp_stuck_in_an_announcement_is_killed_once_a_route_must_leave(talk: Talk) -> None:
    talk.order({ONE: Route()})
    talk.exabgp.silent = lambda line: "announce" in line
    talk.order({ONE: Route(), TWO: Route()}, serial=2)
    talk.later(ACK_TIMEOUT + 1)
    assert talk.relay.stuck(talk.now) == ""
    talk.relay.obey(RouteSet(3, HOLD, {TWO: Route()}), talk.now)
    assert talk.relay.stuck(talk.now)


def test_an_exabgp_that_never_answered_is_killed_only_when_the_daemon_is_gone_too() -> None:
    talk = Talk(P1)
    talk.exabgp.silent = lambda line: True
    talk.pump()
    talk.later(HOLD - 1)
    assert talk.relay.stuck(talk.now) == ""
    talk.later(2)
    assert talk.relay.stuck(talk.now)


def test_an_exabgp_whose_neighbors_are_removed_again_and_again_is_not_killed(talk: Talk) -> None:
    for serial in range(1, 2 * REFUSALS, 2):
        talk.order({ONE: Route()}, serial)
        talk.exabgp.peers.remove(P1)
        del talk.exabgp.rib[P1]
        talk.order({}, serial + 1)  # it is refused, because there is no such neighbor any more
        assert talk.relay.stuck(talk.now) == ""
        talk.exabgp.peers.append(P1)
        talk.exabgp.rib[P1] = {}
        talk.relay.hear(state(P1, "down"), talk.now)
        talk.relay.hear(state(P1, "up"), talk.now)


def test_an_exabgp_with_many_routes_has_more_time(talk: Talk) -> None:
    talk.order(MANY)
    talk.exabgp.silent = lambda line: "withdraw" in line
    talk.relay.obey(RouteSet(2, HOLD, {}), talk.now)
    talk.pump()
    talk.later(ACK_TIMEOUT + 0.01)
    assert talk.relay.stuck(talk.now) == ""
    talk.later(0.1)
    assert "routes have to leave" in talk.relay.stuck(talk.now)


def test_an_exabgp_that_refuses_every_withdrawal_must_be_killed(talk: Talk) -> None:
    talk.order({ONE: Route()})
    talk.exabgp.refuse = lambda line: "withdraw" in line
    talk.relay.obey(RouteSet(2, HOLD, {}), talk.now)
    for _ in range(REFUSALS * 3):
        command = talk.relay.next(talk.now)
        assert command
        for line in talk.exabgp.answer(command.line):
            talk.relay.hear(line, talk.now)
    assert "refused to withdraw" in talk.relay.stuck(talk.now)


@pytest.mark.parametrize("version", ["exabgp 4.2.25", "exabgp 6.0.0"])
def test_another_exabgp_is_not_spoken_to(version: str) -> None:
    talk = Talk(P1)
    talk.exabgp.version = version
    report = talk.order({ONE: Route()})
    assert "not supported" in report.rejected[ONE] and report.serial == 1 and report.announced == {}
    assert talk.exabgp.said == ["version"]


def test_a_lost_answer_is_asked_for_again_and_blocks_nothing(talk: Talk) -> None:
    """Turned round: one lost ``done`` stopped every later announcement for ever."""
    talk.order({ONE: Route()})
    talk.exabgp.silent = lambda line: "192.0.2.2" in line
    talk.order({ONE: Route(), TWO: Route()}, serial=2)
    talk.exabgp.silent = lambda line: False
    talk.relay.obey(Heartbeat(2), talk.now)
    assert talk.later(LOST_TIMEOUT - 0.5).serial == 1
    talk.exabgp.said.clear()
    talk.relay.obey(Heartbeat(2), talk.now)
    report = talk.later(1)
    assert talk.exabgp.said[:3] == ["version", "enable-ack", "show neighbor json"]
    assert report.serial == 2 and set(report.announced) == {ONE, TWO} and report.rejected == {}
    assert not any("adj-rib" in line for line in talk.exabgp.said), "what was known before is still known"


def test_an_answer_that_comes_after_it_was_given_up_is_taken_for_no_other(talk: Talk) -> None:
    talk.exabgp.silent = lambda line: "announce" in line
    talk.order({ONE: Route()})
    talk.now += LOST_TIMEOUT + 1
    talk.relay.tick(talk.now)
    talk.exabgp.silent = lambda line: False
    version = talk.relay.next(talk.now)
    assert version and version.line == "version"
    for line in ["done", *talk.exabgp.answer("version")]:  # the late answer first
        talk.relay.hear(line, talk.now)
    acks = talk.relay.next(talk.now)
    assert acks and acks.line == "enable-ack"


# ---------------------------------------------------------------- many routes, slow answers


def carried_out(talk: Talk, commands: int) -> None:
    """So many commands are sent and answered, a tenth of a second each."""
    for _ in range(commands):
        command = talk.relay.next(talk.now)
        assert command is not None
        talk.now += 0.1
        for line in talk.exabgp.answer(command.line):
            talk.relay.hear(line, talk.now)
        talk.relay.tick(talk.now)


def test_what_was_acknowledged_is_reported_before_the_set_is_done(talk: Talk) -> None:
    talk.relay.obey(RouteSet(1, HOLD, MANY), talk.now)
    shares = []
    while (report := talk.relay.report()).serial != 1:
        assert set(report.announced) == talk.exabgp.announced(P1)
        shares.append(len(report.announced))
        carried_out(talk, 1)
        talk.relay.next(talk.now) if len(talk.relay.report().announced) == len(MANY) else None
    assert shares == sorted(shares) and len(set(shares)) > 2, "it grows, and never shrinks"


def test_a_withdrawal_goes_before_the_rest_of_a_large_set(talk: Talk) -> None:
    talk.relay.obey(RouteSet(1, HOLD, MANY), talk.now)
    carried_out(talk, 1)
    gone = min(talk.exabgp.announced(P1))
    talk.relay.obey(RouteSet(2, HOLD, {vip: route for vip, route in MANY.items() if vip != gone}), talk.now)
    carried_out(talk, 1)
    assert gone not in talk.exabgp.announced(P1)


def test_a_withdrawal_waits_for_no_question_when_a_session_flaps(talk: Talk) -> None:
    talk.order({ONE: Route(), TWO: Route()})
    talk.relay.hear(state(P1, "down", "hold timer expired"), talk.now)
    talk.relay.hear(state(P1, "up"), talk.now)
    talk.relay.obey(RouteSet(2, HOLD, {TWO: Route()}), talk.now)
    carried_out(talk, 1)
    assert talk.exabgp.announced(P1) == {TWO}


def test_a_session_that_flaps_lists_nothing_and_gets_its_routes_again(talk: Talk) -> None:
    talk.order(MANY)
    talk.exabgp.rib[P1].clear()  # as if a reload had dropped them
    talk.exabgp.said.clear()
    talk.relay.hear(state(P1, "down", "hold timer expired"), talk.now)
    talk.relay.hear(state(P1, "up"), talk.now)
    report = talk.pump()
    assert report.serial == 1 and set(report.announced) == set(MANY)
    assert talk.exabgp.announced(P1) == set(MANY)
    assert not any("adj-rib" in line for line in talk.exabgp.said)


def test_routes_that_are_announced_once_more_wait_for_what_is_new(talk: Talk) -> None:
    talk.order(MANY)
    talk.relay.hear(state(P1, "down"), talk.now)
    talk.relay.hear(state(P1, "up"), talk.now)
    carried_out(talk, 2)  # the question, and a part of them
    talk.relay.obey(RouteSet(2, HOLD, {**MANY, ip_address("192.0.2.255"): Route()}), talk.now)
    carried_out(talk, 1)
    assert ip_address("192.0.2.255") in talk.exabgp.announced(P1)


def test_a_neighbor_that_a_reload_brings_back_loses_its_routes_of_long_ago(talk: Talk) -> None:
    talk.order({ONE: Route(), SIX: Route()})
    talk.exabgp.peers.remove(P1)
    old = talk.exabgp.rib.pop(P1)
    talk.relay.hear(state(P1, "down", "peer removed"), talk.now)
    talk.pump()
    talk.order({TWO: Route()}, serial=2)
    talk.exabgp.peers.append(P1)
    talk.exabgp.rib[P1] = old
    talk.relay.hear(state(P1, "up"), talk.now)
    talk.pump()
    assert talk.exabgp.announced(P1) == {TWO}


def test_neighbors_share_a_command(talk: Talk) -> None:
    talk = Talk(P1, P2, P6)
    talk.order({ONE: Route()})
    talk.order({}, serial=2)
    verbs = [line for line in talk.exabgp.said if "attributes" in line]
    assert [line.split(" attributes")[0] for line in verbs] == [
        f"neighbor {P1} , neighbor {P2} announce",
        f"neighbor {P1} , neighbor {P2} withdraw",
    ]


def test_an_idle_bridge_does_the_same_work_for_many_routes_as_for_few() -> None:
    """Turned round: a look was O(routes x peers), ten times a second."""
    assert idle_calls(10) == idle_calls(250)


def test_the_work_for_one_command_does_not_grow_with_the_routes() -> None:
    assert command_calls(250) < 1.5 * command_calls(60)


def idle_calls(routes: int) -> int:
    talk = Talk(P1, P2)
    talk.order(dict(list(MANY.items())[:routes]))

    def look() -> None:
        talk.relay.tick(talk.now)
        assert talk.relay.next(talk.now) is None and talk.relay.stuck(talk.now) == ""

    return calls(look)


def command_calls(routes: int) -> int:
    talk = Talk(P1, P2)
    talk.order(dict(list(MANY.items())[:routes]))
    talk.relay.obey(RouteSet(2, HOLD, dict(list(MANY.items())[1:routes])), talk.now)
    return calls(lambda: carried_out(talk, 1))


# ---------------------------------------------------------------- vip_ranges


def test_a_route_outside_of_narrowed_ranges_is_still_ours(talk: Talk) -> None:
    """Turned round: it stayed announced for ever, and nobody said so."""
    talk.order({ONE: Route(), SIX: Route()})
    talk.relay.disconnected(talk.now)
    talk.relay.set_ranges(RANGES[1:])
    talk.relay.connected(talk.now)
    assert set(talk.relay.report().announced) == {ONE, SIX}, "the new daemon learns of it"
    report = talk.order({SIX: Route()}, serial=1)
    assert set(report.announced) == {SIX} and talk.exabgp.announced(P1) == set()


def test_a_route_outside_of_narrowed_ranges_goes_with_a_silent_daemon_too(talk: Talk) -> None:
    talk.order({ONE: Route()})
    talk.relay.disconnected(talk.now)
    talk.relay.set_ranges(RANGES[1:])
    assert talk.later(HOLD + 1).announced == {} and talk.exabgp.announced(P1) == set()


def test_a_route_of_an_old_range_that_a_reload_brings_back_is_ours(talk: Talk) -> None:
    talk.relay.disconnected(talk.now)
    talk.relay.set_ranges(RANGES[1:])
    talk.relay.connected(talk.now)
    talk.order({})
    talk.exabgp.peers.append(P2)
    talk.exabgp.rib[P2] = {"192.0.2.1/32": ""}
    talk.relay.hear(state(P2, "up"), talk.now)
    talk.pump()
    assert talk.exabgp.announced(P2) == set()


# ---------------------------------------------------------------- laws

few = st.sampled_from([ONE, TWO, SIX, ip_address("192.0.2.3"), OUTSIDE])
sets = st.dictionaries(few, routes, max_size=5)


@given(st.lists(sets, min_size=1, max_size=4))
def test_whatever_was_before_the_last_set_is_what_exabgp_has(history: list[dict[Address, Route]]) -> None:
    talk = Talk(P1, P2, P6)
    for serial, wanted in enumerate(history, 1):
        report = talk.order(wanted, serial)
        assert report.serial == serial
        four = {vip for vip in wanted if vip.version == 4 and vip != OUTSIDE}
        assert talk.exabgp.announced(P1) == talk.exabgp.announced(P2) == four
        assert talk.exabgp.announced(P6) == {vip for vip in wanted if vip.version == 6}
        assert report.announced == {vip: route for vip, route in wanted.items() if vip != OUTSIDE}
    assert not any(str(OUTSIDE) in line for line in talk.exabgp.said)


@given(sets, sets)
def test_a_new_bridge_finds_what_the_old_one_left(left: dict[Address, Route], wanted: dict[Address, Route]) -> None:
    old = Talk(P1, P6)
    old.order(left)
    new = Talk(P1, P6)
    new.exabgp.rib = old.exabgp.rib
    assert set(new.pump().announced) == set(left) - {OUTSIDE}
    assert set(new.order(wanted).announced) == set(wanted) - {OUTSIDE}
    if left == wanted:
        assert not any("announce" in line or "withdraw" in line for line in new.exabgp.said)


@given(st.lists(st.text(max_size=30), max_size=10))
def test_no_line_of_exabgp_breaks_the_bridge(lines: list[str]) -> None:
    talk = Talk(P1)
    for line in lines:
        talk.relay.hear(line, talk.now)
        talk.relay.next(talk.now)
        talk.relay.hear(line, talk.now)
        talk.relay.tick(talk.now)
        talk.relay.report()
