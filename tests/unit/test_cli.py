"""The commands against a real API on a loopback port: as processes of their own where that makes a difference."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from anycastlb import __version__, daemon
from anycastlb.adapters.checks import PARAMS
from anycastlb.cli import CONFIG, location, main
from anycastlb.cli.commands import checks
from anycastlb.core.catalog.schema import CheckDocument
from anycastlb.core.events import Event
from anycastlb.core.fields import Document
from anycastlb.core.model import DriverError, Snapshot
from anycastlb.settings import Settings
from tests.support import scene
from tests.support.serving import Served, command, inside, serving
from tests.support.waiting import PATIENCE

GOLDEN = Path(__file__).parent / "golden"
NODE = '[node]\nname = "lb1"\nvip_ranges = ["192.0.2.0/24"]\n[api]\nlisten = "127.0.0.1:1"\n'
NOT_RUNNING = "is `anycastlb run` running? (systemctl status anycastlb)"


async def test_status_in_a_pipe_is_the_plain_picture() -> None:
    async with serving(scene.trouble()) as served:
        code, out, err = await command("status", "--api", served.url)
    assert (code, err) == (2, ""), "something is down"
    assert out == (GOLDEN / "status-trouble.txt").read_text()


async def test_status_of_a_node_that_is_well_ends_with_0() -> None:
    async with serving(well()) as served:
        code, out, err = await command("status", "--api", served.url)
    assert (code, err) == (0, "")
    assert "1 of 1 VIP announced" in out


def well() -> Snapshot:
    """The calm node, with all its backends up."""
    snapshot = scene.calm()
    judged = {
        key: replace(verdict, up=True, weight=verdict.weight or 50)
        for key, verdict in snapshot.decision.backends.items()
    }
    return replace(snapshot, decision=replace(snapshot.decision, backends=judged))


async def test_status_json_is_the_answer_of_the_api() -> None:
    async with serving(scene.trouble()) as served:
        code, out, _ = await inside("status", "--json", "--api", f"127.0.0.1:{served.port}")
    assert code == 2
    assert json.loads(out)["node"]["name"] == "lb1"


@pytest.mark.parametrize(
    "words", [("status",), ("why", "web"), ("plan",), ("service", "list"), ("server", "list", "web"), ("list",)]
)
async def test_every_reading_command_speaks_json_and_yaml(words: tuple[str, ...]) -> None:
    async with serving(scene.trouble()) as served:
        code, out, err = await inside(*words, "-o", "json", "--api", served.url)
        assert err == ""
        again = await inside(*words, "--json", "--api", served.url)
        assert again == (code, out, "")
        as_yaml = await inside(*words, "-o", "yaml", "--api", served.url)
    assert as_yaml[0] == code
    assert yaml.safe_load(as_yaml[1]) == json.loads(out) != {}


async def in_a_terminal(served: Served, **environment: str) -> str:
    """What ``status`` writes when its standard output is a terminal."""
    ours, theirs = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "anycastlb", "status", "--api", served.url,
            stdout=theirs, env={**plain, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
        )  # fmt: skip
        os.close(theirs)

        def read() -> bytes:
            text = b""
            with contextlib.suppress(OSError):  # EIO: the other end is closed
                while piece := os.read(ours, 65536):
                    text += piece
            return text

        text = await asyncio.to_thread(read)
        assert await process.wait() == 2
    finally:
        os.close(ours)
    return text.decode().replace("\r\n", "\n")


async def test_a_terminal_gets_colours_and_the_same_words() -> None:
    async with serving(scene.trouble()) as served:
        text = await in_a_terminal(served)
    assert "\x1b[32m" in text
    bare = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert [line.rstrip() for line in bare.splitlines()] == (GOLDEN / "status-trouble.txt").read_text().splitlines()


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
async def test_a_terminal_that_wants_no_colours_gets_none(environment: dict[str, str]) -> None:
    async with serving(scene.trouble()) as served:
        text = await in_a_terminal(served, **environment)
    assert text == (GOLDEN / "status-trouble.txt").read_text()


async def test_a_terminal_without_the_signs_still_gets_an_answer() -> None:
    async with serving(scene.trouble()) as served:
        code, out, _ = await command("status", "--api", served.url, PYTHONIOENCODING="ascii")
    assert code == 2
    assert "192.0.2.10  announced" in out


async def test_why() -> None:
    async with serving(scene.trouble()) as served:
        code, out, _ = await inside("why", "web/web2", "--api", served.url)
        assert (code, out) == (0, (GOLDEN / "why-web-web2.txt").read_text())
        code, out, _ = await inside("why", "2001:db8:ffff::10", "--api", served.url)
        assert code == 2
        assert "✓ route    2001:db8:ffff::10/128  announced" in out
        code, out, _ = await inside("why", "web", "--json", "--api", served.url)
        assert json.loads(out)["kind"] == "service"


@pytest.mark.parametrize("name", ["web3", "web3 ?&#%/..", "../v1/confirm"])
async def test_why_of_an_unknown_name_is_one_line_and_exit_code_1(name: str) -> None:
    async with serving(scene.trouble(), held=True) as served:
        code, out, err = await inside("why", name, "--api", served.url)
        assert served.held
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("Error: there is no ")


async def test_plan() -> None:
    async with serving(scene.trouble()) as served:
        code, out, _ = await inside("plan", "--api", served.url)
    assert code == 2
    assert out == (GOLDEN / "plan.txt").read_text().removeprefix("The node is not running.\n")


async def test_confirm() -> None:
    async with serving(scene.trouble(), held=True) as served:
        code, out, _ = await inside("confirm", "--api", served.url)
        assert (code, served.held) == (0, False)
        assert "confirmed" in out
        code, out, err = await inside("confirm", "--api", served.url)
    assert (code, out) == (1, "")
    assert err == "Error: no catalog is held (expected a held catalog): nothing is to be done: " + (
        "the catalog in force is the latest\n"
    )


async def test_events() -> None:
    async with serving(scene.calm()) as served:
        served.journal.emit(Event("gate", "192.0.2.11", "1/4 backends up, needs 2", "open", "closed", "warning"))
        code, out, _ = await inside("events", "--api", served.url)
        assert code == 0
        assert re.search(r"^20\S+Z  warning gate +192\.0\.2\.11  open → closed  1/4 backends up, needs 2$", out, re.M)
        code, out, _ = await inside("events", "--json", "--after", "1", "--api", served.url)
        assert [json.loads(line)["kind"] for line in out.splitlines()] == ["gate"]


async def test_events_follow_until_interrupted_even_over_a_restart() -> None:
    async with serving(scene.calm()) as served:
        for number in range(5):
            served.journal.emit(Event("gate", f"192.0.2.{number}"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "anycastlb", "events", "--follow", "--after", "6", "--json", "--api", served.url,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout
        assert process.stderr
        served.journal.emit(Event("gate", "while following"))
        assert json.loads(await process.stdout.readline())["subject"] == "while following"
    assert (await process.stderr.readline()).startswith(b"Waiting: cannot reach anycastlb"), "the node is gone"
    again = Served(scene.calm())  # a daemon that starts anew counts from 1
    again.journal.emit(Event("gate", "after the restart"))
    api = again.api(("127.0.0.1", served.port))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(api.run())
        told = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE))
        assert told["subject"] == "after the restart"
        process.send_signal(2)
        rest = (await process.stderr.read()).decode()
        assert await process.wait() == 0
        running.cancel()
    assert all(line.startswith("Waiting: ") for line in rest.splitlines()), rest


async def test_the_last_events_only() -> None:
    async with serving(scene.calm()) as served:
        for number in range(5):
            served.journal.emit(Event("gate", f"192.0.2.{number}"))
        code, out, _ = await inside("events", "-n", "2", "--json", "--api", served.url)
        assert (code, [json.loads(line)["subject"] for line in out.splitlines()]) == (0, ["192.0.2.3", "192.0.2.4"])
        code, out, _ = await inside("events", "-n", "1", "-o", "yaml", "--api", served.url)
    assert [event["subject"] for event in yaml.safe_load_all(out)] == ["192.0.2.4"]


async def test_watching_a_pipe_is_one_picture_below_the_other() -> None:
    async with serving(scene.calm()) as served:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "anycastlb", "status", "--watch", "-n", "0.1", "--api", served.url,
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert process.stdout
        seen = 0
        while seen < 3:
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
            assert line
            seen += line.startswith(b"anycastlb ")
        process.send_signal(2)
        await process.stdout.read()
        assert await process.wait() == 0


async def test_watching_a_terminal_draws_in_place_and_leaves_it_as_it_was() -> None:
    ours, theirs = pty.openpty()
    async with serving(scene.calm()) as served:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "anycastlb", "status", "--watch", "-n", "0.1", "--api", served.url,
            stdout=theirs, stderr=theirs,
            env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(theirs)
        text = b""
        while text.count(b"announced to") < 2:
            text += await asyncio.to_thread(os.read, ours, 65536)
        process.send_signal(2)
        with contextlib.suppress(OSError):
            while piece := await asyncio.to_thread(os.read, ours, 65536):
                text += piece
        assert await process.wait() == 0
    os.close(ours)
    assert b"\x1b[?1049h" in text, "the alternate screen"
    assert text.endswith(b"\x1b[?25h\x1b[?1049l"), "left, and the cursor is back"


async def test_checks_need_no_node() -> None:
    code, out, err = await inside("checks")
    assert (code, out, err) == (0, (GOLDEN / "checks.txt").read_text(), "")
    code, out, _ = await inside("checks", "--verbose")
    assert (code, out) == (0, (GOLDEN / "checks-all.txt").read_text())


async def test_the_parameters_of_one_check() -> None:
    code, out, err = await inside("checks", "dns")
    assert (code, err) == (0, "")
    assert "  name  text, required\n" in out
    assert "  qtype  text, default A\n" in out
    assert "  interval  duration, default 2s\n" in out
    assert "as_proxy" not in out, "that is a parameter of another"
    code, out, err = await inside("checks", "dsn")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("Error: there is no check type 'dsn'; expected one of agent, all, ")


@pytest.mark.parametrize(
    ("model", "form", "default"),
    [
        (CheckDocument, {"interval": "duration", "rise": "number", "via": "direct or forward", "port": "number",
                         "address": "text", "down_interval": "duration"}, {"timeout": "default 1s", "port": "not set"}),
        (PARAMS["http"], {"expect": "number, range or list", "headers": "object", "redirects": "number"},
         {"expect": "default 200", "headers": "default {}", "send": "default empty", "host": "not set"}),
        (PARAMS["https"], {"cert_expiry": "duration", "verify": "true or false"}, {"verify": "default true"}),
        (PARAMS["all"], {"checks": "list"}, {"checks": "required"}),
        (PARAMS["syslog"], {"level": "name or number", "quiet": "duration"}, {"level": "default 6"}),
    ],
)  # fmt: skip
def test_forms_and_defaults(model: type[Document], form: dict[str, str], default: dict[str, str]) -> None:
    fields, schema = model.model_fields, model.model_json_schema()["properties"]
    assert {name: checks.form_of(fields[name], schema[name]) for name in form} == form
    assert {name: checks.default_of(fields[name], schema[name]) for name in default} == default


@pytest.mark.parametrize("model", [CheckDocument, *PARAMS.values()])
def test_every_parameter_says_what_it_is(model: type[Document]) -> None:
    properties = model.model_json_schema()["properties"]
    assert [name for name, schema in properties.items() if not schema.get("description")] == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.0, "2s"), (0.5, "500ms"), (90.0, "90s"), (300.0, "5m"), (86400.0, "1d"), (1.5, "1500ms"), (0.0001, "0.0001s")],
)
def test_durations_as_they_are_written(seconds: float, text: str) -> None:
    assert checks.brief(seconds) == text


@pytest.mark.parametrize("words", [("status",), ("why", "web"), ("plan",), ("confirm",), ("events",)])
async def test_a_node_that_is_not_running(words: tuple[str, ...]) -> None:
    async with serving(scene.calm()) as served:
        place = f"127.0.0.1:{served.port}"
    code, out, err = await inside(*words, "--api", place)
    assert (code, out) == (1, "")
    assert err == f"Error: cannot reach anycastlb at {place}: {NOT_RUNNING}\n"


async def test_the_api_is_found_through_the_settings(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    async with serving(scene.calm()) as served:
        config.write_text(f'[node]\nvip_ranges = "broken"\n[api]\nlisten = ":{served.port}"\n')
        code, out, _ = await command("status", "--config", str(config), http_proxy="http://127.0.0.1:1")
    assert code == 2
    assert "lb1" in out


@pytest.mark.parametrize(
    ("listen", "dialled"),
    [
        ("127.0.0.1:4672", "127.0.0.1:4672"),
        (":80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
        ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("localhost:80", "localhost:80"),
    ],
)
def test_where_to_dial_for_a_listening_address(tmp_path: Path, listen: str, dialled: str) -> None:
    config = tmp_path / "node.toml"
    config.write_text(f'[api]\nlisten = "{listen}"\n')
    assert location.Location(config=str(config)).url == f"http://{dialled}"


@pytest.mark.parametrize("text", ["not toml", "[api]\nlisten = 5", "api = 3", '\x00"'])
async def test_settings_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    config = tmp_path / "node.toml"
    config.write_text(text)
    code, _, err = await inside("status", "--config", str(config))
    assert (code, err.count("\n")) == (1, 1)
    assert f"anycastlb validate {config}" in err


async def test_settings_that_are_not_there() -> None:
    code, _, err = await inside("status", "--config", "/nonexistent/node.toml")
    assert (code, err.count("\n")) == (1, 1)
    assert "/nonexistent/node.toml does not exist" in err


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                                    b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\n404",
                                    b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\n[]"])  # fmt: skip
async def test_something_else_answers(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        code, out, err = await inside("status", "--api", f"127.0.0.1:{port}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "--api" in err or NOT_RUNNING in err


def test_plan_without_a_node_is_a_dry_run_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "node.toml"
    config.write_text(NODE)
    seen: list[str] = []

    def dry_run(settings: Settings) -> Snapshot:
        seen.append(settings.node.name)
        return scene.trouble()

    monkeypatch.setattr("anycastlb.engine.dry_run.dry_run", dry_run)
    result = CliRunner().invoke(main, ["plan", "--config", str(config)])
    assert (result.exit_code, seen) == (2, ["lb1"])
    assert result.output.startswith("The node is not running.")
    assert "every backend up" in result.output
    assert "create service tcp 192.0.2.12:25" in result.output
    as_json = CliRunner().invoke(main, ["plan", "--json", "--config", str(config)])
    assert "not running" in json.loads(as_json.output)["assumption"]


def test_a_dry_run_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "node.toml"
    config.write_text(NODE)

    def dry_run(settings: Settings) -> Snapshot:
        raise DriverError("IPVS is not there;\nmodprobe ip_vs")

    monkeypatch.setattr("anycastlb.engine.dry_run.dry_run", dry_run)
    result = CliRunner().invoke(main, ["plan", "--config", str(config)])
    assert (result.exit_code, result.output) == (1, "Error: IPVS is not there; modprobe ip_vs\n")


@pytest.mark.parametrize("code", [0, 1])
def test_run_ends_with_the_code_of_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    config = tmp_path / "node.toml"
    config.write_text(NODE)
    started: list[str] = []

    def run(settings: Settings, *rest: object) -> int:
        started.append(settings.node.name)
        return code

    monkeypatch.setattr(daemon, "main", run)
    assert CliRunner().invoke(main, ["run", "--config", str(config)]).exit_code == code
    assert started == ["lb1"]


async def test_run_with_bad_settings_names_every_problem(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text('[node]\nvip_ranges = ["nonsense"]\n[bgp]\nhold = "1 day"\n')
    code, _, err = await inside("run", "--config", str(config))
    assert code == 1
    assert f"{config}:2: node.vip_ranges" in err
    assert f"{config}:4: bgp.hold" in err
    code, _, err = await inside("run", "--config", str(tmp_path / "none.toml"))
    assert (code, err.count("\n")) == (1, 1)
    assert "--config" in err


async def test_help_and_version() -> None:
    code, out, _ = await command("--help")
    assert code == 0
    for name in ("run", "validate", "checks", "status", "why", "plan", "confirm", "events", "service", "server", "list",
                 "drain", "undrain", "export", "import", "completion"):  # fmt: skip
        assert f"\n  {name} " in out
    assert (await command("--version"))[1] == f"anycastlb, version {__version__}\n"


@pytest.mark.parametrize("words", [("status", "--nonsense"), ("nonsense",), ("service", "nonsense"), ("why",)])
async def test_a_wrong_call_is_one_line_that_names_the_help_and_exit_code_1(words: tuple[str, ...]) -> None:
    code, out, err = await inside(*words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("Error: ")
    assert "--help`" in err


async def test_no_word_at_all_is_the_help_and_exit_code_1() -> None:
    code, _, err = await inside()
    assert (code, err.startswith("Usage: anycastlb")) == (1, True)


async def test_commands_load_only_what_they_need() -> None:
    heavy = {"pydantic", "aiohttp", "rich", "yaml", "pyroute2", "prometheus_client", "consul", "asyncio"}
    modules = "anycastlb.cli, anycastlb.cli.location, anycastlb.cli.render.status"
    program = f"import sys, {modules}; print({heavy!r} & set(sys.modules))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().strip() == "set()"


def test_the_settings_are_where_the_contract_says() -> None:
    assert CONFIG == location.CONFIG == "/etc/anycastlb/node.toml"
