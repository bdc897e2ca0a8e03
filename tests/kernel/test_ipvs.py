"""The IPVS driver on a real kernel, judged by ipvsadm: what one writes, the other must read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.adapters.system import netlink
from anycastlb.core.decision import plan
from anycastlb.core.model import Change, Destination, DestinationKey, Protocol, ServiceKey, State, VirtualService
from tests.support.netns import fresh, run

RANGES = [ip_network("192.0.2.0/24"), ip_network("2001:db8::/64")]
MARKS = [(100, 199)]
MH = VirtualService("mh", frozenset({"mh-port", "mh-fallback"}))
UP = Destination("dr", 10, 10)


@pytest.fixture
def driver(netns: None) -> Iterator[IpvsDriver]:
    opened = IpvsDriver(RANGES, MARKS)
    yield opened
    opened.close()


def service(vip: str = "192.0.2.10", port: int = 80, protocol: Protocol = "tcp") -> ServiceKey:
    return ServiceKey(protocol, ip_address(vip), port)


def real(address: str, of: ServiceKey, port: int = 80) -> DestinationKey:
    return DestinationKey(of, ip_address(address), port)


async def look(driver: IpvsDriver) -> State:
    return State(**{str(table): rows for table, rows in (await driver.observe()).items()})


async def settle(driver: IpvsDriver, desired: State) -> None:
    failures = await driver.apply(plan.diff(await look(driver), desired))
    assert not failures


WEB = service()
TCP, WITH = "-t 192.0.2.10:80", "-r 10.0.0.1:80"


def one(row: VirtualService, destination: Destination = UP, key: ServiceKey = WEB, address: str = "10.0.0.1") -> State:
    port = (
        80 if key.protocol == "fwmark" else key.port
    )  # without nat, ipvsadm uses the service's port whatever it is told
    return State(services={key: row}, destinations={real(address, key, port): destination})


def schedulers() -> dict[str, tuple[State, str]]:
    names = ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"]
    # Every one that Debian builds, which is every one but twos.
    return {name: (one(VirtualService(name)), f"-A {TCP} -s {name}\n-a {TCP} {WITH} -g -w 10") for name in names}


def flagged(scheduler: str, *flags: str) -> tuple[State, str]:
    row = VirtualService(scheduler, frozenset(flags))
    return one(row), f"-A {TCP} -s {scheduler} -b {','.join(flags)}\n-a {TCP} {WITH} -g -w 10"


def forwarded(row: Destination, letters: str) -> tuple[State, str]:
    return one(VirtualService("rr"), row), f"-A {TCP} -s rr\n-a {TCP} {WITH} {letters}"


UDP, SCTP, V6 = service(protocol="udp", port=53), service(protocol="sctp", port=9), service("2001:db8::10")
MARK4, MARK6 = ServiceKey("fwmark", ip_address("0.0.0.0"), 123), ServiceKey("fwmark", ip_address("::"), 123)
RR = VirtualService("rr")

CASES: dict[str, tuple[State, str]] = {
    **schedulers(),
    "mh flags": flagged("mh", "mh-port", "mh-fallback"),
    "mh-port": flagged("mh", "mh-port"),
    "mh-fallback": flagged("mh", "mh-fallback"),
    "sh flags": flagged("sh", "sh-port", "sh-fallback"),
    "plain flags": flagged("rr", "flag-1", "flag-2", "flag-3"),
    "nat": forwarded(Destination("nat", 3, 3), "-m -w 3"),
    "tunnel": forwarded(Destination("tunnel", 3, 3), "-i -w 3"),
    "gue": forwarded(Destination("gue", 3, 3, tunnel_port=6080), "-i --tun-type gue --tun-port 6080 -w 3"),
    "gue port": forwarded(Destination("gue", 3, 3, tunnel_port=5555), "-i --tun-type gue --tun-port 5555 -w 3"),
    "gre": forwarded(Destination("gre", 3, 3), "-i --tun-type gre -w 3"),
    "dr": forwarded(Destination("dr", 3, 3), "-g -w 3"),
    "thresholds": forwarded(Destination("dr", 3, 3, upper=100, lower=50), "-g -w 3 -x 100 -y 50"),
    "weight 0": forwarded(Destination("dr", 0, None), "-g -w 0"),
    "biggest weight": forwarded(Destination("dr", 65535, 65535), "-g -w 65535"),
    "udp, one packet": (
        one(replace(MH, one_packet=True), key=UDP),
        "-A -u 192.0.2.10:53 -s mh -b mh-port,mh-fallback -o\n-a -u 192.0.2.10:53 -r 10.0.0.1:53 -g -w 10",
    ),
    "sctp": (
        one(RR, key=SCTP),
        "-A --sctp-service 192.0.2.10:9 -s rr\n-a --sctp-service 192.0.2.10:9 -r 10.0.0.1:9 -g -w 10",
    ),
    "fwmark": (one(RR, key=MARK4), "-A -f 123 -s rr\n-a -f 123 -r 10.0.0.1:80 -g -w 10"),
    "fwmark v6": (
        one(RR, key=MARK6, address="2001:db8:1::1"),
        "-A -f 123 -6 -s rr\n-a -f 123 -6 -r [2001:db8:1::1]:80 -g -w 10",
    ),
    "v6": (
        one(MH, key=V6, address="2001:db8:1::1"),
        "-A -t [2001:db8::10]:80 -s mh -b mh-port,mh-fallback\n-a -t [2001:db8::10]:80 -r [2001:db8:1::1]:80 -g -w 10",
    ),
    "v4 to v6": (
        one(RR, Destination("tunnel", 1, 1), address="2001:db8:1::1"),
        f"-A {TCP} -s rr\n-a {TCP} -r [2001:db8:1::1]:80 -i -w 1",
    ),
    "v6 to v4": (
        one(RR, Destination("tunnel", 1, 1), key=V6),
        "-A -t [2001:db8::10]:80 -s rr\n-a -t [2001:db8::10]:80 -r 10.0.0.1:80 -i -w 1",
    ),
    "persistence": (one(replace(RR, persistence=300)), f"-A {TCP} -s rr -p 300\n-a {TCP} {WITH} -g -w 10"),
    "persistence of networks": (
        one(replace(RR, persistence=300, persistence_prefix=24)),
        f"-A {TCP} -s rr -p 300 -M 255.255.255.0\n-a {TCP} {WITH} -g -w 10",
    ),
    "persistence v6": (
        one(replace(RR, persistence=300, persistence_prefix=64), key=V6, address="2001:db8:1::1"),
        "-A -t [2001:db8::10]:80 -s rr -p 300 -M 64\n-a -t [2001:db8::10]:80 -r [2001:db8:1::1]:80 -g -w 10",
    ),
    "every port": (
        State(
            services={service(port=0): replace(RR, persistence=300)},
            destinations={real("10.0.0.1", service(port=0), 0): UP},
        ),
        "-A -t 192.0.2.10:0 -s rr -p 300\n-a -t 192.0.2.10:0 -r 10.0.0.1:0 -g -w 10",
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_the_kernel_holds_what_ipvsadm_would_have_made_of_it(driver: IpvsDriver, name: str) -> None:
    desired, script = CASES[name]
    await settle(driver, desired)
    assert await look(driver) == desired
    written = run("ipvsadm", "-Sn")
    with fresh():
        run("ipvsadm", "-R", stdin=script + "\n")
        peer = IpvsDriver(RANGES, MARKS)
        peer.open()
        assert written == run("ipvsadm", "-Sn")
        (key,) = desired.destinations
        expected = desired
        if not desired.destinations[key].weight:
            expected = replace(desired, destinations={key: replace(desired.destinations[key], last_weight=None)})
        assert await look(peer) == expected
        peer.close()


async def test_one_packet_and_flags_are_taken_away_again(driver: IpvsDriver) -> None:
    await settle(driver, one(replace(MH, one_packet=True, persistence=60), key=UDP))
    await settle(driver, one(RR, key=UDP))
    assert run("ipvsadm", "-Sn").splitlines()[0].strip() == "-A -u 192.0.2.10:53 -s rr"


FOREIGN = """\
-A -t 203.0.113.1:80 -s wlc -p 17
-a -t 203.0.113.1:80 -r 10.9.9.9:80 -g -w 7
-A -f 99 -s rr
-a -f 99 -r 10.9.9.9:80 -m -w 1
-A -f 200 -6 -s rr
-A -u [2001:db8:0:1::1]:53 -s rr -o
-a -u [2001:db8:0:1::1]:53 -r [2001:db8:9::9]:53 -m -w 1
"""


async def test_what_is_not_ours_is_neither_seen_nor_touched(driver: IpvsDriver) -> None:
    run("ipvsadm", "-R", stdin=FOREIGN)
    before = run("ipvsadm", "-Sn")
    assert await look(driver) == State()
    assert set(await driver.statistics()) == set()
    await settle(driver, one(MH))
    assert await look(driver) == one(MH)
    await settle(driver, State())
    assert run("ipvsadm", "-Sn") == before


async def test_what_we_have_no_word_for_is_seen_as_different_and_repaired(driver: IpvsDriver) -> None:
    run(
        "ipvsadm",
        "-R",
        stdin=f"-A {TCP} -s nq -p 60 -M 255.0.255.0\n"
        f"-a {TCP} {WITH} -i --tun-type gue --tun-port 6080 --tun-csum -w 10\n",
    )
    seen = await look(driver)
    assert seen.services[WEB] == VirtualService("nq", persistence=60, persistence_prefix=-1)
    assert str(seen.destinations[real("10.0.0.1", WEB)].forward) == "gue+0x1"
    await settle(driver, one(MH, Destination("gue", 10, 10, tunnel_port=6080)))
    assert await look(driver) == one(MH, Destination("gue", 10, 10, tunnel_port=6080))
    assert "tun-csum" not in run("ipvsadm", "-Sn")


async def test_a_new_service_whose_scheduler_is_missing_leaves_nothing_behind(driver: IpvsDriver) -> None:
    bad = Change("services", WEB, None, VirtualService("foo"))
    lost = Change("destinations", real("10.0.0.1", WEB), None, UP)
    other = service("192.0.2.11")
    good = [Change("services", other, None, MH), Change("destinations", real("10.0.0.1", other), None, UP)]
    failures = await driver.apply([bad, good[0], lost, good[1]])
    assert [failure.change for failure in failures] == [bad, lost]
    assert failures[0].reason.text == 'scheduler "foo": the kernel has no such scheduler (modprobe ip_vs_foo)'
    assert "could not be created" in failures[1].reason.text
    assert await look(driver) == one(MH, key=other)


async def test_a_scheduler_that_is_missing_leaves_a_service_as_it_was(driver: IpvsDriver) -> None:
    await settle(driver, one(MH))
    change = Change("services", WEB, MH, VirtualService("foo"))
    (failure,) = await driver.apply([change])
    assert failure.reason.text == 'scheduler "foo": the kernel has no such scheduler (modprobe ip_vs_foo)'
    assert await look(driver) == one(MH)


async def test_more_destinations_than_mh_can_hold_is_a_failure_of_the_service(driver: IpvsDriver) -> None:
    changes = [Change("services", WEB, None, MH)]
    changes += [Change("destinations", real(str(ip_address("10.0.0.0") + n), WEB), None, UP) for n in range(4094)]
    failures = await driver.apply(changes)
    assert failures[0].change == changes[0]
    assert "4093" in failures[0].reason.text
    assert await look(driver) == State()


async def test_mixed_families_need_a_tunnel_and_the_reason_says_so(driver: IpvsDriver) -> None:
    await settle(driver, State(services={WEB: MH}))
    (failure,) = await driver.apply([Change("destinations", real("2001:db8:1::1", WEB), None, UP)])
    assert "needs forward tunnel, not dr" in failure.reason.text


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (VirtualService("mh", frozenset({"mh-prot"})), "mh-prot"),
        (VirtualService(""), "scheduler ''"),
        (VirtualService("x" * 16), "1 to 15"),
        (VirtualService("r\0r"), "scheduler"),
        (VirtualService("rr", persistence=2**32), "out of range"),
        (VirtualService("rr", persistence=1, persistence_prefix=33), "1 to 32"),
    ],
)
async def test_what_no_message_can_say_is_refused_before_it_is_sent(
    driver: IpvsDriver, row: VirtualService, words: str
) -> None:
    change = Change("services", WEB, None, row)
    (failure,) = await driver.apply([change])
    assert failure.change == change
    assert words in failure.reason.text
    assert await look(driver) == State()


@pytest.mark.parametrize(
    "row",
    [
        Destination("dr", 2**31, 2**31),
        Destination("dr", 2**32, 2**32),
        Destination("dr", -1, -1),
        Destination("dr", 1, 1, upper=1, lower=2),
        Destination("warp", 1, 1),  # type: ignore[arg-type]
        Destination("gue", 1, 1, tunnel_port=70000),
    ],
)
async def test_an_impossible_destination_fails_alone(driver: IpvsDriver, row: Destination) -> None:
    await settle(driver, State(services={WEB: MH}))
    bad = Change("destinations", real("10.0.0.1", WEB), None, row)
    good = Change("destinations", real("10.0.0.2", WEB), None, UP)
    (failure,) = await driver.apply([bad, good])
    assert failure.change == bad
    assert "10.0.0.1" in failure.reason.text or "warp" in failure.reason.text
    assert await look(driver) == one(MH, address="10.0.0.2")


async def test_a_large_batch_tells_exactly_which_messages_were_wrong(driver: IpvsDriver) -> None:
    keys = [service(f"192.0.2.{n}") for n in range(1, 101)]
    wanted = {real(f"10.0.{m}.{n}", key): UP for n, key in enumerate(keys) for m in range(100)}
    changes = [Change("services", key, None, MH) for key in keys]
    changes += [Change("destinations", key, None, UP) for key in wanted]
    wrong: list[tuple[int, Change]] = []
    for place, name in zip(range(100, len(changes), 33), wanted, strict=False):
        kinds = (
            Change("destinations", name, None, UP),  # twice
            Change("destinations", replace(name, port=81), UP, replace(UP, weight=1)),  # not there
            Change("destinations", replace(name, service=service(port=1)), None, UP),  # no such service
            Change("destinations", replace(name, port=82), None, Destination("dr", 2**31, 2**31)),  # too heavy
        )
        wrong.append((place + len(wrong), kinds[len(wrong) % 4]))
    for place, change in wrong:
        changes.insert(place, change)
    failures = await driver.apply(changes)
    twice = {id(failure.change) for failure in failures} ^ {id(change) for _, change in wrong}
    # Of two equal creates the later one fails, whichever of them was the planted one.
    assert all(change.key in wanted for change in changes if id(change) in twice)
    assert len(failures) == len(wrong) > 300
    assert await look(driver) == State(services=dict.fromkeys(keys, MH), destinations=wanted)


async def test_lost_answers_are_made_up_for_by_a_look(driver: IpvsDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    await settle(driver, State(services={WEB: RR}))
    monkeypatch.setattr(netlink, "CHUNK", 2000)
    kernel = driver._socket
    assert kernel is not None
    kernel._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    missing = [Change("destinations", real(f"10.1.0.{n}", WEB), UP, replace(UP, upper=9)) for n in range(200)]
    good = [Change("destinations", real(f"10.0.{n // 200}.{n % 200}", WEB), None, UP) for n in range(1000)]
    failures = await driver.apply(missing + good)
    assert [failure.change for failure in failures] == missing
    assert any("answer was lost" in failure.reason.text for failure in failures)
    assert (await look(driver)).destinations == {change.key: UP for change in good}


async def test_hand_made_changes_are_seen(driver: IpvsDriver) -> None:
    desired = State(services={WEB: MH}, destinations={real("10.0.0.1", WEB): UP, real("10.0.0.2", WEB): UP})
    await settle(driver, desired)
    for command in (
        f"-e {TCP} -r 10.0.0.1:80 -g -w 3",
        f"-d {TCP} -r 10.0.0.2:80",
        f"-E {TCP} -s rr",
        f"-a {TCP} -r 10.0.0.9:80 -g",
        f"-D {TCP}",
    ):
        run("ipvsadm", *command.split())
        assert await look(driver) != desired
        await settle(driver, desired)
        assert await look(driver) == desired


async def test_a_weight_lowered_by_hand_or_by_a_former_daemon_has_an_unknown_table_weight(driver: IpvsDriver) -> None:
    name = real("10.0.0.1", WEB)
    drained = one(MH, replace(UP, weight=0))
    await settle(driver, drained)
    assert await look(driver) == drained
    restarted = IpvsDriver(RANGES, MARKS)
    assert (await look(restarted)).destinations == {name: replace(UP, weight=0, last_weight=None)}
    await settle(restarted, drained)
    assert await look(restarted) == drained
    restarted.close()
    run("ipvsadm", "-d", "-t", "192.0.2.10:80", "-r", "10.0.0.1:80")
    for _ in range(2):  # one look may omit what exists, so that the engine takes a second one
        assert not (await look(driver)).destinations
    run("ipvsadm", "-a", "-t", "192.0.2.10:80", "-r", "10.0.0.1:80", "-w", "0")
    assert (await look(driver)).destinations[name].last_weight is None


async def test_one_look_after_another_tells_the_same(driver: IpvsDriver) -> None:
    desired, _ = CASES["thresholds"]
    await settle(driver, desired)
    assert await look(driver) == await look(driver) == await look(driver) == desired


async def test_statistics_count_what_went_through(driver: IpvsDriver) -> None:
    run("ip", "address", "add", "192.0.2.10/32", "dev", "lo")
    key, address = service(protocol="udp", port=53), "127.0.0.1"
    name = DestinationKey(key, ip_address(address), 5353)
    await settle(driver, State(services={key: RR}, destinations={name: Destination("nat", 1, 1)}))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("192.0.2.10", 53))
        client.send(b"x" * 100)
    for _ in range(200):  # the kernel adds up its counters every two seconds
        counted = await driver.statistics()
        if counted[key].connections:
            break
        await asyncio.sleep(0.1)
    assert set(counted) == {key, name}
    for item in counted.values():
        assert item.connections == 1
        assert item.packets_in == 1
        assert item.bytes_in == 128
    assert counted[name].active + counted[name].inactive == 1
    assert counted[key].active + counted[key].inactive == 0
