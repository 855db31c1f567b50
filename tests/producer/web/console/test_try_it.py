"""Trying a served model in the console; a thread stands in for the worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from contract.backend.objects import ObjectStore
from contract.keys.online import served_record
from contract.online.served import Served
from contract.settings import Settings
from tests.producer.web.console.conftest import Browse
from tests.producer.web.test_online import Worker, maker

__all__ = ["maker"]

PLACE = "/console/try-it"
HTMX = {"HX-Request": "true"}


@pytest.fixture
def worker(settings: Settings, store: ObjectStore) -> Iterator[Worker]:
    record = Served(name="birds", version=1, task="classify", created_at="2026-11-26T00:00:00Z")
    store.put(served_record("birds", 1), record.to_json())
    with closing(Worker(settings)) as made:
        yield made


@pytest.mark.usefixtures("worker")
def test_an_image_is_answered_on_the_page(browse: Browse) -> None:
    client = browse("infer")
    assert 'value="birds@1"' in client.get(PLACE).text
    # If I choose an image, I expect its labels and the latency as a part of the page,
    answer = client.post(PLACE, data={"model": "birds@1"}, files={"image": ("o.jpg", b"an owl")}, headers=HTMX)
    assert "owl 0" in answer.text and " ms</dd>" in answer.text and "<html" not in answer.text
    # as a whole page without scripts,
    answer = client.post(PLACE, data={"model": "birds@1"}, files={"image": ("o.jpg", b"an owl")})
    assert "owl 0" in answer.text and "<html" in answer.text and " selected" in answer.text
    # and the sentence of a bad image where it would have been.
    answer = client.post(PLACE, data={"model": "birds@1"}, files={"image": ("o.jpg", b"bad")}, headers=HTMX)
    assert answer.status_code == 200 and "not_an_image" in answer.text


@pytest.mark.usefixtures("worker")
def test_what_cannot_be_asked_is_a_sentence(browse: Browse) -> None:
    client = browse("infer")
    for files, model, status in (
        ({"image": ("o.jpg", b"")}, "birds@1", 422),
        ({"image": ("o.jpg", b"an owl")}, "nothing", 404),
        ({"image": ("o.jpg", b"x" * (17 * 2**20))}, "birds@1", 413),
    ):
        answer = client.post(PLACE, data={"model": model}, files=files, headers=HTMX)
        assert answer.status_code == status and 'role="alert"' in answer.text and "<html" not in answer.text
    assert browse("jobs").get(PLACE).status_code == 403


def test_without_a_served_model_the_page_says_how_to_serve_one(browse: Browse) -> None:
    assert "imagemill serve" in browse("admin").get(PLACE).text


@pytest.mark.usefixtures("maker")
def test_images_are_generated_on_the_page(browse: Browse) -> None:
    client, place = browse("infer"), f"{PLACE}/images"
    assert 'value="painter@1"' in client.get(PLACE).text
    wanted = {"model": "painter@1", "label": "owl", "seed": "7", "count": "3"}
    # If I ask for images, I expect them in the part of the page, with the command of the job that makes them,
    answer = client.post(place, data=wanted, headers=HTMX)
    assert answer.text.count('src="data:image/png;base64,') == 3 and "<html" not in answer.text
    assert '--seed 7 --class "owl" --count 3' in answer.text
    # and in a whole page without scripts, which keeps what I asked for.
    whole = client.post(place, data=wanted).text
    assert "<html" in whole and 'value="owl"' in whole and whole.count("data:image/png") == 3
    for wrong, status in (({"label": "<b>"}, 422), ({"seed": "x"}, 422), ({"count": "25"}, 422), ({"model": "x"}, 404)):
        answer = client.post(place, data=wanted | wrong, headers=HTMX)
        assert answer.status_code == status and 'role="alert"' in answer.text and "<b>" not in answer.text
