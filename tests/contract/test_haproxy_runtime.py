"""What both HAProxies take and answer, command by command, and what the one in memory makes of them."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.haproxy import answers, commands
from anycastlb.adapters.drivers.haproxy.config import render
from anycastlb.adapters.drivers.haproxy.errors import Away, UnknownAnswer
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.memory import MemoryHaproxy
from anycastlb.adapters.drivers.haproxy.names import UnsafeName
from anycastlb.adapters.drivers.haproxy.sockets import BATCH, Runtime, SocketRuntime
from tests.support import haproxy
from tests.support.haproxy import LOOPBACK, RELEASES, Haproxy, config, gateway, section, write_empty_maps
from tests.support.haproxy_rows import at, server
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, eventually

REAL = pytest.mark.parametrize("engine", RELEASES, indirect=True)


@dataclass
class Running:
    haproxy: Haproxy | MemoryHaproxy
    files: Installation
    runtime: Runtime
    ended: list[int]

    def write(self, digest: str, *pools: str) -> None:
        static = config([gateway(free_port())], map(section, pools))
        self.files.config.write_text(render(static, digest, {at("shop", "one"): server(9)}, self.files))

    async def do(self, *script: commands.Command) -> list[str]:
        """The refusals, which are empty for what was done."""
        said = await self.runtime.ask([command.text for command in script])
        return [command.refusal(answer) for command, answer in zip(script, said, strict=True)]

    async def entries(self, name: str) -> list[tuple[str, str]]:
        return list(answers.entries((await self.runtime.ask([f"show map {self.files.map(name)}"]))[0]))

    async def servers(self) -> dict[str, tuple[str, int, int, str]]:
        rows = answers.servers((await self.runtime.ask(["show servers state shop"]))[0])
        return {key.server: (str(row.address), row.port, row.weight, row.state) for key, row in rows.items()}


@pytest.fixture(params=["memory", *RELEASES])
async def engine(
    request: pytest.FixtureRequest, require: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[Running]:
    program = "/nowhere" if request.param == "memory" else require(request.param)
    files = haproxy.installation(tmp_path, program)
    write_empty_maps(files)
    ended: list[int] = []
    if request.param == "memory":
        fake = MemoryHaproxy(files, on_end=lambda: ended.append(1))
        running = Running(fake, files, fake, ended)
        running.write("first", "shop")
        fake.start()
        yield running
        return
    runtime = SocketRuntime(files.socket, files.master, files.program, lambda: ended.append(1))
    real = Haproxy(files)
    running = Running(real, files, runtime, ended)
    running.write("first", "shop")
    real.start()
    await real.started()
    await returned(runtime)
    yield running
    runtime.close()
    real.stop()


async def returned(runtime: Runtime) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await connected(runtime):
            await asyncio.sleep(0.02)


async def connected(runtime: Runtime) -> bool:
    try:
        await runtime.connect()
    except Away:
        return False
    return True


async def test_it_says_who_it_is(engine: Running) -> None:
    info = answers.info((await engine.runtime.ask(["show info"]))[0])
    assert info.description.startswith("anycastlb first ")
    assert info.version in ((2, 6), (3, 0)) and info.deletes_servers == (info.version == (3, 0))
    assert not info.stopping


async def test_servers(engine: Running) -> None:
    one, two, other = at("shop", "one"), at("shop", "two"), at("nowhere", "two")
    v6 = ip_address("2001:db8::1")
    assert await engine.do(commands.add_server(two, v6, 80, 3, 7), commands.set_state(two, "ready")) == ["", ""]
    assert await engine.servers() == {"one": ("127.0.0.1", 9, 10, "ready"), "two": (str(v6), 80, 3, "ready")}
    script = [
        commands.set_address(two, LOOPBACK, 81), commands.set_address(two, LOOPBACK, 81), commands.set_weight(two, 256),
        commands.set_maxconn(two, 9), commands.set_state(two, "drain"), commands.set_state(one, "maint"),
    ]  # fmt: skip
    assert [*filter(None, await engine.do(*script))] == []
    assert await engine.servers() == {"one": ("127.0.0.1", 9, 10, "maint"), "two": ("127.0.0.1", 81, 256, "drain")}
    refusals = await engine.do(
        commands.add_server(two, LOOPBACK, 1, 1, 0),
        commands.add_server(other, LOOPBACK, 1, 1, 0),
        commands.set_weight(two, 257),
        commands.set_state(other, "ready"),
        commands.delete_server(two),
    )
    assert all(refusals), refusals
    assert refusals[-1] == "Only servers in maintenance mode can be deleted."
    assert await engine.do(commands.set_state(two, "maint"), commands.delete_server(two)) == ["", ""]
    assert [*await engine.servers()] == ["one"]


async def test_entries_of_maps(engine: Running) -> None:
    path = engine.files.map("do")
    assert await engine.do(*commands.add_entries(path, [("k", "v w"), ("l", "1")])) == [""]
    assert await engine.do(commands.set_entry(path, "k", "x  y"), commands.delete_entry(path, "l")) == ["", ""]
    assert await engine.entries("do") == [("k", "x  y")]
    assert all(await engine.do(commands.set_entry(path, "l", "1"), commands.delete_entry(path, "l")))
    (sizes,) = await engine.runtime.ask(["show map"])
    assert answers.map_sizes(sizes)[str(path)] == 1
    bad = list(commands.add_entries(engine.files.map("re0"), [(r"\Ap\|(", "1")]))
    assert "missing closing parenthesis" in (await engine.do(*bad))[0]


async def test_many_commands_and_long_payloads(engine: Running) -> None:
    """More than are under way at once, and more than fits into a buffer of HAProxy."""
    path, many = engine.files.map("next"), [(f"n{place}|={'x' * 50}", f"v{place}") for place in range(BATCH * 3)]
    script = list(commands.add_entries(path, many))
    assert len(script) > 2
    assert not any(await engine.do(*script))
    assert sorted(await engine.entries("next")) == sorted(many)
    assert not any(await engine.do(*(commands.delete_entry(path, key) for key, _ in many)))
    assert await engine.entries("next") == []


PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@REAL
async def test_every_printable_character_is_data(engine: Running) -> None:
    """R25: in a payload and as an argument of a command."""
    path = engine.files.map("do")
    odd = "\\;'\"#<>%$|+"
    keys = ["!" + PRINTABLE, *(f"{one}{two}" for one in odd.replace("#", "") for two in odd), "\\n", "prompt", ";quit"]
    pairs = [(key, f"{key} {key}") for key in keys]
    assert not any(await engine.do(*commands.add_entries(path, pairs)))
    assert sorted(await engine.entries("do")) == sorted(pairs)
    said = await engine.do(*(commands.set_entry(path, key, f"{value} {key}") for key, value in pairs))
    assert {key: refusal for key, refusal in zip(keys, said, strict=True) if refusal} == {}
    assert sorted(await engine.entries("do")) == sorted((key, f"{value} {key}") for key, value in pairs)
    assert not any(await engine.do(*(commands.delete_entry(path, key) for key in keys)))
    assert await engine.entries("do") == []


@pytest.mark.parametrize("text", ["", "a b", "#a", "a\nb", "a\r", "\0", "é", "\t"])
def test_what_no_line_can_hold_is_refused(text: str) -> None:
    with pytest.raises(UnsafeName):
        commands.set_entry(Path("/m"), text, "v")
    with pytest.raises(UnsafeName):
        list(commands.add_entries(Path("/m"), [("k", f"{text} ")]))
    with pytest.raises(UnsafeName):
        commands.set_state(at("shop", text), "ready")


async def test_a_reload_forgets_what_was_set(engine: Running) -> None:
    """Which is why the driver writes files before: a trap, so it is held here that it is one."""
    two, path = at("shop", "two"), engine.files.map("do")
    assert not any(
        await engine.do(commands.add_server(two, LOOPBACK, 1, 1, 0), *commands.add_entries(path, [("k", "v")]))
    )
    assert not any(await engine.do(commands.set_state(at("shop", "one"), "maint")))
    before = answers.info((await engine.runtime.ask(["show info"]))[0]).pid
    engine.write("second", "shop", "new")
    assert await engine.runtime.check(engine.files.config) == ""
    assert await engine.runtime.reload() == ""
    info = answers.info((await engine.runtime.ask(["show info"]))[0])
    assert info.pid != before and info.description.startswith("anycastlb second ")
    assert await engine.servers() == {"one": ("127.0.0.1", 9, 10, "ready")}
    assert await engine.entries("do") == []
    assert engine.ended == []


@REAL
async def test_a_bad_configuration_is_named_and_the_old_worker_goes_on(engine: Running) -> None:
    before = answers.info((await engine.runtime.ask(["show info"]))[0]).pid
    engine.write("second", "shop")
    text = engine.files.config.read_text()
    engine.files.config.write_text(text.replace("balance roundrobin", "balance nonsense"))
    why = await engine.runtime.check(engine.files.config)
    assert "'balance' only supports" in why or "balance only supports" in why
    assert "[ALERT]" not in why and "Fatal" not in why
    assert await engine.runtime.reload() != ""
    assert answers.info((await engine.runtime.ask(["show info"]))[0]).pid == before
    engine.files.config.write_text(text)
    assert await engine.runtime.reload() == ""
    assert await engine.runtime.check(Path("/nowhere/haproxy.cfg")) != ""


async def test_its_end_is_news_and_then_it_is_away(engine: Running) -> None:
    await engine.runtime.connect()
    engine.haproxy.kill()
    await eventually(lambda: engine.ended == [1])
    with pytest.raises(Away):
        await engine.runtime.ask(["show info"])
    with pytest.raises(Away):
        await engine.runtime.reload()
    engine.haproxy.start()
    await returned(engine.runtime)
    assert await engine.servers() == {"one": ("127.0.0.1", 9, 10, "ready")}


@REAL
async def test_its_sockets_are_for_its_user_and_group_only(engine: Running) -> None:
    """R24. The master's socket has the mode that its unit gives it."""
    assert stat.S_IMODE(engine.files.socket.stat().st_mode) == 0o660
    binds = [line.split()[1] for line in engine.files.config.read_text().splitlines() if line.startswith("  bind ")]
    assert [bind.rpartition(":")[0] for bind in binds] == ["127.0.0.1"]


@pytest.mark.parametrize(
    "read",
    [answers.info, answers.map_sizes, answers.servers, answers.fingerprint, answers.processes, answers.files,
     lambda text: list(answers.entries(text))],
)  # fmt: skip
def test_an_answer_of_another_kind_is_an_error(read: Callable[[str], object]) -> None:
    with pytest.raises(UnknownAnswer, match="Unknown command"):
        read("Unknown command: 'show', but maybe one of the following ones is a better match:")
