"""Twenty images reviewed with the keyboard, and what the bucket has of it."""

from __future__ import annotations

import json

from playwright.sync_api import expect

from tests.browser.conftest import OWNER, Stack
from tests.browser.person import Person

IMAGES = 20


def test_twenty_images_are_reviewed_by_keys_and_kept(ann: Person, stack: Stack) -> None:
    ann.visit(f"jobs/{stack.labelled}")
    ann.press("v")
    ann.is_at(f"jobs/{stack.labelled}/review")
    card = ann.page.locator("#card")
    image = card.locator("input[name=image]").first
    said: dict[str, str] = {}
    withdrawn = 0

    def press(*keys: str, write: str = "") -> None:
        """Answer, and wait for another image."""
        before = image.input_value()
        ann.press(keys[0])
        if write:
            ann.write(write)
        ann.press(*keys[1:])
        expect(image).not_to_have_value(before)

    # If I answer in every way that there is,
    for number in range(IMAGES):
        key = str(card.locator(".one-line").first.text_content())
        picks = card.locator("button[name=label]")
        choices = [str(picks.nth(place).get_attribute("value")) for place in range(picks.count())]
        assert key not in said and len(choices) >= 3
        if number % 4 == 0:
            press("Enter")
            said[key] = choices[0]
        elif number % 4 == 1:
            press("2")
            said[key] = choices[1]
        elif number % 4 == 2:
            press("/", "Enter", write=f"of my own {number}")
            said[key] = f"of my own {number}"
        else:
            # and take some back, I expect the same image again,
            press("1")
            before = image.input_value()
            ann.press("u")
            expect(card.locator(".one-line").first).to_have_text(key)
            assert before != image.input_value()
            withdrawn += 1
            press("3")
            said[key] = choices[2]
    skipped = str(card.locator(".one-line").first.text_content())
    press("s")
    expect(card).to_contain_text(f"{IMAGES} of ")
    # and all of it kept under my name, the skipped one not.
    code, lines, complaint = stack.mill.imagemill("results", stack.labelled, "--reviewed")
    assert code == 0, complaint
    rows = [json.loads(line) for line in lines.splitlines()]
    assert {row["key"]: row["label"] for row in rows} == said and skipped not in said
    assert len(rows) == IMAGES and {row["reviewed_by"] for row in rows} == {OWNER}
    objects = [entry.key for entry in stack.api.store.list(f"jobs/{stack.labelled}/reviews/")]
    assert len(objects) == IMAGES + 2 * withdrawn
