"""Gateways and routes from Consul, served by HAProxy through an announced VIP; and what becomes of it all when parts of
it die."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.haproxy import NodeHaproxy, serving_gateways
from tests.lab.http import connect, get
from tests.lab.lab import CHECK, Lab, document
from tests.lab.process import GIVE_UP, freeze, thaw, until
from tests.lab.topology import own, vip
from tests.support.authority import Authority
from tests.support.two_nodes import BOTH

PLAIN, HTTP = vip(0), vip(20)
"""A VIP of IPVS's, and one that only gateways have."""


def pool(*names: str) -> dict[str, Any]:
    return {"port": 80, "check": CHECK, "drain": "200ms", "backends": {name: {"address": own(name)} for name in names}}


def route(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"gateways": ["web"], "hostnames": ["*"], "rules": list(rules)}


SHOP: dict[str, Any] = {"name": "all", "backendRefs": [{"name": "shop"}]}
BLOG: dict[str, Any] = {
    "name": "blog",
    "matches": [{"path": {"type": "PathPrefix", "value": "/blog"}}],
    "backendRefs": [{"name": "blog"}],
}


@pytest.fixture
def haproxy(lab: Lab, require: Callable[[str], str]) -> Iterator[NodeHaproxy]:
    """``lb1`` serves gateways, and ``lb2`` does not."""
    with serving_gateways(lab, require("haproxy-13")) as haproxy:
        yield haproxy


def put(lab: Lab, key: str, value: dict[str, Any]) -> None:
    lab.consul.put(f"anycastlb/{key}", value)


def answered(lab: Lab, path: str = "/") -> str:
    """Who answered, or the status of another answer."""
    status, body = get(lab.client.namespace, str(HTTP), 80, path)
    return body if status == 200 else str(status)


def serve(lab: Lab, haproxy: NodeHaproxy) -> None:
    lab.put("plain", document(PLAIN))
    lab.put("shop", pool("b1", "b2"))
    lab.put("blog", pool("b3"))
    put(lab, "gateways/web", {"vip": str(HTTP), "port": 80, "protocol": "http", "drain": "200ms"})
    put(lab, "routes/all", route(SHOP))
    haproxy.start()
    lab.router.until(HTTP, {"lb1"})
    lab.router.until(PLAIN, BOTH)


def test_a_gateway_from_its_document_to_its_end(lab: Lab, haproxy: NodeHaproxy) -> None:
    serve(lab, haproxy)
    until(lambda: {answered(lab, "/blog/1") for _ in range(4)} == {"b1", "b2"}, "both of the pool have been checked")

    worker = haproxy.worker()
    put(lab, "routes/all", route(SHOP, BLOG))
    until(lambda: answered(lab, "/blog/1") == "b3", "the new rule is in force")
    assert haproxy.worker() == worker, "a rule takes no reload"

    updates = lab.router.all_updates()
    with lab.client.load(HTTP) as load:
        until(lambda: load.sent >= 20, "requests are sent")
        lab.backends["b1"].kill()
        lab.lb1.until(lambda: "b1" not in {answered(lab) for _ in range(4)}, "b1 gets no request any more")
        sent = load.sent
        until(lambda: load.sent >= sent + 20, "requests are sent without b1")
        lab.lb1.hand_over()
        sent = load.sent
        until(lambda: load.sent >= sent + 20, "requests are sent after the hand-over")
    assert not load.failed, str(load)
    assert lab.router.all_updates() == updates, "neither the death of a backend nor a new daemon moves a route"
    assert haproxy.worker() == worker
    changes = lab.lb1.total("anycastlb_changes_total", 'table="http_')
    assert changes == 0, "the first plan after a restart changes nothing in HAProxy"


def test_the_vip_goes_with_its_last_pool_and_with_haproxy_and_no_other_vip_does(lab: Lab, haproxy: NodeHaproxy) -> None:
    serve(lab, haproxy)
    put(lab, "routes/all", route(SHOP, BLOG))
    until(lambda: answered(lab, "/blog/1") == "b3", "the new rule is in force")
    with lab.router.always(PLAIN):
        lab.backends["b3"].kill()
        until(lambda: answered(lab, "/blog/1") == "503", "a dead pool is answered with 503")
        assert answered(lab) in ("b1", "b2") and lab.router.routes(HTTP) == {"lb1"}

        haproxy.kill()
        lab.router.until(HTTP, set())
        lab.lb1.until(lambda: "anycastlb-haproxy" in lab.lb1.cli("status").stdout, "the reason names the unit")
        haproxy.start()
        lab.router.until(HTTP, {"lb1"})
        assert answered(lab) in ("b1", "b2")
    lab.backends["b1"].kill()
    lab.backends["b2"].kill()
    lab.router.until(HTTP, set())
    for backend in lab.backends.values():
        backend.restore()
    lab.router.until(HTTP, {"lb1"})
    assert answered(lab) in ("b1", "b2")


def test_a_backend_that_fails_requests_is_out_although_its_check_passes(lab: Lab, haproxy: NodeHaproxy) -> None:
    """R21."""
    serve(lab, haproxy)
    lab.put("shop", {**pool("b1", "b2"), "max_fails": 3, "fail_timeout": "1s"})
    before = len(lab.lb1.events("passive"))

    def turns() -> list[str]:
        events = lab.lb1.events("passive")[before:]
        assert all(event["subject"] == "shop/b1" for event in events), events
        return [event["after"] for event in events]

    until(lambda: {answered(lab) for _ in range(4)} == {"b1", "b2"}, "both serve")
    worker = haproxy.worker()
    with lab.client.load(HTTP) as load:
        until(lambda: load.sent >= 20, "requests are sent")
        lab.backends["b1"].break_down()
        lab.lb1.until(lambda: turns()[:3] == ["out", "in", "out"], "b1 is out, and once more after fail_timeout")
        lab.backends["b1"].heal()
        until(lambda: "b1" in {answered(lab) for _ in range(4)}, "b1 serves again")
    assert not load.failed and set(load.answered) == {"b1", "b2"}, f"{load}: {load.answered}"
    assert "requests failed within 1 s" in lab.lb1.events("passive")[before]["reason"]
    assert haproxy.worker() == worker, "no reload"


class Keys:
    """Certificates with their keys in the node's ``certificate_dir``, and every line of every key there ever was."""

    def __init__(self, folder: Path, work: Path) -> None:
        self._folder, self._work = folder, work
        self.lines: set[str] = set()

    def write(self, name: str, number: int, certificate_of: int | None = None) -> str:
        """The certificate, as its PEM. ``certificate_of``: another number's, which does not fit the key."""
        place = self._work / f"{name}-{number}"
        place.mkdir()
        pem = Authority(place).issue("shop.example").read_text()
        certificate, _, key = pem.partition("-----BEGIN PRIVATE KEY-----")
        self.lines |= {line for line in key.splitlines() if re.fullmatch("[A-Za-z0-9+/=]{20,}", line)}
        if certificate_of is not None:
            (other,) = (self._work / f"{name}-{certificate_of}").glob("shop.example-*.pem")
            certificate = other.read_text().partition("-----BEGIN PRIVATE KEY-----")[0]
        draft = self._work / "draft"
        draft.touch(0o640)
        draft.write_text(f"{certificate}-----BEGIN PRIVATE KEY-----{key}")
        draft.rename(self._folder / f"{name}.pem")
        return certificate


def served_certificate(lab: Lab) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connect(lab.client.namespace, str(HTTP), 443, GIVE_UP) as link:
        try:
            with context.wrap_socket(link, server_hostname="shop.example") as tls:
                return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"")
        except ssl.SSLError:
            return ""


def test_private_keys_are_in_their_files_and_nowhere_else(lab: Lab, haproxy: NodeHaproxy, tmp_path: Path) -> None:
    """R28: not after a renewal, nor after one that HAProxy refused."""
    keys = Keys(haproxy.certificates, tmp_path)
    first = keys.write("shop", 1)
    lab.put("shop", pool("b1", "b2"))
    gateway = {"vip": str(HTTP), "port": 443, "protocol": "https", "tls": {"certificates": ["shop"]}, "drain": "200ms"}
    put(lab, "gateways/web", gateway)
    put(lab, "routes/all", route(SHOP))
    haproxy.start()
    lab.router.until(HTTP, {"lb1"})
    until(lambda: served_certificate(lab).strip() == first.strip(), "the first certificate is served")
    renewed = keys.write("shop", 2)
    until(lambda: served_certificate(lab).strip() == renewed.strip(), "the second certificate is served")
    keys.write("shop", 3, certificate_of=1)
    lab.lb1.until(lambda: lab.lb1.total("anycastlb_certificate_served") == 0, "the key that does not fit is refused")
    assert served_certificate(lab).strip() == renewed.strip()
    assert "shop" in str(lab.lb1.events("failure")), "why it was refused"

    said = {path: lab.lb1.http(path)[1] for path in ("/", "/metrics", "/readyz")}
    for path, verbs in json.loads(lab.lb1.http("/v1/openapi.json")[1])["paths"].items():
        if "get" in verbs:
            path = re.sub(r"{(\w+)}", lambda found: {"gateway": "web", "route": "all"}.get(found[1], "shop"), path)
            said[path] = lab.lb1.http(path)[1]
    said["consul"] = lab.consul.everything().decode(errors="replace")
    for words in (["export"], ["status"], ["plan"], ["why", "gateways/web"], ["events"], ["status", "--json"]):
        said[" ".join(words)] = lab.lb1.cli(*words).stdout
    for file in (lab.lb1.daemon.log, haproxy.process.log, *haproxy.config.parent.iterdir()):
        said[str(file)] = file.read_text(errors="replace")
    assert len(keys.lines) > 6 and "shop.pem" in said[str(haproxy.config.parent / "web.crt-list")]
    assert {where: line for where, text in said.items() for line in keys.lines if line in text} == {}
    assert all("shop" in said[where] for where in ("consul", "export", "/metrics", "/v1/events", "why gateways/web"))


def test_whatever_befalls_haproxy_takes_its_vip_alone_and_all_is_back_after_it(
    lab: Lab, haproxy: NodeHaproxy, require: Callable[[str], str]
) -> None:
    """R20. What is killed is above, and how long each may take is told in virtual time by tests/scenario."""
    serve(lab, haproxy)
    aside = haproxy.admin.with_name("aside")
    with lab.router.always(PLAIN):
        worker = haproxy.worker()
        freeze(worker)
        lab.router.until(HTTP, set())
        put(lab, "routes/all", route(SHOP, BLOG))
        thaw(worker)
        lab.router.until(HTTP, {"lb1"})
        until(lambda: answered(lab, "/blog/1") == "b3", "a rule that was put meanwhile is in force")
        assert haproxy.worker() == worker

        haproxy.admin.rename(aside)
        lab.router.until(HTTP, set())
        aside.rename(haproxy.admin)
        lab.router.until(HTTP, {"lb1"})

        for release in ("haproxy-12", "haproxy-13"):
            haproxy.kill()
            lab.router.until(HTTP, set())
            haproxy.replace(require(release))
            haproxy.start()
            lab.router.until(HTTP, {"lb1"})
            assert answered(lab, "/blog/1") == "b3" and answered(lab) in ("b1", "b2")
