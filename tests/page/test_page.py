"""The page in real Chromium, of one of two nodes in memory: what it shows, and actions by mouse and by keyboard alone.

``tests/e2e/test_page.py`` opens it on a node of the lab. ``ANYCASTLB_SCREENSHOTS=write`` makes the pictures in
``docs/screenshots`` anew.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from anycastlb.core.model import HttpCounters, SiteCounters, SiteKey
from anycastlb.serving.history import History
from tests.lab.lab import document
from tests.lab.process import until
from tests.lab.topology import own
from tests.support import http_scene
from tests.support.browser import DESK, PATIENCE, PHONE, Tab, chromium
from tests.support.pages import VIP, Place, place
from tests.support.serving import Served, served_beside

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
SECOND, OTHER = ip_address("192.0.2.11"), ip_address("192.0.2.12")
BY_MOUSE = pytest.mark.parametrize("way", ["mouse"])
BY_KEYBOARD = pytest.mark.parametrize("way", ["keyboard"])
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser(require: Callable[[str], str], tmp_path_factory: Any) -> Iterator[Browser]:
    with chromium(require("chromium"), tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Place]:
    """Two nodes that serve ``web``."""
    with place(tmp_path) as found:
        found.put("defaults", {"drain": "500ms"})  # what the page makes is soon gone
        found.put("services/web", document(VIP))
        found.settle()
        yield found


@pytest.fixture
def tab(nodes: Place, browser: Browser) -> Iterator[Tab]:
    """A tab on the page of lb1."""
    found = Tab(browser, nodes.url)
    yield found
    found.close()


def backend(nodes: Place, service: str, name: str) -> Any:
    """A backend's document, wherever it is stored."""
    own_key = nodes.stored(f"services/{service}/backends/{name}")
    return own_key if own_key is not None else nodes.stored(f"services/{service}")["backends"].get(name)


def row(tab: Tab, name: str) -> Locator:
    return tab.page.locator("tr", has=tab.page.get_by_role("link", name=name, exact=True))


def apply(tab: Tab, verb: str, way: str) -> None:
    """The plan is on the screen; see that it is one, and let it happen."""
    dialog = tab.page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=2)).to_contain_text("the plan")
    button = dialog.get_by_role("button", name=verb, exact=True)
    expect(button).to_be_focused()
    tab.press(button, way)
    expect(dialog).to_be_hidden()
    expect(tab.page.locator("#toast")).to_contain_text("done")


# ---------------------------------------------------------------- looking


def test_the_cluster_at_a_glance(nodes: Place, tab: Tab) -> None:
    page = tab.open()
    expect(page.locator("#live")).to_have_text("● live")
    matrix = page.get_by_role("table", name="VIPs by nodes")
    expect(matrix.locator("tr", has_text=str(VIP))).to_contain_text("announced")
    services = page.get_by_role("table", name="Services")
    expect(services.locator("tr", has_text="web")).to_contain_text("3/3")
    expect(page.get_by_role("table", name="BGP sessions")).to_contain_text("up")
    expect(page.locator(".events li").first).to_be_visible()


def test_gateways_routes_and_pools(browser: Browser) -> None:
    snapshot, history = http_scene.snapshot({"10.1.0.2"}), History()
    for turn, requests in enumerate((0, 15)):
        counted = HttpCounters({SiteKey("web", "shop.example"): SiteCounters(requests, answers=(0, 0, 0, requests))})
        history.observe(snapshot, None, http_scene.NOW - 5 + 5 * turn, http=counted)
    with served_beside(Served(snapshot, history=history)) as url:
        tab = Tab(browser, url)
        page = tab.open()
        matrix = page.get_by_role("table", name="VIPs by nodes")
        expect(matrix.locator("tr", has_text="2001:db8:2::10")).to_contain_text("gateway web")
        gateway = page.get_by_role("table", name="Gateways").locator("tbody tr")
        expect(gateway).to_contain_text("https 443")
        expect(gateway).to_contain_text("1/1 routes can be served")
        expect(gateway).to_contain_text("● shop")
        expect(gateway.get_by_role("img", name="web requests per second: now 3, at most 3")).to_be_visible()
        expect(gateway.locator("td").nth(3)).to_have_text("3")
        route = page.get_by_role("table", name="Routes").locator("tbody tr")
        expect(route).to_contain_text("shop.example, *.shop.example")
        expect(route).to_contain_text("● open")
        pool = page.get_by_role("table", name="Pools").locator("tr", has_text="leastconn")
        expect(pool).to_contain_text("1/2")
        assert tab.violations() == []
        expect(pool.get_by_role("img", name="blog requests per second")).to_be_visible()
        pool.get_by_role("link", name="b2").click()
        expect(page.locator("#main")).to_contain_text("HAProxy has it with weight 100, maint")
        tab.close()
        small = Tab(browser, url, viewport=PHONE)
        expect(small.open().get_by_role("table", name="Routes")).to_be_visible()
        assert small.overflow() <= 0
        small.close()


def test_a_service_with_its_backends_over_time(nodes: Place, tab: Tab) -> None:
    page = tab.open()
    page.get_by_role("link", name="web", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("web")
    for name in ("b1", "b2", "b3"):
        expect(row(tab, name)).to_contain_text("up")
        expect(row(tab, name)).to_contain_text("100/100")
    strip = row(tab, "b1").locator(".strip")
    expect(strip).to_have_attribute("aria-label", re.compile(r"last ten minutes: .*up [1-9]\d* %"))
    rate = page.get_by_role("img", name=re.compile(r"^Connections per second: now .*, at most [1-9]"))
    expect(rate).to_be_visible(timeout=30_000)


def test_what_happens_shows_without_asking(nodes: Place, tab: Tab) -> None:
    page = tab.open("service/web")
    expect(row(tab, "b1")).to_contain_text("up")
    nodes.kill("b1")
    expect(row(tab, "b1")).to_contain_text("✕ down")
    expect(row(tab, "b1")).to_contain_text("0/100")
    page.get_by_role("navigation").get_by_role("link", name="Events").click()
    expect(page.locator(".events li", has_text="10.1.0.1").first).to_be_visible()
    page.get_by_label("Filter").fill("no such thing")
    expect(page.locator(".events li")).to_have_count(0)


def test_why_of_anything(nodes: Place, tab: Tab) -> None:
    page = tab.open("service/web")
    row(tab, "b1").get_by_role("link").click()
    expect(page.locator(".answer")).to_contain_text("weight 100 of 100")
    expect(page.locator(".chain").first).to_contain_text("HTTP 200")
    page.get_by_label("Why").fill(str(VIP))
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_contain_text("announced to")
    page.get_by_label("Why").fill("wbe")
    tab.excused += ("404",)
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_contain_text("did you mean web?")


def test_names_are_text_and_never_markup(nodes: Place, tab: Tab) -> None:
    evil = "<img src=x onerror=alert(1)>"
    backends = {name: {"address": own(name)} for name in ("b1", "b2")} | {evil: {"address": own("b3")}}
    nodes.put("services/evil", document(SECOND, backends=backends))
    nodes.put("services/<script>alert(2)<", {"vip": evil})
    page = tab.open("service/evil")
    expect(page.locator(".notice")).to_contain_text(evil)
    assert page.locator("main img, main script").count() == 0
    tab.open()
    expect(page.get_by_role("table", name="Problems")).to_contain_text("<script>alert(2)<")
    assert page.locator("main img, main script").count() == 0


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE)], ids=["light desk", "dark phone"])
def test_everybody_can_use_it(nodes: Place, tab: Tab, browser: Browser, scheme: Any, size: Any) -> None:
    nodes.put("services/bad", {"vip": "nowhere"})
    nodes.kill("b3")
    own_tab = Tab(browser, nodes.url, color_scheme=scheme, viewport=size)
    for where in ("", "service/web", "events", f"why/{VIP}", "plan"):
        own_tab.open(where)
        expect(own_tab.page.get_by_role("heading", level=1)).to_be_attached()
        assert own_tab.violations() == [], where
        assert own_tab.overflow() == 0, where
    own_tab.close()


def test_by_keyboard_alone(nodes: Place, tab: Tab) -> None:
    page = tab.open()
    expect(page.get_by_role("table", name="Services")).to_contain_text("web")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("next and previous row")
    for _ in range(8):  # the focus stays inside
        page.keyboard.press("Tab")
        inside = "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
        assert page.evaluate(inside)
    page.get_by_role("checkbox").focus()
    page.keyboard.press("Escape")
    page.keyboard.press("e")  # at once: the box of a closed dialog may still have the focus
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("heading", level=1)).to_have_text("Events")
    page.keyboard.press("/")
    expect(page.get_by_label("Filter")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    tab.press(page.get_by_role("table", name="Services").get_by_role("link", name="web"), "keyboard")
    expect(page.get_by_role("heading", level=1)).to_have_text("web")
    expect(row(tab, "b1")).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(row(tab, "b2").get_by_role("link")).to_be_focused()


def test_the_theme_is_kept(nodes: Place, tab: Tab) -> None:
    page = tab.open()
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for shown in ("○ light", "● dark"):
        page.keyboard.press("t")
        expect(page.locator("#theme")).to_have_text(shown)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != before
    page.reload()
    expect(page.locator("#theme")).to_have_text("● dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


# ---------------------------------------------------------------- doing


@BY_KEYBOARD
def test_add_a_service_then_a_backend(nodes: Place, tab: Tab, way: str) -> None:
    page = tab.open()
    tab.press(page.get_by_role("button", name="Add service …"), way)
    tab.fill("Name required", "shop", way)
    tab.fill("VIPs required", str(OTHER), way)
    tab.fill("Port", "80", way)
    tab.fill("Check", "tcp", way)
    tab.fill("Check interval", "200ms", way)
    tab.fill("Check time-out", "200ms", way)
    tab.press(page.get_by_role("button", name="Show the plan"), way)
    expect(page.locator("#plan-edits")).to_contain_text("services/shop")
    assert nodes.stored("services/shop") is None, "a plan writes nothing"
    apply(tab, "Add", way)
    assert nodes.stored("services/shop")["vip"] in (str(OTHER), [str(OTHER)])
    tab.press(page.get_by_role("table", name="Services").get_by_role("link", name="shop"), way)
    tab.press(page.get_by_role("button", name="Add backend …"), way)
    tab.fill("Name required", "b1", way)
    tab.fill("Address required", own("b1"), way)
    tab.press(page.get_by_role("button", name="Show the plan"), way)
    apply(tab, "Add", way)
    assert backend(nodes, "shop", "b1")["address"] == own("b1")
    until(lambda: nodes.rows(OTHER) == {f"{own('b1')}:80": 100}, "shop is in the kernel")


@BY_MOUSE
def test_edit_a_service(nodes: Place, tab: Tab, way: str) -> None:
    page = tab.open("service/web")
    tab.press(page.get_by_role("button", name="Edit …", exact=True), way)
    tab.fill("Scheduler", "wrr", way)
    tab.press(page.get_by_role("button", name="Show the plan"), way)
    expect(page.locator("#plan-edits")).to_contain_text("scheduler")
    expect(page.locator("#plan-changes")).to_contain_text(f"service tcp {VIP}:80")
    apply(tab, "Apply", way)
    after = nodes.stored("services/web")
    assert after == {**document(VIP), "vip": after["vip"], "scheduler": "wrr"}
    nodes.until(lambda: [row.scheduler for row in nodes.lb2.kernel.rows["services"].values()] == ["wrr"], "it is wrr")


@BY_KEYBOARD
def test_errors_stand_at_their_fields(nodes: Place, tab: Tab, way: str) -> None:
    page = tab.open("service/web")
    tab.excused += ("422", "400")
    tab.press(page.get_by_role("button", name="Edit …", exact=True), way)
    tab.fill("Port", "99999", way)
    tab.press(page.get_by_role("button", name="Show the plan"), way)
    port = page.get_by_role("dialog").get_by_label("Port", exact=True)
    expect(port).to_have_attribute("aria-invalid", "true")
    expect(port).to_be_focused()
    expect(page.locator("#e-port")).to_contain_text("65535")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert nodes.stored("services/web")["port"] == 80


@BY_MOUSE
def test_weigh_a_backend(nodes: Place, tab: Tab, way: str) -> None:
    page = tab.open("service/web")
    tab.press(page.get_by_role("button", name="Weight backend b1"), way)
    tab.fill("Weight", "50", way)
    tab.press(page.get_by_role("button", name="Show the plan"), way)
    expect(page.locator("#plan-changes")).to_contain_text("weight")
    apply(tab, "Apply", way)
    assert backend(nodes, "web", "b1")["weight"] == 50
    until(lambda: nodes.rows()[f"{own('b1')}:80"] == 50, "b1 weighs 50")
    expect(row(tab, "b1")).to_contain_text("50/50")


@BY_KEYBOARD
def test_drain_and_undrain_a_backend(nodes: Place, tab: Tab, way: str) -> None:
    page = tab.open("service/web")
    tab.press(page.get_by_role("button", name="Drain backend b2"), way)
    apply(tab, "Drain", way)
    assert backend(nodes, "web", "b2")["drain"] is True
    until(lambda: not nodes.rows().get(f"{own('b2')}:80"), "b2 gets no new flows")
    tab.press(page.get_by_role("button", name="Undrain backend b2"), way)
    apply(tab, "Undrain", way)
    assert not backend(nodes, "web", "b2").get("drain")
    until(lambda: nodes.rows().get(f"{own('b2')}:80") == 100, "b2 is back")


@BY_MOUSE
def test_edit_and_delete_a_backend(nodes: Place, tab: Tab, way: str) -> None:
    page = tab.open("service/web")
    tab.press(page.get_by_role("button", name="Edit backend b3"), way)
    tab.fill("Most connections", "1000", way)
    tab.press(page.get_by_role("button", name="Show the plan"), way)
    apply(tab, "Apply", way)
    assert backend(nodes, "web", "b3")["max_connections"] == 1000
    tab.press(page.get_by_role("button", name="Delete backend b3"), way)
    apply(tab, "Delete", way)
    assert backend(nodes, "web", "b3") is None
    until(lambda: f"{own('b3')}:80" not in nodes.rows(), "b3 has left the kernel")


@BY_KEYBOARD
def test_delete_a_service(nodes: Place, tab: Tab, way: str) -> None:
    page = tab.open("service/web")
    tab.press(page.get_by_role("button", name="Delete …", exact=True), way)
    expect(page.locator("#plan-edits")).to_contain_text("delete services/web")
    tab.press(page.get_by_role("button", name="Cancel"), way)
    assert nodes.stored("services/web") is not None
    tab.press(page.get_by_role("button", name="Delete …", exact=True), way)
    apply(tab, "Delete", way)
    assert nodes.stored("services/web") is None
    nodes.until(lambda: not any(nodes.lb2.kernel.rows.values()), "web has left the kernel")


@BY_MOUSE
def test_drain_and_undrain_a_node(nodes: Place, tab: Tab, way: str) -> None:
    page = tab.open()
    tab.press(page.get_by_role("button", name="Drain node lb1"), way)
    tab.fill("Reason", "new disks", way)
    tab.press(page.get_by_role("button", name="Go on"), way)
    expect(page.locator("#plan-words")).to_contain_text(f"route {VIP}")
    apply(tab, "Drain", way)
    assert nodes.has("drain/lb1")
    until(lambda: nodes.announced() == {"lb2"}, "lb1 has withdrawn")
    tab.press(page.get_by_role("button", name="Undrain node lb1"), way)
    apply(tab, "Undrain", way)
    assert not nodes.has("drain/lb1")
    until(lambda: nodes.announced() == {"lb1", "lb2"}, "it is back")


def test_a_lost_race_says_so(nodes: Place, tab: Tab) -> None:
    page = tab.open("service/web")
    tab.excused += ("409", "412")
    page.get_by_role("button", name="Weight backend b1").click()
    tab.fill("Weight", "50", "mouse")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#plan-edits")).to_be_visible()
    nodes.put("services/web", document(VIP, backends={"b1": {"address": own("b1"), "weight": 70}}))
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("alert")).to_contain_text("somebody else was faster")
    assert backend(nodes, "web", "b1")["weight"] == 70


# ---------------------------------------------------------------- pictures


LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": PHONE},
}


def test_pictures(nodes: Place, tab: Tab, browser: Browser, tmp_path: Path) -> None:
    """They can be made: one of each place. All of those in ``docs`` are made, and kept, if that is asked for."""
    kept = os.environ.get("ANYCASTLB_SCREENSHOTS") == "write"
    folder, past, looks = (PICTURES, (10, 6, 9), LOOKS) if kept else (tmp_path, (1, 1, 0), {"light": LOOKS["light"]})
    folder.mkdir(exist_ok=True)
    nodes.put("services/shop", document(SECOND))
    nodes.put("services/dns", document(OTHER, announce={"min_backends": 3}))
    nodes.settle()
    time.sleep(past[0])
    nodes.kill("b3")
    time.sleep(past[1])
    nodes.revive("b3")
    time.sleep(past[2])
    nodes.kill("b2")
    for name, options in looks.items():
        own_tab = Tab(browser, nodes.url, **options)
        for where in ("", "service/web"):
            own_tab.open(where)
            expect(own_tab.page.locator("#live")).to_have_text("● live")
            expect(own_tab.page.get_by_text("✕").first).to_be_visible()
            expect(own_tab.page.locator(".spark .line").first).to_be_attached()
            shown = where.partition("/")[0] or "cluster"
            own_tab.page.screenshot(path=folder / f"{shown}-{name}.png", full_page=name == "phone")
        own_tab.close()
    page = tab.open("service/web")
    page.get_by_role("button", name="Weight backend b1").click()
    tab.fill("Weight", "50", "mouse")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#plan-changes")).to_be_visible()
    page.screenshot(path=folder / "plan-light.png")
    made = {picture.name: picture.stat().st_size for picture in folder.glob("*.png")}
    assert len(made) == 2 * len(looks) + 1 and min(made.values()) > 10_000, made
