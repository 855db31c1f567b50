"""Jobs by keyboard: started from a form, followed in a list and on a page, canceled, resumed and deleted."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.conftest import MODEL, OWNER, Stack
from tests.browser.person import Person
from tests.producer.web.console.rows import end


def test_a_job_is_started_from_a_form_followed_and_canceled(
    ann: Person, people: Callable[..., Person], stack: Stack
) -> None:
    # Given a second window with the list of jobs, which is never loaded again,
    watcher = people()
    watcher.sign_in(stack.api.token("review", owner=OWNER))
    watcher.page.evaluate("window.loaded = 'once'")
    running, ended = watcher.page.locator("#running"), watcher.page.locator("#ended")
    # and a worker that stands still, so that jobs wait for as long as I look at them,
    stack.mill.pause("worker-0")
    try:
        for name in ("to-cancel", "to-follow"):
            ann.visit("jobs")
            ann.press("c")
            ann.is_at("new/classify")
            ann.tab_to(ann.page.get_by_label("Source", exact=True))
            ann.write(stack.photos)
            ann.tab_to(ann.page.get_by_label("Model", exact=True))
            ann.write(MODEL)
            ann.use(ann.page.get_by_text("Options", exact=True))
            ann.tab_to(ann.page.get_by_label("Job", exact=True))
            ann.write(name)
            ann.tab_to(ann.page.get_by_label("Max errors", exact=True))
            ann.write("10%")
            ann.press("Enter")
            ann.is_at(f"jobs/{name}")
            # I expect each in the other window by itself.
            expect(running).to_contain_text(name)
        # If I cancel one, I expect its page to say so, and the other window to move it by itself.
        ann.visit("jobs")
        ann.press("j", "j", "Enter")
        ann.is_at("jobs/to-cancel")
        ann.use(ann.button("Cancel"))
        ann.sees("canceled")
        expect(ann.button("Resume")).to_be_visible()
        expect(ended).to_contain_text("to-cancel")
        # If the worker goes on, I expect the job's open page to follow it to its end, with its labels and pictures.
        ann.visit("jobs/to-follow")
        ann.page.evaluate("window.loaded = 'once'")
        expect(ann.button("Cancel")).to_be_visible()
    finally:
        stack.mill.go_on("worker-0")
    ann.sees("succeeded", "Labels", "Images that failed", "First images")
    assert ann.page.evaluate("window.loaded") == "once"
    expect(ann.button("Cancel")).to_have_count(0)
    expect(ended).to_contain_text("to-follow")
    expect(running).not_to_contain_text("to-follow")
    assert watcher.page.evaluate("window.loaded") == "once"
    # If I delete one, I expect it to be gone.
    ann.visit("jobs/to-cancel")
    ann.use(ann.page.get_by_text("Everything about this job", exact=True))
    ann.use(ann.button("Delete for good"))
    ann.is_at("jobs")
    expect(ann.link("to-cancel")).to_have_count(0)


def test_a_mistake_in_a_form_costs_nothing_that_was_typed(ann: Person, stack: Stack) -> None:
    ann.visit("new/classify")
    source = ann.page.get_by_label("Source", exact=True)
    ann.tab_to(source)
    ann.write(stack.photos)
    ann.tab_to(ann.page.get_by_label("Model", exact=True))
    ann.write("efficentnet")
    ann.press("Enter")
    expect(ann.page.get_by_role("alert")).to_contain_text("efficentnet")
    expect(source).to_have_value(stack.photos)
    assert ann.complaints("status of 4(04|22)") == []


def test_a_jobs_page_leads_by_keys_to_its_report_its_review_and_back(ann: Person, stack: Stack) -> None:
    ann.visit("jobs")
    ann.tab_to(ann.link(stack.labelled))
    ann.press("Enter")
    ann.is_at(f"jobs/{stack.labelled}")
    ann.sees("Images that failed", "not_an_image")
    ann.press("v")
    ann.is_at(f"jobs/{stack.labelled}/review")
    ann.visit(f"jobs/{stack.labelled}")
    ann.press("u")
    ann.is_at("jobs")
    for key, place in (("w", "watches"), ("s", "schedules"), ("m", "models"), ("t", "try-it"), ("o", "workers")):
        ann.go(key, place)
        ann.go("j", "jobs")
    # The report is a page that may run nothing; its worker writes it when it is asked for.
    ann.visit(f"jobs/{stack.labelled}")
    ann.press("r")
    ann.is_at(f"jobs/{stack.labelled}/report")
    expect(ann.page.locator("body")).to_contain_text("Least certain images")


def test_on_a_phone_the_list_shows_whole_numbers_and_how_long_a_job_takes(ann: Person, stack: Stack) -> None:
    # Given a job of a million images that all failed, with the longest name that there is,
    name = "n" + "-ame" * 15 + "-x"
    job = stack.client.classify(stack.photos, model=MODEL, job=name, max_errors="10%")
    stack.mill.finished(job.id)
    counts = {"ok": 0, "errors": 1_234_567, "done": 1_234_567, "total": 1_234_567, "model": f"{MODEL}@1"}
    end(stack.mill.settings, stack.api.store, job.id, state="failed", reason="!", **counts)
    ann.page.set_viewport_size({"width": 390, "height": 844})
    ann.visit("jobs")
    row = ann.page.get_by_role("row").filter(has_text=name)
    expect(row).to_contain_text("ago")
    for cell in (row.locator(".count"), row.locator(".bad"), row.locator("time")):
        box = cell.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] < 40
