"""Watches, schedules, models and workers by keyboard."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import MODEL, OWNER, Stack
from tests.browser.person import Person
from tests.hooks import told_webhook


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


def test_on_a_phone_an_event_has_its_name_on_one_line_and_the_page_its_link_in_sight(ann: Person, stack: Stack) -> None:
    ann.page.set_viewport_size({"width": 390, "height": 844})
    ann.visit(f"webhooks/{stack.webhook}")
    expect(ann.page.locator("tbody th .word").first).to_contain_text("job.")
    lines = ann.page.locator("tbody th .word").evaluate_all("all => all.map(one => one.getClientRects().length)")
    assert set(lines) == {1}
    link = ann.page.locator("header [aria-current]").bounding_box()
    assert link is not None and link["x"] >= 0 and link["x"] + link["width"] <= 390


def test_a_message_is_sent_again_and_its_webhook_removed(ann: Person, stack: Stack) -> None:
    # Given a webhook of which two messages were given up,
    id = told_webhook(stack.api.store, OWNER, "/keyboard", ("failed", "failed"))
    ann.press("g", "h")
    ann.is_at("webhooks")
    ann.use(ann.page.locator(f"a.row[href$='{id}']"))
    ann.is_at(f"webhooks/{id}")
    ann.sees("http://127.0.0.1:9/…", "500 in 0.20 s", "2 failed")
    # if I have one sent again, and then the rest, I expect them to wait, and the page to follow what becomes of them,
    ann.use(ann.button("Send job.succeeded of job-0 again"))
    ann.sees("1 waiting, 1 failed")
    ann.use(ann.button("Send what failed again"))
    ann.sees("2 waiting", "no answer")
    # and if I remove it, that it is gone.
    ann.use(ann.page.locator("summary"))
    ann.use(ann.button("Remove for good"))
    ann.is_at("webhooks")
    expect(ann.page.locator(f"a.row[href$='{id}']")).to_have_count(0)
    assert id not in [one.id for one in stack.client.webhooks()]
    # The page may have asked once more while it was being removed.
    asked = rf"at \S+/{id}/part: .* 404|Response Status Error Code 404 from /console/webhooks/{id}/part"
    assert ann.complaints(asked) == []


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
