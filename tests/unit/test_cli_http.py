"""The commands about gateways, routes and pools: what they write, show, validate, carry over and simulate."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from anycastlb.cli.commands.validate import validate_files
from tests.support.bad_http import BAD
from tests.support.elb_dump import DUMP
from tests.support.http_tree import DOCUMENTS, GATEWAY, ROUTE, changed
from tests.support.recording import Recorder, error, recording
from tests.support.serving import inside

STATUS: dict[str, Any] = {
    "node": {"name": "lb1"},
    "vips": [
        {"vip": "192.0.2.10", "announced": True, "reason": ""},
        {"vip": "2001:db8:2::10", "announced": False, "reason": "no route is served"},
    ],
    "problems": [{"key": "routes/broken", "path": "rules", "expected": "missing", "line": 0}],
}
NOTHING: dict[str, Any] = {"edits": [], "changes": [], "problems": [], "moves": [], "assumed_up": []}
NODE = '[node]\nvip_ranges = ["192.0.2.0/24", "2001:db8::/32"]\n'


@pytest.fixture
async def node() -> AsyncIterator[Recorder]:
    answers: dict[str, tuple[int, Any]] = {
        "GET /v1/gateways": (200, {"web": GATEWAY}),
        "GET /v1/gateways/web": (200, GATEWAY),
        "GET /v1/routes": (200, {"shop": ROUTE}),
        "GET /v1/routes/shop": (200, ROUTE),
        "GET /v1/status": (200, STATUS),
        "GET /v1/export": (200, {"catalog": DOCUMENTS}),
        "POST /v1/plan": (200, NOTHING),
    }
    async with recording(answers) as recorder:
        yield recorder


async def run(node: Recorder, *words: str, stdin: str = "") -> str:
    code, out, err = await inside(*words, "--api", node.url, stdin=stdin)
    assert (code, err) == (0, "")
    return out


async def refused(node: Recorder, *words: str) -> str:
    code, out, err = await inside(*words, "--api", node.url)
    assert (code, out, err.count("\n"), node.written) == (1, "", 1, [])
    return err


# ---------------------------------------------------------------- writing


ADDED: list[tuple[str, str, dict[str, Any]]] = [
    (
        "gateway add new https 192.0.2.10:443 [2001:DB8::10]:443 --certificate shop --certificate other",
        "gateways/new",
        {"protocol": "https", "vip": ["192.0.2.10", "2001:db8::10"], "port": 443,
         "tls": {"certificates": ["shop", "other"]}},
    ),
    (
        "gateway add new http 192.0.2.10:80 --set spread=none --set limits.maxconn=5000 --set tls.alpn=[\"h2\"]",
        "gateways/new",
        {"protocol": "http", "vip": "192.0.2.10", "port": 80, "spread": "none", "limits": {"maxconn": 5000},
         "tls": {"alpn": ["h2"]}},
    ),
    (
        "route add new shop.example *.shop.example --gateway web --to blog=90 --to blog-canary=10 --path /blog",
        "routes/new",
        {"gateways": ["web"], "hostnames": ["shop.example", "*.shop.example"],
         "rules": [{"matches": [{"path": {"value": "/blog"}}],
                    "backendRefs": [{"name": "blog", "weight": 90}, {"name": "blog-canary", "weight": 10}]}]},
    ),
    (
        "route add new * --gateway plain --redirect https --set critical=true",
        "routes/new",
        {"gateways": ["plain"], "hostnames": ["*"], "critical": True,
         "rules": [{"filters": [{"type": "RequestRedirect",
                                 "requestRedirect": {"scheme": "https", "statusCode": 301}}]}]},
    ),
    (
        "service add new --pool 80 --check-http /health --set balance=leastconn",
        "services/new",
        {"port": 80, "check": {"type": "http", "path": "/health"}, "balance": "leastconn"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("words", "key", "document"), ADDED, ids=[words for words, _, _ in ADDED])
async def test_add(node: Recorder, words: str, key: str, document: dict[str, Any]) -> None:
    out = await run(node, *words.split())
    assert node.written == [("PUT", f"/v1/{key}", document)]
    assert node.asked[-1].headers["If-None-Match"] == "*"
    assert out.startswith(f"{words.split()[0]} new: added: ") and out.count("\n") == 1


async def test_what_cannot_be_read_is_not_sent(node: Recorder) -> None:
    for words, text in (
        ("gateway add new 192.0.2.10:80", "where? Expected PROTOCOL ADDRESS:PORT"),
        ("gateway add new http 192.0.2.10", "expected one port for all addresses"),
        ("gateway edit web", "nothing to change was given"),
        ("route add new x.example --gateway web", "where to? Expected --to SERVICE, or --redirect https"),
        ("route add new x.example --gateway web --to blog=x", "expected SERVICE=WEIGHT, such as blog=90"),
        ("route split shop blog", "expected SERVICE=WEIGHT, each once"),
        ("route split shop blog=1 nobody=2", "this route has no nobody"),
        ("route split shop web=1 --rule blog-canary", "the rule blog-canary has no web"),
        ("route split shop web=1 --rule none", "the rule none has no web"),
        ("route edit shop", "nothing to change was given"),
        ("route show nobody", "there is no GET /v1/routes/nobody"),
        ("service add new tcp 192.0.2.10:80 --pool 80", "an address, or --pool PORT for a pool without one"),
    ):
        assert text in await refused(node, *words.split())


async def test_a_name_that_is_taken(node: Recorder) -> None:
    node.answers["PUT /v1/gateways/web"] = (412, error("it exists"))
    code, _, err = await inside("gateway", "add", "web", "http", "192.0.2.10:80", "--api", node.url)
    assert (code, err) == (
        1, "Error: there is a gateway web already: `anycastlb gateway edit web` changes it\n"
    )  # fmt: skip


async def test_edit_split_and_delete(node: Recorder) -> None:
    patched = changed(GATEWAY, "tls", "min_version", to="1.3")
    node.answers["PATCH /v1/gateways/web"] = (200, {"changed": True, "document": patched})
    out = await run(node, "gateway", "edit", "web", "--set", 'tls.min_version="1.3"', "--unset", "limits")
    assert node.written == [("PATCH", "/v1/gateways/web", {"tls": {"min_version": "1.3"}, "limits": None})]
    assert out == "gateway web: changed: tls.min_version 1.2 → 1.3\n"
    out = await run(node, "route", "split", "shop", "blog=50", "blog-canary=50")
    assert out == (
        "route shop: changed: rules.0.backendRefs.0.weight 90 → 50, rules.0.backendRefs.1.weight 10 → 50\n"
    )  # fmt: skip
    assert node.asked[-1].headers["If-Match"] == node.etag, "not over a newer one"
    halves = [{"name": name, "weight": 50} for name in ("blog", "blog-canary")]
    assert node.written[-1][2] == changed(ROUTE, "rules", 0, "backendRefs", to=halves)
    assert await run(node, "route", "del", "-y", "shop") == "route shop: deleted\n"
    assert node.written[-1] == ("DELETE", "/v1/routes/shop", None)


async def test_put_replaces_the_whole_document(node: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "any.yaml"
    file.write_text("gateways: web\nhostnames: [new.example]\nrules: [{backendRefs: [{name: web}]}]\n")
    wanted = {"gateways": "web", "hostnames": ["new.example"], "rules": [{"backendRefs": [{"name": "web"}]}]}
    out = await run(node, "route", "put", "new", str(file))
    assert node.written == [("PUT", "/v1/routes/new", wanted)] and out.startswith("route new: added: ")
    out = await run(node, "route", "put", "shop", "-", stdin=json.dumps(wanted))
    assert out.startswith("route shop: changed: hostnames shop.example *.shop.example → new.example, rules.0")


async def test_dry_runs_only_ask_for_a_plan(node: Recorder) -> None:
    for words, documents in (
        ("gateway edit web --set drain=1m", {"gateways/web": {**GATEWAY, "drain": "1m"}}),
        ("route split shop blog=1", {"routes/shop": changed(ROUTE, "rules", 0, "backendRefs", 0, "weight", to=1)}),
        ("route del shop", {"routes/shop": None}),
    ):
        node.asked.clear()
        await run(node, *words.split(), "--dry-run")
        assert node.written == [("POST", "/v1/plan?mode=merge", {"catalog": documents})]


# ---------------------------------------------------------------- reading


async def test_lists(node: Recorder) -> None:
    assert await run(node, "gateway", "list") == (
        "ID  Prot  LocalAddress:Port                   Certificates State\n"
        "web https 192.0.2.10:443 [2001:db8:2::10]:443 shop,default "
        "1 of 2 VIPs announced, no route is served\n"
    )
    assert await run(node, "routes", "ls") == (
        "ID   Gateways Hostnames                   Services\n"
        "shop web      shop.example,*.shop.example blog blog-canary web\n"
        "! PROBLEM routes/broken: rules: missing\n"
    )
    assert json.loads(await run(node, "route", "list", "-o", "json")) == {"shop": ROUTE}
    assert (await run(node, "gateway", "show", "web")).startswith("vip:\n- 192.0.2.10\n")
    assert json.loads(await run(node, "gateway", "show", "web", "--json")) == GATEWAY


# ---------------------------------------------------------------- files


def write(folder: Path, documents: dict[str, Any]) -> Path:
    for key, document in documents.items():
        path = folder / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return folder


def test_validate_reports_every_bad_document_with_its_file(tmp_path: Path) -> None:
    catalog = write(tmp_path / "catalog", DOCUMENTS)
    settings = tmp_path / "node.toml"
    settings.write_text(NODE)
    assert validate_files([str(settings), str(catalog)]).problems == ()
    for key, name, document in BAD:
        if name == "an unknown certificate":
            continue  # the machine where this runs need not be a node
        write(catalog, {key: document})
        report = validate_files([str(settings), str(catalog)])
        files = {problem.key for problem in report.problems}
        theirs = "services/web" if name == "the VIP and port of a service" else key
        assert f"{catalog}/{theirs}.json" in files, f"{key} {name}"
        assert files <= {f"{catalog}/{theirs}.json", f"{catalog}/routes/shop.json"}, "or the route that refers to it"
        write(catalog, {key: DOCUMENTS[key]})


def test_validate_takes_single_documents_by_folder_or_fields(tmp_path: Path) -> None:
    write(tmp_path, {"edge": GATEWAY, "shop": ROUTE, "routes/other": changed(ROUTE, "hostnames", to="o.example")})
    (tmp_path / "blog.yaml").write_text("port: 80\nbackends: {b1: {address: 10.1.0.1}}\n")
    names = ["edge.json", "shop.json", "blog.yaml", "routes/other.json"]
    report = validate_files([str(tmp_path / name) for name in names])
    assert report.problems == ()
    assert set(report.fine) == {
        f"{tmp_path}/edge.json: fine, gateways/edge",
        f"{tmp_path}/shop.json: fine, routes/shop",
        f"{tmp_path}/blog.yaml: fine, services/blog",
        f"{tmp_path}/routes/other.json: fine, routes/other",
    }
    assert [str(notice) for notice in report.notices] == [
        f"{tmp_path}/{name}: the {what} is not among these files"
        for name in ("routes/other.json", "shop.json")
        for what in ("gateway web", "service blog-canary", "service web")
    ]
    (tmp_path / "shop.json").write_text(json.dumps(changed(ROUTE, "rules", 1, "name", to="a b"), indent=1))
    (problem,) = validate_files([str(tmp_path / "shop.json")]).problems
    assert str(problem).startswith(f"{tmp_path}/shop.json:") and ": rules.1.name: " in str(problem)


def test_a_service_that_lacks_its_vip_is_noticed_unless_a_route_names_it(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text("port: 80\nbackends: {b1: {address: 10.1.0.1}}\n")
    report = validate_files([str(tmp_path / "web.yaml")])
    assert report.problems == ()
    assert [notice.path for notice in report.notices] == ["vip"]
    whole = validate_files([str(write(tmp_path / "catalog", DOCUMENTS))])
    assert not [notice for notice in whole.notices if notice.path == "vip"]


async def test_import_takes_a_directory_and_single_documents(node: Recorder, tmp_path: Path) -> None:
    node.answers["POST /v1/import"] = (200, NOTHING)
    await run(node, "import", str(write(tmp_path / "catalog", DOCUMENTS)))
    assert node.written[-1][2] == {"catalog": DOCUMENTS}
    write(tmp_path, {"routes/shop": ROUTE, "edge": GATEWAY})
    await run(node, "import", str(tmp_path / "routes" / "shop.json"), str(tmp_path / "edge.json"))
    assert node.written[-1][2] == {"catalog": {"routes/shop": ROUTE, "gateways/edge": GATEWAY}}


async def test_elbs_etcd_is_recognized(node: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "elb.json"
    file.write_text(DUMP)
    code, out, err = await inside("convert", str(file))
    assert code == 2 and "localhost:8088 is no address" in err.replace("'", "")
    converted = json.loads(out)["catalog"]
    assert converted["routes/127.0.0.1"]["gateways"] == ["web"] and "services/upstrimg1" in converted
    node.answers["POST /v1/import"] = (200, NOTHING)
    code, _, err = await inside("import", str(file), "--gateway", "edge", "--api", node.url)
    assert code == 0 and "not carried over: " in err
    sent = node.written[-1][2]["catalog"]
    assert sent["routes/127.0.0.1"]["gateways"] == ["edge"] and sent.keys() == converted.keys()
    dump = tmp_path / "dump.json"
    dump.write_text(out)
    report = validate_files([str(dump)])
    assert report.problems == ()
    assert {notice.expected for notice in report.notices} == {"the gateway web is not among these files"}


# ---------------------------------------------------------------- simulate


LINES = [
    f'{host}192.0.2.1 - - [01/Jan/2026:00:00:00 +0000] "GET {path} HTTP/1.1" 200 5 "-" "HTTPie/1"'
    for host in ("shop.example ", "")
    for path in ("/blog/1", "/other", "/", "/x")
]


async def test_simulate_over_access_logs(node: Recorder, tmp_path: Path) -> None:
    log, packed = tmp_path / "access.log", tmp_path / "access.log.1.gz"
    log.write_text("\n".join([*LINES, "rubbish", ""]))
    packed.write_bytes(gzip.compress((LINES[0] + "\n").encode()))
    proposed = write(tmp_path, {"routes/shop": changed(ROUTE, "rules", 0, "backendRefs", 1, "weight", to=110)})
    words = ["simulate", str(proposed / "routes" / "shop.json"), "--log", str(log), "--log", str(packed)]
    assert await run(node, *words) == (
        "18.0% of 5 requests would go elsewhere\n"
        " 18.0%  within shop/blog-canary  such as GET shop.example/blog/1\n"
        "1 line left out: neither the combined log nor JSON\n"
        "4 lines left out: without a host; give it with --host\n"
    )
    view = json.loads(await run(node, *words, "--host", "shop.example", "-o", "json"))
    assert (view["requests"], view["moved"], view["unread"], view["without_host"]) == (9, 1.35, 1, 0)
    assert view["by_rule"][0]["example"] == "GET shop.example/blog/1"
    assert [method for method, *_ in node.written] == ["POST"] * 2, "it only asks for plans"


async def test_simulate_needs_to_know_host_and_gateway(node: Recorder, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text(LINES[-1] + "\n")
    file = write(tmp_path, {"routes/more": changed(changed(ROUTE, "gateways", to="edge"), "hostnames", to="x.example"),
                            "gateways/edge": {**GATEWAY, "port": 8443}})  # fmt: skip
    more = [str(file / "routes" / "more.json"), str(file / "gateways" / "edge.json")]
    for words, text in (
        ([more[1], "--log", str(log)], "the log does not say the host of its requests: give it with --host"),
        ([*more, "--log", str(log), "--host", "x.example"], "Give --gateway: edge, web"),
        ([more[1], "--log", str(tmp_path / "none")], "none cannot be read: No such file"),
    ):
        code, out, err = await inside("simulate", *words, "--api", node.url)
        assert (code, out) == (1, "") and text in err
