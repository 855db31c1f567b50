"""Axe finds nothing serious on any page, in light and dark, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import OWNER, Stack
from tests.browser.pages import left_out
from tests.browser.person import Person

WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}
"""Width and height of a window, in CSS pixels."""
_CUT = """
[...document.querySelectorAll(".wide:not([role=region])")].filter((one) => one.scrollWidth > one.clientWidth).map(
  (one) => one.innerText.slice(0, 40),
)
"""
SERIOUS = ("serious", "critical")


def found(page: Any, axe: Axe) -> Iterator[str]:
    """Yield what is wrong with a page, each with the rule and the elements."""
    for violation in axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]:
        if violation["impact"] in SERIOUS:
            nodes = "; ".join(str(node["html"])[:160] for node in violation["nodes"][:4])
            yield f"{violation['id']} ({violation['impact']}): {violation['help']}: {nodes}"


def test_no_page_shuts_anybody_out(people: Callable[..., Person], stack: Stack) -> None:
    person, axe = people(), Axe()
    person.sign_in(stack.api.token("admin", owner=OWNER))
    visited = stack.paths()
    wrong: list[str] = []
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for path in visited:
        person.visit(path)
        # Parts that a page loads by itself belong to it.
        expect(person.page.locator("[hx-trigger^=load]:empty")).to_have_count(0)
        for scheme in schemes:
            person.page.emulate_media(color_scheme=scheme)
            for name, (width, height) in WIDTHS.items():
                person.page.set_viewport_size({"width": width, "height": height})
                wrong += [f"{path}, {scheme}, {name}: {one}" for one in found(person.page, axe)]
                # A page that is wider than its window has to be read through a keyhole.
                wide = person.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                if wide > 0:
                    wrong.append(f"{path}, {scheme}, {name}: {wide} pixels wider than the window")
                # So has a table whose last columns are out of sight.
                wrong += [f"{path}, {name}: {one} has columns out of sight" for one in person.page.evaluate(_CUT)]
    assert person.complaints("status of 404") == []
    assert wrong == []
    assert left_out(visited) == set()
