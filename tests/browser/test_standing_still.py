"""A page that is left open says when its server is silent, goes on by itself, and lets its times go on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.browser.conftest import MODEL, OWNER, Stack
from tests.browser.person import Person

_SILENT = "The server does not answer"
_EXPECTED = ("status of 503", "ERR_FAILED", "htmx:", "Response Status Error Code 503")


def refuse(route: Route) -> None:
    """Answer as a proxy does that has lost its server."""
    route.fulfill(status=503, body="no upstream")


held: list[Route] = []


def drop(route: Route) -> None:
    """Answer as a host does on which no server listens."""
    route.abort()


def hold(route: Route) -> None:
    """Answer as a server does that stands still."""
    held.append(route)


@contextmanager
def page_that_cannot_follow(ann: Person, stack: Stack) -> Iterator[str]:
    """Open the page of a job that waits for its worker, with its events refused; yield the job's id."""
    stack.mill.pause("worker-0")
    try:
        job = stack.client.classify(stack.photos, model=MODEL, max_errors="10%").id
        ann.page.route("**/events", refuse)
        ann.visit(f"jobs/{job}")
        yield job
    finally:
        stack.mill.go_on("worker-0")


def test_a_jobs_page_outlives_a_server_that_is_away(ann: Person, stack: Stack) -> None:
    # Given a page of a job that cannot follow it,
    with page_that_cannot_follow(ann, stack):
        ann.page.evaluate("window.loaded = 'once'")
        # I expect it to say so, to those who hear it too.
        expect(ann.page.locator("#lost")).to_be_visible()
        expect(ann.page.locator("#said")).to_contain_text(_SILENT)
        # If the server is back, I expect it to go on without me.
        ann.page.unroute("**/events")
        expect(ann.page.locator("#lost")).to_be_hidden()
    ann.sees("succeeded")
    assert ann.page.evaluate("window.loaded") == "once"
    assert ann.complaints(*_EXPECTED) == []


def test_what_a_page_asks_for_once_is_asked_for_again(ann: Person, stack: Stack) -> None:
    ann.page.route("**/samples", refuse)
    ann.visit(f"jobs/{stack.labelled}")
    expect(ann.page.locator("#lost")).to_be_visible()
    ann.page.unroute("**/samples")
    ann.sees("First images")
    expect(ann.page.locator("#lost")).to_be_hidden()
    assert ann.complaints(*_EXPECTED) == []


def miss_an_end(ann: Person) -> None:
    """Open the list of jobs, and refuse what it asks for when a job ends."""
    ann.visit("jobs")
    ann.page.route("**/parts/ended*", refuse)
    ann.page.evaluate("document.body.dispatchEvent(new Event('ended'))")
    expect(ann.page.locator("#lost")).to_be_visible()


def test_a_list_that_is_asked_for_when_a_job_ends_is_asked_for_again(ann: Person) -> None:
    miss_an_end(ann)
    ann.page.unroute("**/parts/ended*")
    expect(ann.page.locator("#lost")).to_be_hidden()
    assert ann.complaints(*_EXPECTED) == []


def test_what_nobody_asks_for_any_more_is_not_waited_for(ann: Person) -> None:
    miss_an_end(ann)
    ann.page.evaluate("document.getElementById('ended').remove()")
    expect(ann.page.locator("#lost")).to_be_hidden()
    assert ann.complaints(*_EXPECTED) == []


@pytest.mark.parametrize("how", [drop, hold], ids=["unreachable", "hanging"])
def test_a_list_says_that_it_is_old(ann: Person, how: Callable[[Route], None]) -> None:
    ann.visit("jobs")
    held.clear()
    ann.page.route("**/parts/running*", how)
    expect(ann.page.locator("#lost")).to_be_visible()
    ann.page.unroute("**/parts/running*")
    expect(ann.page.locator("#lost")).to_be_hidden()
    expect(ann.page.locator("#said")).to_contain_text("The server answers again")
    assert ann.complaints(*_EXPECTED) == []


def test_the_page_of_a_job_that_was_deleted_meanwhile_says_so(ann: Person, stack: Stack) -> None:
    with page_that_cannot_follow(ann, stack) as job:
        stack.client.cancel(job)
        stack.client.remove_jobs([job])
        ann.sees("Unknown job")
    assert ann.complaints("status of 404", *_EXPECTED) == []


def test_times_go_on_while_a_page_is_open(ann: Person, stack: Stack) -> None:
    ann.page.clock.install()
    ann.visit(f"jobs/{stack.labelled}")
    expect(ann.page.locator("time").first).to_have_text(re.compile(r" (s|min) ago"))
    ann.page.clock.fast_forward("05:00:00")
    expect(ann.page.locator("time").first).to_have_text("5 h ago")
    ann.page.clock.fast_forward(72 * 3_600_000)
    expect(ann.page.locator("time").first).to_have_text("3 d ago")


def test_a_time_is_told_in_the_zone_of_the_browser_too(browser: Browser, stack: Stack) -> None:
    context = browser.new_context(timezone_id="Asia/Kathmandu")
    try:
        person = Person(context, stack.api.url)
        person.sign_in(stack.api.token("review", owner=OWNER))
        person.visit(f"jobs/{stack.labelled}")
        time = person.page.locator("time").first
        time.hover()
        expect(time).to_have_attribute("title", re.compile(r"^\d{4}-.* GMT\+5:45 \(\d{4}-.* UTC\)$"))
    finally:
        context.close()


def test_the_focus_and_what_was_opened_outlive_the_parts_of_a_page_that_are_replaced(ann: Person, stack: Stack) -> None:
    # Given the list of watches with the focus on one,
    ann.visit("watches")
    ann.press("j")
    with ann.page.expect_response("**/parts/watches") as answered:
        expect(ann.link("camera")).to_be_focused()
    answered.value.finished()
    # once it was replaced I expect the focus where it was.
    with ann.page.expect_response("**/parts/watches"):
        expect(ann.link("camera")).to_be_focused()
    # If I open something in a part of a job that runs, I expect it open in the next one too.
    stack.mill.pause("worker-0")
    try:
        job = stack.client.classify(stack.photos, model=MODEL, max_errors="10%").id
        numbers = count()
        ann.page.route(
            "**/samples",
            lambda route: route.fulfill(
                content_type="text/html",
                body=f'<details id="more"><summary id="open-more">More</summary>Part {next(numbers)}</details>',
            ),
        )
        ann.visit(f"jobs/{job}")
        ann.use(ann.page.locator("#open-more"))
        first = ann.page.locator("#more").inner_text()
        expect(ann.page.locator("#more")).not_to_have_text(first)
        expect(ann.page.locator("#more[open] #open-more")).to_be_focused()
    finally:
        stack.mill.go_on("worker-0")


def test_whoever_tries_a_model_sees_that_the_answer_is_awaited(ann: Person, photos: dict[str, Path]) -> None:
    ann.visit("try-it")
    held.clear()
    ann.page.route("**/console/try-it", hold)
    ann.page.get_by_label("Drop an image").set_input_files(photos["koala"])
    expect(ann.page.get_by_text("Waiting for the answer")).to_be_visible()
    held[0].continue_()
    ann.sees("Answered in")
    expect(ann.page.get_by_text("Waiting for the answer")).to_be_hidden()
