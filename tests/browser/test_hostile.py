"""Markup, quotes and characters that turn or hide text stay text in a real browser, wherever strangers can put them."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote

from playwright.sync_api import expect

from contract.jobs.specs import Classify, Source
from contract.keys.jobs import JobKeys
from contract.keys.models import model_file, model_record
from contract.models.registry import Model, Preprocess, make_file
from tests.browser.conftest import MODEL, OWNER, Stack
from tests.browser.pages import paths
from tests.browser.person import Person
from tests.producer.web.console.rows import commit_rows, end

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script><b onmouseover=alert(3)>"
HOSTILE = f"{MARKUP}'\"</title></textarea>{{{{7*7}}}}\u202egnp.exe\u2066\x07\x1b[31m"
_ALIVE = "document.querySelectorAll('[onerror], [onmouseover], script:not([src]), img[src=x]').length"
_TURNS = "/[\\u0000-\\u0008\\u000b\\u001b\\u202a-\\u202e\\u2066-\\u2069]/.test(document.documentElement.textContent)"
JOB = "hostile"
REF = "hostile@1"


def plant(stack: Stack) -> None:
    """Put hostile text everywhere: a model, a job with its rows, failures and metrics, a watch and a schedule."""
    store = stack.api.store
    card = HOSTILE.encode()
    model = Model(
        name="hostile",
        version=1,
        family="cnn",
        labels=(HOSTILE, f"{HOSTILE}2"),
        preprocess=Preprocess(size=32, crop=1.0, interpolation="bicubic", mean=127.5, std=127.5, channels=3),
        weights=make_file("weights.safetensors", b"x"),
        files=(make_file("card.md", card),),
        card="card.md",
        license=HOSTILE,
        source=HOSTILE,
        owner=OWNER,
        metrics={MARKUP: 0.5},
    )
    store.put(model_record("hostile", 1), model.to_json())
    store.put(model_file("hostile", 1, "card.md"), card)
    spec = Classify(
        id=JOB,
        source=Source(kind="prefix", uri="s3://pictures/x/", label=HOSTILE),
        model=REF,
        weights_sha256="0" * 64,
        output=f"s3://{store.bucket}/{JobKeys(JOB).root}out/",
    )
    envelope = {"created_at": "2026-11-24T04:00:00.000Z", "owner": OWNER, "spec": spec.model_dump()}
    store.put(JobKeys(JOB).spec, json.dumps(envelope).encode())
    top = [{"label": HOSTILE, "label_index": 0, "score": 0.6}, {"label": f"{HOSTILE}2", "label_index": 1, "score": 0.4}]
    rows = [{"key": f"{HOSTILE}{n}", "label": HOSTILE, "score": 0.6, "top_k": top, "model": REF} for n in range(3)]
    bad = {"key": f"{HOSTILE}-bad", "status": "error", "error_code": HOSTILE, "error_message": HOSTILE}
    commit_rows(store, JOB, [*rows, bad])
    counts = {"ok": 3, "errors": 1, "done": 4, "total": 4, "labels": {HOSTILE: 3}, "error_codes": {HOSTILE: 1}}
    end(stack.mill.settings, store, JOB, model=REF, reason=HOSTILE, metrics={MARKUP: 0.5}, **counts)
    source = f"s3://pictures/{MARKUP}'\"/"
    stack.mill.bucket("pictures").put(f"{MARKUP}'\"/a.jpg", b"no image")
    stack.client.add_watch("odd", source, model=MODEL)
    stack.client.add_schedule("odd", "classify", {"source": source, "model": MODEL}, cron="0 2 1 1 *")


def test_what_strangers_name_stays_text(ann: Person, people: Callable[..., Person], stack: Stack) -> None:
    plant(stack)
    shown = 0
    places = [
        *paths(JOB, REF, stack.made, stack.dataset, stack.webhook),
        "watches/odd",
        "schedules/odd",
        f"sign-in?next={quote(HOSTILE)}",
    ]
    for path in places:
        ann.visit(path)
        if path == f"jobs/{JOB}":
            ann.sees("First images", "Images that failed")
        # I expect neither elements nor characters from the text of others to be at work,
        assert ann.page.evaluate(_ALIVE) == 0, path
        assert not ann.page.evaluate(_TURNS), path
        shown += MARKUP in ann.page.inner_text("body")
        # and nothing to complain about but pictures and a job that are not there.
        assert ann.complaints("status of 404", "status of 422") == [], path
    assert shown >= 8


def test_what_a_person_types_stays_text(ann: Person, stack: Stack) -> None:
    # If I type it as a label of my own, and take it back,
    ann.visit(f"jobs/{JOB}/review")
    image = ann.page.locator("#card input[name=image]").first
    before = image.input_value()
    ann.press("/")
    ann.page.keyboard.insert_text(MARKUP)
    ann.press("Enter")
    expect(image).not_to_have_value(before)
    ann.press("u")
    expect(image).to_have_value(before)
    # as the model of a job, and as the name of an image to try,
    ann.visit("new/classify")
    ann.tab_to(ann.page.get_by_label("Source", exact=True))
    ann.page.keyboard.insert_text(MARKUP)
    ann.tab_to(ann.page.get_by_label("Model", exact=True))
    ann.page.keyboard.insert_text(HOSTILE)
    ann.press("Enter")
    expect(ann.page.get_by_role("alert")).to_be_visible()
    expect(ann.page.get_by_label("Source", exact=True)).to_have_value(MARKUP)
    assert ann.page.evaluate(_ALIVE) == 0
    ann.visit("try-it")
    with ann.page.expect_file_chooser() as chooser:
        ann.press("o")
    chooser.value.set_files({"name": f"{MARKUP}.jpg".replace("/", ""), "mimeType": "image/jpeg", "buffer": b"x"})
    expect(ann.page.locator("#answer")).to_contain_text("not_an_image")
    # I expect it to be nothing but text.
    assert ann.page.evaluate(_ALIVE) == 0
    assert ann.complaints("status of 404", "status of 422") == []
