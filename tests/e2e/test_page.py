"""The page in real Chromium on a lab node: what only real Consul, IPVS and ExaBGP can show.

What the page itself can do is proven in ``tests/page``, with nodes in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.lab.lab import Lab, document
from tests.lab.node import API_PORT
from tests.lab.topology import own, vip
from tests.support.browser import PATIENCE, Tab, chromium

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
    found = Tab(browser, BASE)
    yield found
    found.close()


def test_what_happens_to_real_parts_shows(lab: Lab, tab: Tab) -> None:
    """Routes, sessions and the kernel's own counters; a backend that dies; a node that is not there.

    What is done on the page of lb1 reaches the kernel of lb2 through Consul.
    """
    page = tab.open()
    expect(page.locator("#live")).to_have_text("● live")
    matrix = page.get_by_role("table", name="VIPs by nodes")
    expect(matrix.locator("tr", has_text=str(vip(0)))).to_contain_text("announced")
    expect(page.get_by_role("table", name="BGP sessions")).to_contain_text("up")
    page.get_by_role("link", name="web", exact=True).click()
    lab.client.spread(30, vip(0))
    rate = page.get_by_role("img", name=re.compile(r"^Connections per second: now .*, at most [1-9]"))
    expect(rate).to_be_visible()

    tab.press(page.get_by_role("button", name="Weight backend b1"), "mouse")
    tab.fill("Weight", "50", "mouse")
    tab.press_until(page.get_by_role("button", name="Show the plan"), page.locator("#plan-changes"))
    expect(page.locator("#plan-changes")).to_contain_text("weight")
    page.get_by_role("dialog").get_by_role("button", name="Apply", exact=True).click()
    expect(page.locator("#toast")).to_contain_text("done")
    assert json.loads(lab.consul.value("anycastlb/services/web") or "")["backends"]["b1"]["weight"] == 50
    b1 = f"{own('b1')}:80"
    lab.lb2.until(lambda: lab.lb2.ipvs()[f"tcp {vip(0)}:80"][b1] == 50, "b1 weighs 50")

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
    expect(backend).to_contain_text("50/50")
