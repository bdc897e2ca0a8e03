"""The page in real Chromium on a lab node: real Consul, IPVS, ExaBGP; actions by mouse, and by
keyboard alone.

``ANYCASTLB_SCREENSHOTS=write`` makes the pictures in ``docs/screenshots`` anew.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.lab.lab import Lab, document
from tests.lab.node import API_PORT
from tests.lab.topology import own, vip
from tests.support.browser import DESK, PATIENCE, PHONE, Tab, chromium

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
BASE = f"http://127.0.0.1:{API_PORT}"
BY_MOUSE = pytest.mark.parametrize("way", ["mouse"])
BY_KEYBOARD = pytest.mark.parametrize("way", ["keyboard"])
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser(running_lab: Lab, require: Callable[[str], str], tmp_path_factory: Any) -> Iterator[Browser]:
    program = require("chromium")
    with chromium(program, tmp_path_factory.mktemp("chromium"), running_lab.lb1.namespace.full) as found:
        yield found


@pytest.fixture
def tab(lab: Lab, browser: Browser) -> Iterator[Tab]:
    """A tab on lb1's page, of a lab that serves ``web``."""
    lab.consul.put("anycastlb/defaults", '{"drain": "500ms"}')  # what the page makes is soon gone
    lab.put("web", document(vip(0)))
    lab.settle(vip(0))
    found = opened(lab, browser)
    yield found
    found.close()


def opened(lab: Lab, browser: Browser, **options: Any) -> Tab:
    return Tab(browser, BASE, **options)


def stored(lab: Lab, key: str) -> Any:
    """The document in Consul; None if there is none."""
    raw = lab.consul.value(f"anycastlb/{key}")
    return None if raw is None else json.loads(raw)


def backend(lab: Lab, service: str, name: str) -> Any:
    """A backend's document, wherever it is stored."""
    own_key = stored(lab, f"services/{service}/backends/{name}")
    return own_key if own_key is not None else stored(lab, f"services/{service}")["backends"].get(name)


def rows(lab: Lab, address: str = f"tcp {vip(0)}:80") -> dict[str, int]:
    """What lb2's kernel has: a write through lb1's page is the cluster's."""
    return lab.lb2.ipvs().get(address, {})


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


def test_the_cluster_at_a_glance(lab: Lab, tab: Tab) -> None:
    page = tab.open()
    expect(page.locator("#live")).to_have_text("● live")
    matrix = page.get_by_role("table", name="VIPs by nodes")
    expect(matrix.locator("tr", has_text=str(vip(0)))).to_contain_text("announced")
    services = page.get_by_role("table", name="Services")
    expect(services.locator("tr", has_text="web")).to_contain_text("3/3")
    expect(page.get_by_role("table", name="BGP sessions")).to_contain_text("up")
    expect(page.locator(".events li").first).to_be_visible()


def test_a_service_with_its_backends_over_time(lab: Lab, tab: Tab) -> None:
    page = tab.open()
    page.get_by_role("link", name="web", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("web")
    for name in ("b1", "b2", "b3"):
        expect(row(tab, name)).to_contain_text("up")
        expect(row(tab, name)).to_contain_text("100/100")
    lab.client.spread(30, vip(0))
    strip = row(tab, "b1").locator(".strip")
    expect(strip).to_have_attribute("aria-label", re.compile(r"last ten minutes: .*up [1-9]\d* %"))
    rate = page.get_by_role("img", name=re.compile(r"^Connections per second: now .*, at most [1-9]"))
    expect(rate).to_be_visible(timeout=30_000)


def test_what_happens_shows_without_asking(lab: Lab, tab: Tab) -> None:
    page = tab.open("service/web")
    expect(row(tab, "b1")).to_contain_text("up")
    lab.backends["b1"].kill()
    expect(row(tab, "b1")).to_contain_text("✕ down")
    expect(row(tab, "b1")).to_contain_text("0/100")
    page.get_by_role("navigation").get_by_role("link", name="Events").click()
    expect(page.locator(".events li", has_text="10.1.0.1").first).to_be_visible()
    page.get_by_label("Filter").fill("no such thing")
    expect(page.locator(".events li")).to_have_count(0)
    lab.backends["b1"].restore()


def test_why_of_anything(lab: Lab, tab: Tab) -> None:
    page = tab.open("service/web")
    row(tab, "b1").get_by_role("link").click()
    expect(page.locator(".answer")).to_contain_text("weight 100 of 100")
    expect(page.locator(".chain").first).to_contain_text("HTTP 200")
    page.get_by_label("Why").fill(str(vip(0)))
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_contain_text("announced to")
    page.get_by_label("Why").fill("wbe")
    tab.excused += ("404",)
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_contain_text("did you mean web?")


def test_not_live_is_seen_and_mended(lab: Lab, tab: Tab) -> None:
    page = tab.open()
    expect(page.locator("#live")).to_have_text("● live")
    tab.excused += ("ERR_", "Failed to load")
    lab.lb1.daemon.kill()
    expect(page.locator("#live")).to_have_text("○ not live, reconnecting")
    lab.lb1.daemon.start()
    lab.lb1.ready()
    expect(page.locator("#live")).to_have_text("● live", timeout=60_000)
    lab.remove("web")
    expect(page.get_by_text("The catalog has no service.")).to_be_visible()


def test_names_are_text_and_never_markup(lab: Lab, tab: Tab) -> None:
    evil = "<img src=x onerror=alert(1)>"
    backends = {name: {"address": own(name)} for name in ("b1", "b2")} | {evil: {"address": own("b3")}}
    lab.put("evil", document(vip(1), backends=backends))
    lab.put("<script>alert(2)<", {"vip": evil})
    page = tab.open("service/evil")
    expect(page.locator(".notice")).to_contain_text(evil)
    assert page.locator("main img, main script").count() == 0
    tab.open()
    expect(page.get_by_role("table", name="Problems")).to_contain_text("<script>alert(2)<")
    assert page.locator("main img, main script").count() == 0


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE)], ids=["light desk", "dark phone"])
def test_everybody_can_use_it(lab: Lab, tab: Tab, browser: Browser, scheme: Any, size: Any) -> None:
    lab.put("bad", {"vip": "nowhere"})
    lab.backends["b3"].kill()
    own_tab = opened(lab, browser, color_scheme=scheme, viewport=size)
    for place in ("", "service/web", "events", f"why/{vip(0)}", "plan"):
        own_tab.open(place)
        expect(own_tab.page.get_by_role("heading", level=1)).to_be_attached()
        assert own_tab.violations() == [], place
        assert own_tab.overflow() == 0, place
    own_tab.close()


def test_by_keyboard_alone(lab: Lab, tab: Tab) -> None:
    page = tab.open()
    expect(page.get_by_role("table", name="Services")).to_contain_text("web")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("next and previous row")
    for _ in range(8):  # the focus stays inside
        page.keyboard.press("Tab")
        inside = "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
        assert page.evaluate(inside)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("e")
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


def test_the_theme_is_kept(lab: Lab, tab: Tab) -> None:
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
def test_add_a_service_then_a_backend(lab: Lab, tab: Tab, way: str) -> None:
    page = tab.open()
    tab.press(page.get_by_role("button", name="Add service …"), way)
    tab.fill("Name required", "shop", way)
    tab.fill("VIPs required", str(vip(2)), way)
    tab.fill("Port", "80", way)
    tab.fill("Check", "tcp", way)
    tab.fill("Check interval", "200ms", way)
    tab.fill("Check time-out", "200ms", way)
    tab.press(page.get_by_role("button", name="Show the plan"), way)
    expect(page.locator("#plan-edits")).to_contain_text("services/shop")
    assert stored(lab, "services/shop") is None, "a plan writes nothing"
    apply(tab, "Add", way)
    assert stored(lab, "services/shop")["vip"] in (str(vip(2)), [str(vip(2))])
    tab.press(page.get_by_role("table", name="Services").get_by_role("link", name="shop"), way)
    tab.press(page.get_by_role("button", name="Add backend …"), way)
    tab.fill("Name required", "b1", way)
    tab.fill("Address required", own("b1"), way)
    tab.press(page.get_by_role("button", name="Show the plan"), way)
    apply(tab, "Add", way)
    assert backend(lab, "shop", "b1")["address"] == own("b1")
    lab.lb2.until(lambda: rows(lab, f"tcp {vip(2)}:80") == {f"{own('b1')}:80": 100}, "shop is in the kernel")


@BY_MOUSE
def test_edit_a_service(lab: Lab, tab: Tab, way: str) -> None:
    page = tab.open("service/web")
    tab.press(page.get_by_role("button", name="Edit …", exact=True), way)
    tab.fill("Scheduler", "wrr", way)
    tab.press(page.get_by_role("button", name="Show the plan"), way)
    expect(page.locator("#plan-edits")).to_contain_text("scheduler")
    expect(page.locator("#plan-changes")).to_contain_text(f"service tcp {vip(0)}:80")
    apply(tab, "Apply", way)
    after = stored(lab, "services/web")
    assert after == {**document(vip(0)), "vip": after["vip"], "scheduler": "wrr"}
    lab.lb2.until(lambda: "-s wrr" in lab.lb2.namespace.run("ipvsadm", "-Sn"), "the scheduler is wrr")


@BY_KEYBOARD
def test_errors_stand_at_their_fields(lab: Lab, tab: Tab, way: str) -> None:
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
    assert stored(lab, "services/web")["port"] == 80


@BY_MOUSE
def test_weigh_a_backend(lab: Lab, tab: Tab, way: str) -> None:
    page = tab.open("service/web")
    tab.press(page.get_by_role("button", name="Weight backend b1"), way)
    tab.fill("Weight", "50", way)
    tab.press(page.get_by_role("button", name="Show the plan"), way)
    expect(page.locator("#plan-changes")).to_contain_text("weight")
    apply(tab, "Apply", way)
    assert backend(lab, "web", "b1")["weight"] == 50
    lab.lb2.until(lambda: rows(lab)[f"{own('b1')}:80"] == 50, "b1 weighs 50")
    expect(row(tab, "b1")).to_contain_text("50/50")


@BY_KEYBOARD
def test_drain_and_undrain_a_backend(lab: Lab, tab: Tab, way: str) -> None:
    page = tab.open("service/web")
    tab.press(page.get_by_role("button", name="Drain backend b2"), way)
    apply(tab, "Drain", way)
    assert backend(lab, "web", "b2")["drain"] is True
    lab.lb2.until(lambda: not rows(lab).get(f"{own('b2')}:80"), "b2 gets no new flows")
    tab.press(page.get_by_role("button", name="Undrain backend b2"), way)
    apply(tab, "Undrain", way)
    assert not backend(lab, "web", "b2").get("drain")
    lab.lb2.until(lambda: rows(lab).get(f"{own('b2')}:80") == 100, "b2 is back")


@BY_MOUSE
def test_edit_and_delete_a_backend(lab: Lab, tab: Tab, way: str) -> None:
    page = tab.open("service/web")
    tab.press(page.get_by_role("button", name="Edit backend b3"), way)
    tab.fill("Most connections", "1000", way)
    tab.press(page.get_by_role("button", name="Show the plan"), way)
    apply(tab, "Apply", way)
    assert backend(lab, "web", "b3")["max_connections"] == 1000
    tab.press(page.get_by_role("button", name="Delete backend b3"), way)
    apply(tab, "Delete", way)
    assert backend(lab, "web", "b3") is None
    lab.lb2.until(lambda: f"{own('b3')}:80" not in rows(lab), "b3 has left the kernel")


@BY_KEYBOARD
def test_delete_a_service(lab: Lab, tab: Tab, way: str) -> None:
    page = tab.open("service/web")
    tab.press(page.get_by_role("button", name="Delete …", exact=True), way)
    expect(page.locator("#plan-edits")).to_contain_text("delete services/web")
    tab.press(page.get_by_role("button", name="Cancel"), way)
    assert stored(lab, "services/web") is not None
    tab.press(page.get_by_role("button", name="Delete …", exact=True), way)
    apply(tab, "Delete", way)
    assert stored(lab, "services/web") is None
    lab.lb2.until(lambda: not lab.lb2.ipvs() and not lab.lb2.vips(), "web has left the kernel")


@BY_MOUSE
def test_drain_and_undrain_a_node(lab: Lab, tab: Tab, way: str) -> None:
    page = tab.open()
    tab.press(page.get_by_role("button", name="Drain node lb1"), way)
    tab.fill("Reason", "new disks", way)
    tab.press(page.get_by_role("button", name="Go on"), way)
    expect(page.locator("#plan-words")).to_contain_text(f"route {vip(0)}")
    apply(tab, "Drain", way)
    assert lab.consul.value("anycastlb/drain/lb1") is not None
    lab.router.until(vip(0), {"lb2"})
    tab.press(page.get_by_role("button", name="Undrain node lb1"), way)
    apply(tab, "Undrain", way)
    assert lab.consul.value("anycastlb/drain/lb1") is None
    lab.router.until(vip(0), {"lb1", "lb2"})


def test_a_lost_race_says_so(lab: Lab, tab: Tab) -> None:
    page = tab.open("service/web")
    tab.excused += ("409", "412")
    page.get_by_role("button", name="Weight backend b1").click()
    tab.fill("Weight", "50", "mouse")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#plan-edits")).to_be_visible()
    lab.put("web", document(vip(0), backends={"b1": {"address": own("b1"), "weight": 70}}))
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("alert")).to_contain_text("somebody else was faster")
    assert backend(lab, "web", "b1")["weight"] == 70


# ---------------------------------------------------------------- pictures


LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": PHONE},
}


def test_pictures(lab: Lab, tab: Tab, browser: Browser, tmp_path: Path) -> None:
    """They can be made: one of each place. All of those in ``docs`` are made, and kept, if that is asked for."""
    kept = os.environ.get("ANYCASTLB_SCREENSHOTS") == "write"
    folder, past, looks = (PICTURES, (40, 25, 35), LOOKS) if kept else (tmp_path, (1, 1, 0), {"light": LOOKS["light"]})
    folder.mkdir(exist_ok=True)
    lab.put("web", document(vip(0)))
    lab.put("shop", document([vip(1), vip(1, 6)]))
    lab.put("dns", document(vip(2), announce={"min_backends": 3}))
    lab.settle(vip(0), vip(1))
    _live(lab, past[0])
    lab.backends["b3"].kill()
    _live(lab, past[1])
    lab.backends["b3"].restore()
    _live(lab, past[2])
    lab.backends["b2"].kill()
    for name, options in looks.items():
        own_tab = opened(lab, browser, **options)
        for place in ("", "service/web"):
            own_tab.open(place)
            expect(own_tab.page.locator("#live")).to_have_text("● live")
            expect(own_tab.page.get_by_text("✕").first).to_be_visible()
            expect(own_tab.page.locator(".spark .line").first).to_be_attached()
            shown = place.partition("/")[0] or "cluster"
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


def _live(lab: Lab, seconds: float) -> None:
    """Some traffic for a while; what a dead backend does not answer is no matter here."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for number in (0, 1):
            with suppress(OSError):
                lab.client.spread(20, vip(number))
        time.sleep(0.5)
