"""Debian's Chromium, or the program that `CHROMIUM` names. Playwright's own browsers lie in no wheel."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def find() -> str:
    """Return the path of the program; raise LookupError, with what to do, where there is none."""
    named = os.environ.get("CHROMIUM")
    for name in [named] if named else _PROGRAMS:
        if found := shutil.which(name):
            return found
    where = f"CHROMIUM names {named!r}, which is no program" if named else "There is no Chromium on PATH"
    raise LookupError(f"{where}; `apt-get install chromium` brings one, or CHROMIUM=/path/of/it names one.")


@contextmanager
def launched(program: str) -> Iterator[Browser]:
    """Run a browser without a window until the block ends."""
    with sync_playwright() as playwright:
        # Its sandbox refuses root and wants a kernel that containers seldom offer; it opens nothing but our own pages.
        made = playwright.chromium.launch(executable_path=program, chromium_sandbox=False)
        try:
            yield made
        finally:
            made.close()
