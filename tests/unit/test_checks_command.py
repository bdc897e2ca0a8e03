"""``command``: what may be run, and what a program's end means."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from anycastlb import settings
from anycastlb.adapters import checks
from anycastlb.adapters.checks import Down, Found
from anycastlb.adapters.checks.command import Params, judged, permits
from anycastlb.adapters.checks.probe.process import Ended
from anycastlb.cli.commands.validate import validate_files
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.model import Catalog, Entry, SettingsError, Tree
from anycastlb.settings import ChecksSettings

OURS = "/usr/local/lib/anycastlb/checks/*"


@pytest.mark.parametrize(
    ("pattern", "program", "yes"),
    [
        (OURS, "/usr/local/lib/anycastlb/checks/mail", True),
        (OURS, "/usr/local/lib/anycastlb/checks/sub/mail", False),
        (OURS, "/usr/local/lib/anycastlb/checks", False),
        (OURS, "/srv/usr/local/lib/anycastlb/checks/mail", False),
        ("/usr/bin/check_*", "/usr/bin/check_http", True),
        ("/usr/bin/check_*", "/usr/bin/sh", False),
        ("/usr/*/check", "/usr/bin/check", True),
        ("/bin/true", "/bin/true", True),
        ("/bin/true", "/bin/truely", False),
        ("/bin/[", "/bin/[", True),
    ],
)
def test_programs_match_whole_and_a_star_crosses_no_slash(pattern: str, program: str, yes: bool) -> None:
    assert permits((pattern,), program) is yes


@pytest.mark.parametrize(
    "command",
    [
        [], "", "true", "./check", "/bin/../etc/x", "/bin//true", "/bin/true/", "/bin/./true", ["/bin/true", 5],
        ["/bin/true", "a\0b"], ["/bin/true", *["x"] * 64], ["/bin/true", "x" * 5000], None, {"a": 1},
    ],
)  # fmt: skip
def test_what_is_no_command(command: object) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate({"command": command})


def test_a_lone_program_needs_no_list() -> None:
    assert Params.model_validate({"command": "/bin/true"}) == Params(command=("/bin/true",))
    assert hash(Params(command=("/bin/true",)))


@pytest.mark.parametrize("commands", ['"check"', '["bin/*"]', '["/usr/../bin/x"]', "[5]", '"/"', '["/bin//x"]', '""'])
def test_settings_want_absolute_paths(commands: str) -> None:
    with pytest.raises(SettingsError, match="absolute paths of programs"):
        settings.parse(f'[node]\nvip_ranges = ["192.0.2.0/24"]\n[checks]\ncommands = {commands}\n')


def parsed(commands: tuple[str, ...], check: str) -> Catalog:
    document = f'{{"vip": "192.0.2.1", "port": 80, "check": {check}, "backends": {{"b": {{"address": "10.0.0.1"}}}}}}'
    types = checks.parameters(checks.types(ChecksSettings(commands=commands)))
    tree = Tree({"services/web": Entry(document.encode())})
    return parse_catalog(tree, Catalog(), (ip_network("192.0.2.0/24"),), (), types)


def test_a_catalog_may_only_name_what_the_settings_allow() -> None:
    check = '{"type": "command", "command": ["/opt/checks/mail", "{address}"]}'
    assert not parsed(("/opt/checks/*",), check).problems
    (problem,) = parsed((), check).problems
    assert problem.path.endswith("check.command") and str(problem.expected) == (
        "expected a program that this node's settings allow ([checks] commands: none), not '/opt/checks/mail'"
    )
    (problem,) = parsed(("/opt/*",), f'{{"type": "all", "checks": [{{"type": "tcp"}}, {check}]}}').problems
    assert problem.path.endswith("check.checks.1.command") and "/opt/*" in problem.expected


def test_a_catalog_can_be_read_without_knowing_the_node() -> None:
    assert checks.PARAMS["command"].model_validate({"command": "/anything"})


@pytest.mark.parametrize(
    ("ended", "weight_from", "found"),
    [
        (Ended(0, "", ""), None, Found("exit code 0")),
        (Ended(0, "ok", "warning"), None, Found("exit code 0: 'ok'")),
        (Ended(0, "50%", ""), "exit", Found("exit code 0: '50%'")),
        (Ended(255, "", ""), "exit", Found("exit code 255", 253)),
        (Ended(0, "50 %", ""), "output", Found("weight 50%", 50)),
        (Ended(0, "0", ""), "output", Found("weight 0%", 0)),
    ],
)
def test_up(ended: Ended, weight_from: str | None, found: Found) -> None:
    assert judged(ended, Params.model_validate({"command": "/x", "weight_from": weight_from})) == found


@pytest.mark.parametrize(
    ("ended", "weight_from", "reason"),
    [
        (Ended(2, "", "no disk"), None, "exit code 2: 'no disk'"),
        (Ended(-9, "", ""), "exit", "killed by signal 9"),
        (Ended(1, "", ""), "exit", "exit code 1"),
        (Ended(0, "", ""), "output", "its output was '', expected a weight in percent such as \"75%\""),
        (Ended(0, "-1", ""), "output", "its output was '-1', expected a weight in percent such as \"75%\""),
        (Ended(2, "50%", ""), "output", "exit code 2: '50%'"),
    ],
)
def test_down(ended: Ended, weight_from: str | None, reason: str) -> None:
    with pytest.raises(Down) as caught:
        judged(ended, Params.model_validate({"command": "/x", "weight_from": weight_from}))
    assert str(caught.value) == reason


def test_validate_knows_what_the_settings_beside_a_document_allow(tmp_path: Path) -> None:
    web = tmp_path / "web.json"
    web.write_text(
        '{"vip": "192.0.2.1", "port": 80, "backends": {"b": {"address": "10.0.0.1"}},\n'
        ' "check": {"type": "command", "command": "/opt/checks/mail"}}'
    )
    node = tmp_path / "node.toml"
    for allowed, problems in (('["/opt/checks/*"]', 0), ("[]", 1)):
        node.write_text(f'[node]\nvip_ranges = ["192.0.2.0/24"]\n[checks]\ncommands = {allowed}\n')
        found = validate_files([str(node), str(web)]).problems
        assert len(found) == problems and all("this node's settings allow" in problem.expected for problem in found)
    assert not validate_files([str(web)]).problems, "without settings nobody knows"
