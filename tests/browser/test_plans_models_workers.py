"""Watches, schedules, models and workers by keyboard."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import MODEL, Stack
from tests.browser.person import Person


def test_a_watch_is_paused_and_goes_on(ann: Person, stack: Stack) -> None:
    ann.go("w", "watches")
    ann.press("j", "Enter")
    ann.is_at("watches/camera")
    ann.use(ann.button("Pause"))
    ann.sees("paused")
    assert stack.client.watch("camera").state == "paused"
    ann.use(ann.button("Unpause"))
    expect(ann.button("Pause")).to_be_visible()
    assert stack.client.watch("camera").state != "paused"
    ann.press("u")
    ann.is_at("watches")


def test_a_schedule_runs_now_and_leads_to_its_job(ann: Person, stack: Stack) -> None:
    ann.go("s", "schedules")
    ann.press("j", "Enter")
    ann.is_at("schedules/nightly")
    ann.sees("0 2 1 1 *", "No tick has come yet.")
    ann.use(ann.button("Run now"))
    ann.sees("by hand")
    ann.tab_to(ann.page.locator("main td a.row").first)
    ann.press("Enter")
    ann.page.wait_for_url(re.compile("/console/jobs/nightly-"))
    ann.sees("succeeded")
    ann.visit("schedules/nightly")
    ann.use(ann.button("Pause"))
    ann.use(ann.button("Unpause"))
    expect(ann.button("Pause")).to_be_visible()


def test_a_model_has_a_card_and_gets_an_alias(ann: Person, stack: Stack) -> None:
    ann.go("m", "models")
    names = ann.page.locator("main tbody a.row")
    first = names.first.text_content()
    # If I press a heading twice, I expect the other end of the table first.
    ann.use(ann.button("Model"))
    ann.press("Enter")
    expect(ann.page.get_by_role("columnheader", name="Model")).to_have_attribute("aria-sort", "descending")
    assert names.first.text_content() != first
    ann.use(ann.link(MODEL))
    ann.page.wait_for_url(re.compile(f"/console/models/{MODEL}"))
    ann.sees("Card", "Apache")
    # If I type an alias beside a version, I expect it to stand for it.
    ann.tab_to(ann.page.get_by_label("Alias for version 1"))
    ann.write("production")
    ann.press("Enter")
    ann.sees("@production")
    assert stack.client.aliases(MODEL) == {"production": 1}


def test_workers_and_queues_are_shown_and_keep_the_focus(ann: Person) -> None:
    ann.go("o", "workers")
    ann.sees("worker-0", "openvino", "Queues", "classify")
    # Given the focus on a button of a part that is loaded again by itself, I expect it to stay there.
    drain = ann.button("Drain")
    ann.tab_to(drain)
    drain.evaluate("button => (button.dataset.old = 'yes')")
    expect(drain).not_to_have_attribute("data-old", "yes")
    expect(drain).to_be_focused()


def test_a_dataset_leads_to_its_images_and_a_slider_answers_to_keys(ann: Person, stack: Stack) -> None:
    ann.visit("datasets")
    ann.press("j", "Enter")
    ann.is_at(f"datasets/{stack.dataset}")
    ann.use(ann.link("browse its images"))
    ann.is_at(f"jobs/{stack.made}/images")
    kept = ann.page.locator("#kept")
    expect(kept).to_contain_text("20 of 20 accepted images stay")
    # If I move the slider of the score to its end, I expect what that would keep, and the focus to stay.
    slider = ann.page.get_by_role("slider", name="Score of the class filter")
    ann.tab_to(slider)
    ann.press("End")
    expect(kept).to_contain_text("Would go, nearest to the edge first")
    expect(slider).to_be_focused()
