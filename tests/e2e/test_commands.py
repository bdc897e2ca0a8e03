"""Every command on the lab: what it prints, what it ends with, and what it does to Consul, both kernels and the router.

Tables are golden files, with what changes from run to run made equal; ``UPDATE_GOLDEN=1`` writes them anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.lab import CHECK, Lab, document
from tests.lab.node import ROOT, Node
from tests.lab.process import GIVE_UP, until
from tests.lab.topology import BACKENDS, own, vip
from tests.support.two_nodes import BOTH, VIP, nodes

GOLDEN = Path(__file__).parent / "golden"
CHECKED = ("--check-http", "/health", "--health-period", "200ms", "--health-timeout", "1s",
           "--health-up", "2", "--health-down", "3")  # fmt: skip


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # so that no time that is a digit longer breaks a line elsewhere


def steady(text: str) -> str:
    """Without times, indexes and versions, and with single spaces: none of them is the same twice."""
    text = re.sub(r"\b\d+(\.\d+)? (ms|s|min|h)\b", "N s", text)
    text = re.sub(r"20\d\d-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"index \d+", "index N", text)
    text = re.sub(r"(anycastlb|ExaBGP) \d[\w.+]*", r"\1 N", text)
    text = re.sub(r"(failing|rising) \d/\d", r"\1 N", text)
    text = re.sub(r"^ *\S before .*\n|; the .* alike|, \d+ of the last \d+ results good", "", text, flags=re.M)
    text = re.sub(r" {2,}", "  ", text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def golden(name: str, text: str) -> None:
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(steady(text))
    assert steady(text) == file.read_text()


def said(node: Node, *words: str, code: int = 0) -> str:
    """What a command prints on this node; it must end with ``code`` and, unless that is 1, complain of nothing."""
    done = node.cli(*words, check=False)
    assert done.returncode == code, f"anycastlb {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert code == 1 or not done.stderr, done.stderr
    return done.stderr if code == 1 else done.stdout


def stored(lab: Lab, key: str) -> Any:
    raw = lab.consul.value(f"anycastlb/{key}")
    return None if raw is None else json.loads(raw)


def rows(lab: Lab) -> list[dict[str, int]]:
    return [node.ipvs().get(f"tcp {VIP}:80", {}) for node in lab.nodes.values()]


def web(lab: Lab) -> None:
    """The service ``web`` over the three backends, made with commands, served by both nodes."""
    said(lab.lb1, "service", "add", "web", "tcp", f"{VIP}:80", "-s", "mh", "-b", "mh-port,mh-fallback",
         "--forward-method", "tunnel", *CHECKED, "--set", "drain=500ms")  # fmt: skip
    said(lab.lb1, "server", "add", "web", *(f"{name}={own(name)}" for name in BACKENDS))
    lab.settle(VIP)


def lasting(lab: Lab) -> None:
    """Wait until no check result is missing: the words of every table are the same from here on."""
    for node in lab.nodes.values():
        node.until(lambda node=node: _checked(node), "every check has answered")


def _checked(node: Node) -> bool:
    backends = [one for v in node.status()["vips"] for service in v["services"] for one in service["backends"]]
    return bool(backends) and all(one["up"] and one["check"]["last"]["detail"] == "HTTP 200" for one in backends)


def _known(node: Node) -> bool:
    """Does it know just this VIP from both nodes, announced by both?"""
    views = nodes(node).values()
    announced = [[vip for vip, view in one["vips"].items() if view["announced"]] for one in views]
    return announced == [[str(VIP)]] * 2 and len({str(one["digests"]) for one in views}) == 1


# ---------------------------------------------------------------- services and servers


def test_a_service_from_nothing_to_traffic_and_away_again(lab: Lab) -> None:
    out = said(lab.lb1, "service", "add", "web", "-t", f"{VIP}:80", "-s", "mh", "--forward-method", "tunnel",
               *CHECKED, "--set", "drain=500ms")  # fmt: skip
    golden("service-add", out)
    assert stored(lab, "services/web")["check"] == {name: value for name, value in CHECK.items() if name != "port"}
    out = said(lab.lb1, "server", "add", "web", f"b1={own('b1')}", f"b2={own('b2')}", "-w", "100")
    out += said(lab.lb2, "server", "add", "-t", f"{VIP}:80", "-r", own("b3"), "-w", "100", "--name", "b3")
    golden("server-add", out)
    for name in BACKENDS:
        assert stored(lab, f"services/web/backends/{name}") == {"address": own(name), "weight": 100}
    lab.settle(VIP)
    assert set(lab.client.spread(60, VIP)) == set(BACKENDS)
    lasting(lab)
    golden("service-list", said(lab.lb2, "service", "list"))
    assert said(lab.lb2, "list") == said(lab.lb2, "server", "list", "web")
    golden("service-show", said(lab.lb2, "service", "show", "web"))
    assert yaml.safe_load(said(lab.lb2, "service", "show", "web", "-o", "yaml"))["vip"] == str(VIP)

    golden("server-edit", said(lab.lb2, "server", "edit", "web", own("b1"), "-w", "50"))
    until(lambda: all(table.get(f"{own('b1')}:80") == 50 for table in rows(lab)), "b1 weighs half on both nodes")
    golden("server-drain", said(lab.lb1, "server", "drain", "web", "b2", own("b3")))
    until(lambda: all(set(table) == {f"{own('b1')}:80"} for table in rows(lab)), "b2 and b3 have left both kernels")
    golden("server-undrain", said(lab.lb1, "server", "undrain", "web", "b2", "b3"))
    until(lambda: all(len(table) == 3 and all(table.values()) for table in rows(lab)), "they are back")
    golden("server-del", said(lab.lb2, "server", "del", "web", f"{own('b3')}:80"))
    until(lambda: all(len(table) == 2 for table in rows(lab)), "b3 has left both kernels")
    assert stored(lab, "services/web/backends/b3") is None

    golden("service-del", said(lab.lb1, "service", "del", "-t", f"{VIP}:80"))
    lab.router.until(VIP, set())
    until(lambda: not any(node.ipvs() for node in lab.nodes.values()), "both kernels are empty")
    assert lab.consul.value("anycastlb/services/web") is None
    assert lab.consul.value("anycastlb/services/web/backends/b1") is None
    assert said(lab.lb1, "service", "list") == "no services\n"


def test_editing_a_service_changes_only_what_is_said(lab: Lab) -> None:
    web(lab)
    before = stored(lab, "services/web")
    golden("service-edit", said(lab.lb2, "service", "edit", "web", "-p", "600", "-M", "24"))
    assert stored(lab, "services/web") == {**before, "persistence": {"timeout": "600s", "netmask": 24}}
    listing = lab.lb1.namespace.run
    until(lambda: "persistent 600" in listing("ipvsadm", "-Ln"), "the kernel remembers clients")
    assert "unchanged" in said(lab.lb1, "service", "edit", "web", "-p", "600")
    said(lab.lb1, "service", "edit", "web", "--unset", "persistence", "--check-tcp")
    after = stored(lab, "services/web")
    assert "persistence" not in after
    assert after["check"]["type"] == "tcp"
    assert "path" not in after["check"], "a tcp check has no path"
    until(lambda: "persistent" not in listing("ipvsadm", "-Ln"), "the kernel forgets them")


def test_what_is_wrong_is_one_line_and_writes_nothing(lab: Lab) -> None:
    web(lab)
    before = stored(lab, "services/web")
    for words in (
        ("service", "add", "web", "tcp", f"{VIP}:80"),
        ("service", "add", "other", "tcp", f"{VIP}:80"),
        ("service", "add", "far", "tcp", "198.51.100.1:80"),
        ("service", "edit", "nope", "-s", "wlc"),
        ("service", "edit", "web", "-s", "nope"),
        ("service", "del", "nope"),
        ("server", "add", "web", f"b1={own('b1')}"),
        ("server", "del", "web", "10.1.0.77"),
        ("why", "nope"),
        ("confirm",),
    ):
        told = said(lab.lb1, *words, code=1)
        assert told.startswith("Error: "), told
        assert all(line.startswith("  ") for line in told.splitlines()[1:]), told
    assert stored(lab, "services/web") == before
    for name in ("other", "far", "nope"):
        assert stored(lab, f"services/{name}") is None


# ---------------------------------------------------------------- looking


def test_status_why_and_plan_of_a_node_that_is_well_and_of_one_that_is_not(lab: Lab) -> None:
    for node in lab.nodes.values():  # the test before had the same VIP
        node.until(lambda node=node: not any(one["vips"] for one in nodes(node).values()), "each knows of no VIP")
    web(lab)
    lasting(lab)
    for node in lab.nodes.values():
        node.until(lambda node=node: _known(node), "each knows of the other")
    golden("status", said(lab.lb1, "status"))
    assert steady(lab.lb1.program("status").stdout) == (GOLDEN / "status.txt").read_text(), "as a process of its own"
    golden("why", said(lab.lb1, "why", "web"))
    golden("why-backend", said(lab.lb2, "why", "web/b1"))
    golden("plan", said(lab.lb1, "plan"))
    for words in (("status",), ("why", "web"), ("plan",), ("list",)):
        as_json, as_yaml = (said(lab.lb1, *words, "-o", form) for form in ("json", "yaml"))
        assert type(json.loads(as_json)) is type(yaml.safe_load(as_yaml))
    lab.backends["b2"].fail()
    until(lambda: all(0 in table.values() for table in rows(lab)), "b2 has weight 0 on both nodes")
    lab.lb1.until(lambda: _known(lab.lb1), "and the other node says the same")
    golden("status-down", said(lab.lb1, "status", code=2))
    golden("why-down", said(lab.lb1, "why", "web/b2", code=2))
    golden("list-down", said(lab.lb1, "list"))
    lab.consul.put("anycastlb/services/web", "{")
    lab.lb1.until(lambda: lab.lb1.status()["problems"], "the document is quarantined")
    assert "PROBLEM services/web: " in said(lab.lb1, "list", "web")
    lab.lb1.daemon.stop()
    assert "The node is not running" in lab.lb1.cli("plan").stdout
    assert "is `anycastlb run` running?" in said(lab.lb1, "status", code=1)


def test_a_dry_run_and_a_plan_of_files_write_nothing(lab: Lab, tmp_path: Path) -> None:
    web(lab)
    before = stored(lab, "services/web")
    golden("dry-add", said(lab.lb1, "service", "add", "api", "tcp", f"{vip(1)}:80", "--dry-run"))
    golden("dry-server-edit", said(lab.lb1, "server", "edit", "web", "b1", "-w", "10", "--dry-run"))
    golden("dry-server-del", said(lab.lb1, "server", "del", "web", "b1", "--dry-run"))
    golden("dry-del", said(lab.lb1, "service", "del", "web", "--dry-run"))
    (tmp_path / "api.json").write_text(json.dumps(document(vip(1))))
    golden("plan-file", said(lab.lb1, "plan", str(tmp_path / "api.json"), code=2))
    assert "delete services/web" in said(lab.lb1, "plan", "--replace", str(tmp_path), code=2)
    said(lab.lb1, "export", str(tmp_path / "dump.yaml"))
    assert said(lab.lb1, "plan", str(tmp_path / "dump.yaml")) == "no document would change\n"
    (tmp_path / "api.json").write_text(json.dumps({**document(vip(1)), "port": "http"}))
    done = lab.lb1.cli("plan", str(tmp_path / "api.json"), check=False)
    assert done.returncode == 1
    assert "port" in done.stdout + done.stderr
    assert stored(lab, "services/web") == before
    assert stored(lab, "services/api") is None


# ---------------------------------------------------------------- whole catalogs, whole nodes


def test_a_dump_brings_everything_back(lab: Lab, tmp_path: Path) -> None:
    web(lab)
    dump = tmp_path / "dump.json"
    golden("export", said(lab.lb1, "export", str(dump)).replace(str(dump), "dump.json"))
    kept = json.loads(dump.read_text())
    assert set(kept["catalog"]) == {"services/web", *(f"services/web/backends/{name}" for name in BACKENDS)}
    said(lab.lb1, "service", "del", "web", "-y")
    lab.router.until(VIP, set())
    lab.put("extra", document(vip(1)))
    lab.settle(vip(1))
    golden("import", said(lab.lb2, "import", str(dump)))
    lab.settle(VIP, vip(1))
    assert set(lab.client.spread(40, VIP)) == set(BACKENDS)
    assert said(lab.lb2, "import", str(dump)).startswith("imported: 0 documents changed")
    golden("import-replace", said(lab.lb2, "import", "--replace", str(dump)))
    lab.router.until(vip(1), set())
    assert json.loads(said(lab.lb2, "export")) == kept


def test_draining_a_node_takes_its_routes_and_gives_them_back(lab: Lab) -> None:
    web(lab)
    golden("drain", said(lab.lb1, "drain"))
    lab.router.until(VIP, {"lb2"})
    assert "DRAIN" in said(lab.lb1, "status", code=2)
    lab.lb1.until(lambda: "DRAINED: this node" in lab.lb1.cli("status").stdout, "nothing comes any more")
    assert "unchanged" in said(lab.lb2, "drain", "lb1")
    golden("undrain", said(lab.lb2, "undrain", "lb1"))
    lab.router.until(VIP, BOTH)
    lab.lb1.until(lambda: lab.lb1.cli("status").returncode == 0, "it is well again")


def test_events_are_followed_as_they_happen_and_over_a_restart_of_the_node(lab: Lab) -> None:
    web(lab)
    kept = said(lab.lb1, "events")
    assert f"gate                {VIP}" in kept
    newest = json.loads(said(lab.lb1, "events", "-n", "1", "-o", "json"))["id"]
    program = lab.lb1.argv("events", "--follow", "--after", str(newest), "--json")
    process = subprocess.Popen(
        lab.lb1.namespace.argv(*program),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout
    patience = threading.Timer(5 * GIVE_UP, process.kill)
    patience.start()
    try:
        lab.backends["b2"].fail()
        for line in process.stdout:
            event = json.loads(line)
            assert event["id"] > newest
            if event["kind"] == "check" and own("b2") in event["subject"] and event["after"] == "down":
                break
        else:
            pytest.fail("the stream ended without the event")
        lab.lb1.daemon.kill()
        lab.lb1.start()
        last = event["id"]
        for line in process.stdout:
            event = json.loads(line)
            assert event["id"] > last, "ids grow over a restart"
            last = event["id"]
            if event["kind"] == "daemon" and event["after"] == "running":
                break
        else:
            pytest.fail("nothing came from the new node")
    finally:
        patience.cancel()
        process.send_signal(2)
        _, errors = process.communicate(timeout=GIVE_UP)
    assert process.returncode == 0
    assert all(line.startswith("Waiting: ") for line in errors.splitlines()), errors


def test_status_watches_until_it_is_interrupted(lab: Lab) -> None:
    web(lab)
    program = lab.lb1.argv("status", "--watch", "-n", "0.2")
    process = subprocess.Popen(
        lab.lb1.namespace.argv(*program), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout
    patience = threading.Timer(5 * GIVE_UP, process.kill)
    patience.start()
    try:
        pictures = 0
        for line in process.stdout:
            pictures += line.startswith("anycastlb ")
            if pictures == 3:
                break
    finally:
        patience.cancel()
        process.send_signal(2)
        _, errors = process.communicate(timeout=GIVE_UP)
    assert (process.returncode, errors) == (0, "")
