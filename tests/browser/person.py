"""A person at a browser, who has a keyboard and nothing else, and sees what a browser complains about."""

from __future__ import annotations

import re
import time

from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Locator, Page, Request, expect
from playwright.sync_api import TimeoutError as PageTimeoutError

_MOST_TABS = 150
_LEADS = 1.2
"""Seconds; the console waits a little longer for the key that follows a g."""
_NO_PICTURE = r"/pictures/\d+/\d+: .* status of 4(04|15)"
"""What Chromium says of an image that no browser can show; the page says so in its place."""


class Person:
    """A tab of a browser. Everything that a person does goes through `press`, `write` and `tab_to`."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self._url = url
        self._complaints: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("dialog", self._saw_dialog)
        self.page.on("console", self._saw_message)
        self.page.on("pageerror", lambda error: self._complaints.append(f"script: {error}"))
        self.page.on("request", self._saw_request)
        # Playwright catches choosers of files while somebody listens, and does not say when it has begun to.
        self.page.on("filechooser", lambda chooser: None)

    def visit(self, path: str) -> None:
        """Type an address of the console."""
        self.page.goto(f"{self._url}/console/{path}")

    def press(self, *keys: str) -> None:
        """Press keys, once the page has its scripts, which it may not have when its first elements can be seen."""
        for key in keys:
            self.page.wait_for_load_state()
            self.page.keyboard.press(key)

    def write(self, text: str) -> None:
        """Type a text into the field that has the focus."""
        self.page.wait_for_load_state()
        self.page.keyboard.type(text)

    def go(self, key: str, path: str) -> None:
        """Press g and the key of a page, and wait until it is there.

        The console forgets the g after a while, so whoever is held up between the two presses both again.
        """
        while True:
            began = time.monotonic()
            self.press("g", key)
            in_time = time.monotonic() - began < _LEADS
            try:
                self.is_at(path, None if in_time else _LEADS)
            except PageTimeoutError:
                if in_time:
                    raise
            else:
                return

    def tab_to(self, wanted: Locator, key: str = "Tab") -> None:
        """Press Tab until an element has the focus, as whoever has no mouse reaches it."""
        for _ in range(_MOST_TABS):
            if wanted.evaluate("element => element === document.activeElement"):
                return
            self.press(key)
        raise AssertionError(f"Tab does not reach {wanted}")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def link(self, name: str) -> Locator:
        return self.page.get_by_role("link", name=name, exact=True)

    def use(self, wanted: Locator) -> None:
        """Go to a button or a link, and press Enter."""
        self.tab_to(wanted)
        self.press("Enter")

    def sees(self, *texts: str | re.Pattern[str]) -> None:
        """Wait until the page shows texts."""
        for text in texts:
            expect(self.page.locator("main")).to_contain_text(text)

    def is_at(self, path: str, seconds: float | None = None) -> None:
        """Wait until the address is a page of the console; raises PageTimeoutError after so many seconds."""
        self.page.wait_for_url(f"{self._url}/console/{path}", timeout=None if seconds is None else 1000 * seconds)

    def give(self, token: str) -> None:
        """Write a token where the page asks for one, which has the focus once the page is shown."""
        expect(self.page.get_by_label("Token")).to_be_focused()
        self.write(token)
        self.press("Enter")

    def sign_in(self, token: str, path: str = "jobs") -> None:
        """Ask for a page, and sign in with the keyboard on the way there."""
        self.visit(path)
        self.give(token)
        self.is_at(path)

    def complaints(self, *expected: str) -> list[str]:
        """Return what the browser complained about since the last call, but for patterns that are expected.

        These are dialogs, requests to other hosts, errors of scripts, and what Chromium writes into its console:
        violations of the content security policy, and answers with an error, but for images that no browser can show.
        """
        self.page.evaluate("0")  # what the browser said before is here once this is answered
        known = (_NO_PICTURE, *expected)
        found = [one for one in self._complaints if not any(re.search(pattern, one) for pattern in known)]
        self._complaints.clear()
        return found

    def _saw_dialog(self, dialog: Dialog) -> None:
        self._complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _saw_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._complaints.append(f"{message.type} at {message.location.get('url', '')}: {message.text}")

    def _saw_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self._url}/", "blob:", "data:")):
            self._complaints.append(f"request: {request.url}")
