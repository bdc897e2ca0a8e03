"""The page in real Chromium on a lab node: what only real Consul, IPVS and ExaBGP can show.

What the page itself can do is proven in ``tests/page``, with nodes in memory.
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
from playwright.sync_api import Browser, expect

from tests.lab.lab import Lab, document
from tests.lab.node import API_PORT
from tests.lab.topology import own, vip
from tests.support.browser import PATIENCE, PHONE, Tab, chromium

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
BASE = f"http://127.0.0.1:{API_PORT}"
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


def test_what_happens_to_real_parts_shows(lab: Lab, tab: Tab) -> None:
    """Routes, sessions and the kernel's own counters; a backend that dies; and a node that is not there."""
    page = tab.open()
    expect(page.locator("#live")).to_have_text("● live")
    matrix = page.get_by_role("table", name="VIPs by nodes")
    expect(matrix.locator("tr", has_text=str(vip(0)))).to_contain_text("announced")
    expect(page.get_by_role("table", name="BGP sessions")).to_contain_text("up")
    page.get_by_role("link", name="web", exact=True).click()
    lab.client.spread(30, vip(0))
    rate = page.get_by_role("img", name=re.compile(r"^Connections per second: now .*, at most [1-9]"))
    expect(rate).to_be_visible()
    lab.backends["b1"].kill()
    backend = page.locator("tr", has=page.get_by_role("link", name="b1", exact=True))
    expect(backend).to_contain_text("✕ down")
    tab.excused += ("ERR_", "Failed to load")
    lab.lb1.daemon.kill()
    expect(page.locator("#live")).to_have_text("○ not live, reconnecting")
    lab.lb1.daemon.start()
    lab.lb1.ready()
    expect(page.locator("#live")).to_have_text("● live")
    lab.backends["b1"].restore()
    expect(backend).to_contain_text("100/100")


def test_what_is_done_on_the_page_is_the_clusters(lab: Lab, tab: Tab) -> None:
    """From the page of lb1 through Consul to the kernel of lb2."""
    page = tab.open("service/web")
    tab.press(page.get_by_role("button", name="Weight backend b1"), "mouse")
    tab.fill("Weight", "50", "mouse")
    tab.press(page.get_by_role("button", name="Show the plan"), "mouse")
    expect(page.locator("#plan-changes")).to_contain_text("weight")
    page.get_by_role("dialog").get_by_role("button", name="Apply", exact=True).click()
    expect(page.locator("#toast")).to_contain_text("done")
    assert json.loads(lab.consul.value("anycastlb/services/web") or "")["backends"]["b1"]["weight"] == 50
    b1 = f"{own('b1')}:80"
    lab.lb2.until(lambda: lab.lb2.ipvs()[f"tcp {vip(0)}:80"][b1] == 50, "b1 weighs 50")


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
