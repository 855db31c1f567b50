"""Signing in and out with the keyboard, and what a token that may less, or nothing any more, leads to."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import expect

from contract.web.tokens import new_token
from tests.browser.conftest import OWNER, Stack
from tests.browser.person import Person

_UNAUTHORIZED = r"status of 401"


def test_a_token_lets_in_and_leads_to_the_page_that_was_asked_for(people: Callable[..., Person], stack: Stack) -> None:
    person = people()
    person.visit(f"jobs/{stack.labelled}")
    # Given a token that nobody made, I expect a sentence, and the field again.
    person.give(new_token())
    expect(person.page.get_by_role("alert")).to_have_text("This token is unknown, revoked or expired.")
    expect(person.page.get_by_label("Token")).to_be_focused()
    assert person.complaints(_UNAUTHORIZED) == []
    # If I then give one that is known, I expect the page that I asked for, and no token in any address or page.
    token = stack.api.token("jobs", owner=OWNER)
    person.give(token)
    person.is_at(f"jobs/{stack.labelled}")
    person.sees(stack.labelled)
    assert token not in person.page.content() and token not in person.page.url
    # Scripts cannot read the cookie.
    assert person.page.evaluate("document.cookie") == ""
    # If I sign out, I expect the pages to be shut, also to the button Back.
    person.use(person.button("Sign out"))
    person.is_at("sign-in")
    person.page.go_back()
    person.page.reload()
    expect(person.page.get_by_label("Token")).to_be_visible()


def test_an_address_with_a_token_signs_nobody_in_by_itself(people: Callable[..., Person], stack: Stack) -> None:
    person = people()
    person.visit(f"sign-in#{stack.api.token('jobs', owner=OWNER)}")
    expect(person.button("Sign in")).to_be_focused()
    expect(person.page).to_have_url(re.compile("/console/sign-in$"))
    person.press("Enter")
    person.is_at("jobs")


def test_a_revoked_token_is_out_while_its_page_is_open(people: Callable[..., Person], stack: Stack) -> None:
    person, token = people(), stack.api.token("jobs", owner=OWNER)
    person.sign_in(token)
    # If the token is revoked, I expect the page, which asks for news by itself, to ask who I am.
    stack.tokens().revoke(token)
    person.is_at("sign-in")
    assert person.complaints(_UNAUTHORIZED) == []


def test_a_token_that_may_less_sees_less_and_is_told_so(people: Callable[..., Person], stack: Stack) -> None:
    reader = people()
    reader.sign_in(stack.api.token("review", owner=OWNER), f"jobs/{stack.labelled}")
    expect(reader.button("Retry")).to_have_count(0)
    expect(reader.link("Workers")).to_have_count(0)
    reader.visit("new/classify")
    reader.sees("This token may not do this: it needs the scope jobs, and has review.")
    assert reader.complaints("status of 403") == []
    # A token for single images begins where it may be used, and leads on from a page that is not for it.
    asker = people()
    asker.visit("")
    asker.give(stack.api.token("infer", owner="bob"))
    asker.is_at("try-it")
    asker.visit("jobs")
    asker.sees("it needs the scope review, and has infer")
    assert asker.complaints("status of 403") == []
    asker.use(asker.link("Try it"))
    asker.is_at("try-it")
