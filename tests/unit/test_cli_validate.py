"""``anycastlb validate``: every problem at once, each with its file, line, place and expectation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anycastlb.cli.commands.validate import validate_files
from anycastlb.cli.line_numbers import line_of
from anycastlb.core.model import SettingsError
from tests.support.serving import command

NODE = '[node]\nvip_ranges = ["192.0.2.0/24"]\n'
GOOD = {"vip": "192.0.2.10", "port": 80, "backends": {"web1": {"address": "10.1.0.1"}}}


def write(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document, indent=1))
    return path


def told(*paths: Path, config: Path | None = None) -> list[str]:
    return [str(problem) for problem in validate_files(map(str, paths), str(config) if config else None).problems]


async def test_what_is_fine_ends_with_0(tmp_path: Path) -> None:
    node, web = write(tmp_path / "node.toml", NODE), write(tmp_path / "web.json", GOOD)
    code, out, err = await command("validate", str(node), str(web))
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith(f"{node}: fine, settings of node ")
    assert out.splitlines()[1] == f"{web}: fine, services/web"


async def test_all_problems_of_all_files_at_once(tmp_path: Path) -> None:
    node = write(tmp_path / "node.toml", NODE + '[bgp]\nhold = "1 day"\nsocked = "x"\n')
    web = write(tmp_path / "web.json", {**GOOD, "port": "http", "backends": {"w": {"address": "nope", "weight": "x"}}})
    fine = write(tmp_path / "fine.json", {**GOOD, "port": 81})
    code, out, err = await command("validate", str(node), str(web), str(fine), str(tmp_path / "none.json"))
    assert code == 1
    assert out == f"{fine}: fine, services/fine\n"
    lines = err.splitlines()
    for expected in (f"{node}:4: bgp.hold: ", f"{node}:5: bgp.socked: ", f"{web}:3: port: ", f"{tmp_path}/none.json: "):
        assert sum(line.startswith(expected) for line in lines) == 1, (expected, lines)
    assert any(line.startswith(f"{web}:6: backends.w.address: ") for line in lines)
    assert any(line.startswith(f"{web}:7: backends.w.weight: ") for line in lines)


async def test_what_may_surprise_is_a_notice_and_no_problem(tmp_path: Path) -> None:
    web = write(tmp_path / "web.json", {**GOOD, "max_failed": "50%", "announce": {"min_backends": 2}})
    code, out, err = await command("validate", str(web))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{web}: fine, services/web",
        f"notice: {web}:9: max_failed: a pool of 1 is too small for a floor of 50%: "
        "no backend will ever be taken out on health",
        f"notice: {web}:11: announce.min_backends: needs 2, and there are 1: never announced",
    ]


@pytest.mark.parametrize(
    ("document", "path", "text"),
    [
        ({"announce": {"reopen": 2}}, "announce.reopen", "needs 2, and there are 1: it never opens"),
        ({"announce": {"min_backends": "weight 1", "reopen": "weight 200"}}, "announce.reopen",
         "needs weight 200, and all have 100: it never opens"),
        ({"forward": "dr", "backends": {"a": {"address": "10.1.0.1", "port": 8080}}}, "backends.a.port",
         "dr leaves the port as it is: packets for port 80 arrive at port 80, not 8080"),
        ({"check": {"type": "tcp", "address": "192.0.2.10"}}, "backends.web1.check",
         "the check aims at the VIP 192.0.2.10"),
        ({"backends": {"a": {"address": "::ffff:10.1.0.1"}}}, "backends.a.address", "write 10.1.0.1"),
        ({"check": {"type": "http", "headers": {"X-Probe": "1", "Authorization": "Bearer x"}}},
         "check.headers.Authorization", "name a secret of node.toml"),
        ({"check": {"type": "any", "checks": [{"type": "http", "headers": {"X-Api-Key": "x"}}]}},
         "check.headers.X-Api-Key", "name a secret of node.toml"),
        ({"check": {"type": "http", "path": "/health?a=1&access_token=abc"}}, "check.path", "send it in a header"),
        ({"check": {"type": "tcp", "send": "AUTH hunter2\r\nPING\r\n"}}, "check.send", "name a secret"),
        ({"check": {"type": "http", "path": "/?t=${secret:x}"}}, "check.path", "sent as it stands"),
        ({"port": 21, "persistence": {"timeout": "1m"}}, "persistence", "ports 20 and 1024 to 65535"),
    ],
)  # fmt: skip
def test_each_surprise_has_its_notice(document: dict[str, object], path: str, text: str, tmp_path: Path) -> None:
    web = write(tmp_path / "web.json", {**GOOD, **document})
    report = validate_files([str(web)])
    assert report.problems == ()
    assert [notice.path for notice in report.notices if text in notice.expected] == [path]


def test_a_secret_that_is_named_is_no_surprise(tmp_path: Path) -> None:
    check = {"type": "http", "headers": {"Authorization": "Bearer ${secret:shop}", "Cookie": ""}}
    report = validate_files([str(write(tmp_path / "web.json", {**GOOD, "check": check}))])
    assert (report.problems, report.notices) == ((), ())


def test_notices_of_a_catalog_directory_name_the_file(tmp_path: Path) -> None:
    write(tmp_path / "services" / "web.json", {**GOOD, "announce": {"min_backends": 3}})
    write(tmp_path / "services" / "dns.json", {**GOOD, "port": 53})
    (notice,) = validate_files([str(tmp_path)]).notices
    assert str(notice).startswith(f"{tmp_path}/services/web.json:")
    assert notice.path == "announce.min_backends"


def test_of_a_pool_that_nobody_knows_yet_nothing_is_noticed(tmp_path: Path) -> None:
    found = {"consul": {"service": "web"}}
    web = write(tmp_path / "web.json", {**GOOD, "backends_from": found, "announce": {"min_backends": 3}})
    report = validate_files([str(web)])
    assert (report.problems, report.notices) == ((), ())


def test_vips_keep_to_the_ranges_given(tmp_path: Path) -> None:
    node = write(tmp_path / "etc" / "node.toml", NODE)
    web = write(tmp_path / "web.json", {**GOOD, "vip": "198.51.100.1"})
    assert told(web) == []
    for problems in (told(node, web), told(web, node), told(web, config=node)):
        assert len(problems) == 1
        assert problems[0].startswith(f"{web}:2: vip.0: ")
        assert "192.0.2.0/24" in problems[0]


def test_a_directory_is_a_catalog(tmp_path: Path) -> None:
    write(tmp_path / "services" / "web.json", GOOD)
    write(tmp_path / "services" / "web" / "backends" / "web2", "address=10.1.0.2 weight=7")
    write(tmp_path / "services" / "bad.yaml", "vip: 192.0.2.11\nport: 80\ncolour: red\n")
    report = validate_files([str(tmp_path)])
    assert len(report.problems) == 1
    assert str(report.problems[0]).startswith(f"{tmp_path}/services/bad.yaml:3: colour: unknown field; expected ")
    assert f"{tmp_path}/services/web.json: fine, services/web" in report.fine


def test_a_directory_of_documents_is_taken_as_services(tmp_path: Path) -> None:
    write(tmp_path / "web.json", GOOD)
    write(
        tmp_path / "bad.toml",
        'vip = "192.0.2.11"\nport = 80\n[backends."10.1.0.1"]\naddress = "10.1.0.1"\nweight = "x"\n',
    )
    problems = told(tmp_path)
    assert len(problems) == 1
    assert problems[0].startswith(f"{tmp_path}/bad.toml:5: backends.10.1.0.1.weight: ")


def test_an_empty_directory_is_no_catalog(tmp_path: Path) -> None:
    assert "expected a catalog" in told(tmp_path)[0]


def test_two_documents_that_claim_the_same(tmp_path: Path) -> None:
    problems = told(write(tmp_path / "a.json", GOOD), write(tmp_path / "b.json", GOOD))
    assert len(problems) == 1
    assert problems[0].startswith(f"{tmp_path}/b.json:2: vip: ")
    twice = told(write(tmp_path / "x" / "a.json", GOOD), write(tmp_path / "x" / "a.yaml", GOOD))
    assert "expected one document for services/a" in twice[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("web.json", ""),
        ("web.json", "[]"),
        ("web.json", '{"vip": "192.0.2.10",\n "port": }'),
        ("web.json", "[" * 5000),
        ("web.yaml", "a: b: c"),
        ("web.toml", "vip = "),
        ("web.txt", "vip"),
        ("node.toml", "vip = "),
        ("node.toml", ""),
        ("node.toml", "node = 3"),
        (".json", "{}"),
        ("we b.json", "{}"),
    ],
)
def test_noise_is_named_and_harmless(tmp_path: Path, name: str, text: str) -> None:
    problems = told(write(tmp_path / name, text))
    assert problems
    assert all(problem.startswith(f"{tmp_path}/{name}") for problem in problems)


def test_what_is_no_text_or_too_large(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "b.json").write_bytes(b" " * 1_000_000)
    problems = told(tmp_path / "a.json", tmp_path / "b.json")
    assert "UTF-8" in problems[0]
    assert "bytes" in problems[1]


def test_a_config_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml"):
        validate_files([str(write(tmp_path / "web.json", GOOD))], str(tmp_path / "none.toml"))


JSON = '{\n\t"vip": "x",\n\t"backends": {\n\t\t"10.1.0.1": {\n\t\t\t"weight": 1\n\t\t}\n\t}\n}'
TOML = 'vip = "x"\n[check]\ntype = "tcp"\n[backends."10.1.0.1"]\nweight = 1\n'
YAML = "vip: x\nlist:\n- a\n- b\nbackends:\n  10.1.0.1:\n    weight: 1\n"


@pytest.mark.parametrize(
    ("text", "form", "path", "line"),
    [
        (JSON, "json", "vip", 2),
        (JSON, "json", "backends.10.1.0.1.weight", 5),
        (JSON, "json", "backends.10.1.0.1.address", 4),
        (JSON, "json", "nowhere", 0),
        (JSON, "json", "vi", 0),
        (TOML, "toml", "vip", 1),
        (TOML, "toml", "check.type", 3),
        (TOML, "toml", "backends.10.1.0.1.weight", 5),
        (TOML, "toml", "backends.10.1.0.1.address", 4),
        (YAML, "yaml", "list.1", 4),
        (YAML, "yaml", "backends.10.1.0.1.weight", 7),
        ("{{{", "json", "vip", 0),
        ("[" * 5000, "json", "vip", 0),
    ],
)
def test_the_line_of_a_path(text: str, form: str, path: str, line: int) -> None:
    assert line_of(text, form, path) == line


def test_a_line_that_the_message_states() -> None:
    assert line_of("", "json", "", "expected a JSON object: Expecting value: line 3 column 5 (char 20)") == 3


SHOP = {**GOOD, "scheduler": "rr", "forward": "nat"}


def test_flows_that_another_node_cannot_take_over_are_noticed(tmp_path: Path) -> None:
    shop = write(tmp_path / "shop.json", SHOP)
    (notice,) = validate_files([str(shop)]).notices
    assert (notice.path, notice.line) == ("scheduler", 9)
    assert "[ipvs] sync_interface in node.toml" in notice.expected and "replies of nat" in notice.expected
    on = write(tmp_path / "node.toml", NODE + '[ipvs]\nsync_interface = "lan"\n')
    (notice,) = validate_files([str(shop), str(on)]).notices
    assert "covered by connection sync" in notice.expected
    (notice,) = validate_files([str(shop)], str(on)).notices
    assert "covered by connection sync" in notice.expected
    off = write(tmp_path / "other" / "node.toml", NODE + '[ipvs]\ntcp_timeout = "2m"\n')
    notices = [notice.expected for notice in validate_files([str(shop), str(on), str(off)]).notices]
    assert len(notices) == 2 and "connection sync mends that" in notices[0] and "idle for 120 s" in notices[1]


def test_with_connection_sync_mixed_families_are_a_problem(tmp_path: Path) -> None:
    web = write(tmp_path / "web.json", {**GOOD, "backends": {"web1": {"address": "2001:db8::1"}}})
    node = write(tmp_path / "node.toml", NODE)
    assert told(web, node) == []
    write(node, NODE + '[ipvs]\nsync_interface = "lan"\n')
    (problem,) = told(web, node)
    assert problem.startswith(f"{web}:4: backends: expected IPv4 backends for VIP 192.0.2.10: with connection sync on")
