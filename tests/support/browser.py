"""Real Chromium for the tests of the page: started in a network namespace if need be, and watched for every fault.

A ``Tab`` keeps what must never be: console errors, refusals by the content security policy, uncaught exceptions, and
requests to any other host.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
PATIENCE = 240_000
"""Milliseconds, to end a hang only: the test kernel has one slow processor, and on a busy machine little of it."""
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 780}
WATCH = """
window.refusals = [];
document.addEventListener("securitypolicyviolation", (event) =>
    window.refusals.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
"""


@contextmanager
def chromium(program: str, directory: Path, namespace: str = "") -> Iterator[Browser]:
    """A browser with an empty profile of its own; in the network namespace of that name, if given."""
    if namespace:
        wrapper = directory / "chromium"
        wrapper.write_text(f'#!/bin/sh\nexec ip netns exec {namespace} {program} "$@"\n')
        wrapper.chmod(0o755)
        program = str(wrapper)
    _without_io_uring()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS, timeout=120_000)
        try:
            yield browser
        finally:
            browser.close()


def _without_io_uring() -> None:
    """Playwright's driver is Node, whose io_uring corrupts the memory of a user-mode kernel, and so brings it down."""
    if os.environ.get("TESTKERNEL") == "packaged":
        Path("/proc/sys/kernel/io_uring_disabled").write_text("2")


class Tab:
    """One page at ``base``, in a browser context of its own."""

    def __init__(self, browser: Browser, base: str, **options: Any) -> None:
        self.base = base
        self.faults: list[str] = []
        self._context = browser.new_context(**{"viewport": DESK, **options})
        self._context.set_default_timeout(PATIENCE)
        self.page: Page = self._context.new_page()
        self.page.add_init_script(WATCH)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self._request(request.url))
        self.excused: tuple[str, ...] = ()
        """Parts of console errors that the test provokes: the browser tells of every refused request."""

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(
            part in f"{message.text} {message.location['url']}" for part in self.excused
        ):
            self.faults.append(f"console {message.type}: {message.text}")

    def _request(self, url: str) -> None:
        if not url.startswith((self.base, "data:", "about:")):
            self.faults.append(f"foreign request: {url}")

    def open(self, place: str = "") -> Page:
        self.page.goto(f"{self.base}/#/{place}")
        self.page.locator("#live .symbol").wait_for()
        return self.page

    def close(self) -> None:
        """Raises ``AssertionError`` if anything went wrong that must not."""
        try:
            refusals = self.page.evaluate("window.refusals ?? []")
            assert not self.faults + refusals, self.faults + refusals
        finally:
            self._context.close()

    def press(self, target: Locator, way: str) -> None:
        """Activate a button or link, with the mouse or with nothing but the keyboard."""
        target.wait_for()
        if way == "mouse":
            target.click()
            return
        self.reach(target)
        self.page.keyboard.press("Enter")

    def press_until(self, button: Locator, shown: Locator) -> None:
        """Press it until that is shown. Whoever works on a node of a busy machine presses again when the page says that
        the node was too slow; any other message ends it."""
        late = self.page.get_by_role("alert").filter(has_text="did not answer in time")
        self.press(button, "mouse")
        expect(shown.or_(late).first).to_be_visible()
        while not shown.is_visible() and late.is_visible():
            self.press(button, "mouse")
            expect(late.or_(shown).first).to_be_visible()

    def reach(self, target: Locator) -> None:
        """Tab until the target has the focus. Raises ``AssertionError`` if it cannot be reached, or is not seen to."""
        for _ in range(150):
            if target.evaluate("element => element === document.activeElement"):
                outline = target.evaluate("element => getComputedStyle(element).outlineStyle")
                assert outline != "none", "the focus is not visible"
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"the keyboard does not reach {target}")

    def fill(self, label: str, text: str, way: str) -> None:
        field = self.page.get_by_role("dialog").get_by_label(label, exact=True)
        if way == "mouse":
            field.fill(text)
            return
        self.reach(field)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)

    def violations(self) -> list[str]:
        """What axe-core finds on the page as it is now."""
        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {one['help']}: {[node['html'][:150] for node in one['nodes'][:3]]}" for one in found]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the screen."""
        width: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return width
