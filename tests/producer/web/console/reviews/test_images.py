"""Reviewing in the console: what is shown next, what a key writes, and what `--reviewed` gives."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.jobs.reviews.records import image_id
from contract.keys.jobs import JobKeys
from contract.settings import Settings
from tests.producer.web.console.conftest import Browse
from tests.producer.web.console.jobs.test_listing import HOSTILE, submit
from tests.producer.web.console.rows import commit_rows, end
from tests.serving import Api
from worker.classify import neighbours

HTMX = {"HX-Request": "true"}


def row(key: str, first: float, label: str = "disc") -> dict[str, object]:
    top = [
        {"label": label, "label_index": 0, "score": first},
        {"label": "square", "label_index": 1, "score": 1 - first},
    ]
    return {"key": key, "label": label, "score": first, "top_k": top, "sha256": "0" * 64, "model": "shapes@1"}


@pytest.fixture
def job(api: Api, model: str, settings: Settings, store: ObjectStore) -> str:
    """A job with three labels, of which `b` is the least certain and `a` the most."""
    id = submit(api, model)
    commit_rows(store, id, [row("a", 0.99), row("b", 0.51), row("c", 0.7)])
    end(settings, store, id, ok=3, done=3, total=3, model="shapes@1")
    return id


def fields(page: str) -> dict[str, str]:
    """What the first form of the image would send beside its button."""
    form = page.partition('id="card"')[2].partition("</form>")[0]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))


def shown(page: str) -> str:
    found = re.search(r'<div class="one-line" title="[^"]*">(\w+)</div>', page)
    return found[1] if found else ""


def test_the_least_certain_comes_first_and_verdicts_are_kept_and_undone(api: Api, browse: Browse, job: str) -> None:
    client = browse("review", owner="ann")
    place = f"/console/jobs/{job}/review"
    assert place in client.get(f"/console/jobs/{job}").text
    page = client.get(place)
    assert shown(page.text) == "b" and "0 of 3 reviewed" in page.text and 'value="square" data-go="2"' in page.text
    # If I accept, pick another, and then skip, I expect the next in order each time.
    part = client.post(place, data={**fields(page.text), "label": "disc"}, headers=HTMX).text
    assert part.startswith("<section") or "<html" not in part
    assert shown(part) == "c" and "1 of 3 reviewed" in part
    part = client.post(place, data={**fields(part), "label": "square"}, headers=HTMX).text
    assert shown(part) == "a"
    # An undo shows the last image again,
    part = client.post(place, data={**fields(part), "undo": "true"}, headers=HTMX).text
    assert shown(part) == "c" and "1 of 3 reviewed" in part
    # a skip leaves it for the end,
    part = client.post(place, data=fields(part), headers=HTMX).text
    assert shown(part) == "a"
    part = client.post(place, data={**fields(part), "label": " a new class "}, headers=HTMX).text
    assert shown(part) == "c" and "2 of 3 reviewed" in part
    # and when all are done the page says what to do with them.
    part = client.post(place, data={**fields(part), "label": "disc"}, headers=HTMX).text
    assert "--reviewed" in part and "3 of 3 reviewed" in part
    with api.client("review") as other:
        rows = other.get(f"/v1/jobs/{job}/results", params={"status": "reviewed"}).text.splitlines()
    assert [part for part in rows if '"label": "a new class"' in part and '"predicted": "disc"' in part]
    assert len(rows) == 3 and all('"reviewed_by": "ann"' in one for one in rows)


def test_without_scripts_the_buttons_do_the_same(browse: Browse, job: str) -> None:
    client = browse("review")
    place = f"/console/jobs/{job}/review"

    def press(page: str, name: str) -> str:
        """Send the form of a button as a browser without scripts does; return the page that follows."""
        form = next(one for one in re.findall(r"<form.*?</form>", page, re.DOTALL) if f">{name}<" in one)
        action = str(re.findall(r' action="([^"]*)"', form)[0]).replace("&amp;", "&")
        given = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))
        chosen = dict(re.findall(rf'<button name="(label)" value="({name})"', form))
        answer = client.post(action, data={**given, **chosen}, follow_redirects=True)
        assert answer.status_code == 200 and "<html" in answer.text
        return answer.text

    # If I skip the first image and accept the second, I expect the third, in the same order,
    page = client.get(place, params={"by": "entropy"}).text
    assert shown(page) == "b"
    page = press(page, "Skip")
    assert shown(page) == "c"
    page = press(page, "disc")
    assert shown(page) == "a" and "1 of 3 reviewed" in page
    assert 'href="?by=entropy&amp;show=new" aria-current="true"' in page
    # and the second one again with Undo, then, after another one, the first.
    page = press(page, "Undo")
    assert shown(page) == "c" and "0 of 3 reviewed" in page
    page = press(page, "Undo")
    assert shown(page) == "b"
    assert ">Undo<" not in page


def test_who_skips_many_images_comes_to_the_others(
    api: Api, browse: Browse, model: str, settings: Settings, store: ObjectStore
) -> None:
    id = submit(api, model)
    rows = [row(f"k{n:03d}", 0.5 + n / 1000) for n in range(200)]
    commit_rows(store, id, rows)
    end(settings, store, id, ok=200, done=200, total=200, model="shapes@1")
    client, place = browse("review"), f"/console/jobs/{id}/review"
    page = client.get(place).text
    assert shown(page) == "k000"
    # If all but the last two were skipped and I skip one more, I expect the last.
    images = [image_id(str(one["key"]), f"s3://{store.bucket}/photos/{one['key']}") for one in rows]
    given = {**fields(page), "image": images[198], "skipped": " ".join(images[:198])}
    part = client.post(place, data=given, headers=HTMX).text
    assert shown(part) == "k199" and fields(part)["skipped"].split() == images[:199]
    # If I skip that one too, I expect the skipped ones again, one after the other.
    for image, following in ((images[199], "k000"), (images[0], "k001"), (images[1], "k002")):
        part = client.post(place, data={**fields(part), "image": image}, headers=HTMX).text
        assert shown(part) == following


def test_strangers_and_forged_forms_write_nothing(api: Api, browse: Browse, job: str) -> None:
    client, stranger = browse("review"), browse("jobs", owner="bob")
    place = f"/console/jobs/{job}/review"
    given = {**fields(client.get(place).text), "label": "disc"}
    assert stranger.get(place).status_code == stranger.post(place, data=given).status_code == 404
    assert client.post(place, data={**given, "image": "0" * 24}).status_code == 409
    assert client.post(place, data={**given, "label": "x" * 1500}).status_code == 422
    assert client.post(place, data={"undo": "true", "done": "../../spec.json"}).status_code == 422
    nothing = f"{'0' * 24}/{'0' * 13}-{'0' * 8}"
    assert client.post(place, data={"undo": "true", "done": nothing}).status_code == 409
    assert client.post(place, data=given, headers={"Origin": "https://evil"}).status_code == 403
    assert list(api.store.list(f"jobs/{job}/reviews/")) == []
    # An admin reviews too, but takes back nothing of ann's.
    part = client.post(place, data=given, headers=HTMX).text
    undo = {**fields(part), "undo": "true"}
    assert browse("admin", owner="root").post(place, data=undo).status_code == 409


def test_a_hostile_label_is_picked_as_text(
    api: Api, browse: Browse, model: str, settings: Settings, store: ObjectStore
) -> None:
    id = submit(api, model)
    commit_rows(store, id, [row(HOSTILE, 0.6, label=HOSTILE)])
    end(settings, store, id, ok=1, done=1, total=1, model="shapes@1")
    page = browse("review").get(f"/console/jobs/{id}/review").text
    assert "<img src=x" not in page and "&lt;img src=x" in page


def test_a_job_without_labels_has_no_review(api: Api, browse: Browse, model: str) -> None:
    assert browse("review").get(f"/console/jobs/{submit(api, model)}/review").status_code == 409


def test_a_second_person_reviews_without_seeing_the_first_and_what_differs_is_settled(
    api: Api, browse: Browse, job: str
) -> None:
    ann, bob, eve = (browse("review", person=name) for name in ("ann", "bob", "eve"))
    place = f"/console/jobs/{job}/review"

    def say(client: Any, show: str, label: str, wanted: str) -> str:
        page = client.get(place, params={"show": show}).text
        assert shown(page) == wanted, page
        return str(client.post(place, data={**fields(page), "label": label}, headers=HTMX).text)

    # Given two images that ann reviewed,
    say(ann, "new", "square", "b")
    say(ann, "new", "disc", "c")
    # I expect bob to see both, and nothing of what ann said, and her to see none of them again.
    page = bob.get(place, params={"show": "second"}).text
    card = page.partition('id="card"')[2].partition("</section>")[0]
    assert shown(page) == "b" and "ann" not in card
    assert "You have reviewed every image that others did" in ann.get(place, params={"show": "second"}).text
    say(bob, "second", "disc", "b")
    say(bob, "second", "disc", "c")
    # What differs is disputed: it is shown with what was said,
    page = eve.get(place, params={"show": "disputed"}).text
    card = page.partition('id="card"')[2].partition("</section>")[0]
    assert shown(page) == "b" and "ann: <strong>square" in card and "bob: <strong>disc" in card
    # with figures beside it: they agree on one of two, and would on half by chance.
    assert "ann, bob" in page and "50.0 %" in page and "0.00" in page and "disputed" in page
    # Once a third person has said it, it is settled,
    assert "No image is disputed" in say(eve, "disputed", "square", "b")
    with api.client("review") as other:
        found = other.get(f"/v1/jobs/{job}/reviews").json()
        rows = other.get(f"/v1/jobs/{job}/results", params={"status": "reviewed"}).text
    assert (found["images"], found["disputed"], found["changed"]) == (2, 0, 1)
    assert [one["label"] for one in found["disagreements"]] == ["square"]
    assert '"reviewed_by": "eve"' in rows and '"disputed": false' in rows
    # until that is undone.
    page = eve.get(place, params={"show": "second"}).text
    assert shown(page) == "c"


def test_two_people_at_once_are_shown_different_images(
    browse: Browse, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob, eve = (browse("review", person=name) for name in ("ann", "bob", "eve"))
    place = f"/console/jobs/{job}/review"
    # Given ann, who is shown the first image and has the next one ready, I expect bob to get the third,
    page = ann.get(place).text
    assert shown(page) == "b"
    other = bob.get(place).text
    assert shown(other) == "a"
    # her own to stay first however often she looks, and nobody to be without an image.
    assert shown(ann.get(place).text) == "b" and shown(eve.get(place).text) == "b"
    # If she answers, I expect her to go on with what she has ready.
    part = ann.post(place, data={**fields(page), "label": "disc"}, headers=HTMX).text
    assert shown(part) == "c"
    # What she takes back is shown to her again, whoever else was shown it.
    part = ann.post(place, data={**fields(part), "undo": "true"}, headers=HTMX).text
    assert shown(part) == "b"
    # A minute later it is anybody's.
    monkeypatch.setattr("producer.web.console.reviews.queues._SHOWN_SECONDS", 0.0)
    for client in (ann, bob, eve, bob):
        page = client.get(place).text
    assert shown(page) == "b"


def test_two_people_who_are_shown_one_image_both_have_their_say(
    api: Api, browse: Browse, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.web.console.reviews.queues._SHOWN_SECONDS", 0.0)
    ann, bob = (browse("review", person=name) for name in ("ann", "bob"))
    place = f"/console/jobs/{job}/review"
    pages = [(client, client.get(place).text) for client in (ann, bob)]
    for client, page in pages:
        assert shown(page) == "b"
        part = client.post(place, data={**fields(page), "label": "square"}, headers=HTMX)
        assert part.status_code == 200 and shown(part.text) == "c"
    with api.client("review") as other:
        (pair,) = other.get(f"/v1/jobs/{job}/reviews").json()["pairs"]
    assert (pair["a"], pair["b"], pair["images"], pair["agreed"]) == ("ann", "bob", 1, 1)
    # Who looks at what others reviewed may be overtaken too, and a dispute settled before one answers.
    bob.post(place, data={**fields(bob.get(place).text), "label": "square"})
    page = ann.get(place, params={"show": "second"}).text
    assert shown(page) == "c"
    ann.post(place, data={**fields(page), "label": "disc"})
    eve, joe = (browse("review", person=name) for name in ("eve", "joe"))
    pages = [(client, client.get(place, params={"show": "disputed"}).text) for client in (eve, joe)]
    for client, page in pages:
        assert shown(page) == "c"
        assert client.post(place, data={**fields(page), "label": "disc"}, headers=HTMX).status_code == 200


def test_a_stranger_sees_no_agreement(api: Api, browse: Browse, job: str) -> None:
    with api.client("review", owner="bob") as other:
        assert other.get(f"/v1/jobs/{job}/reviews").status_code == 404
    with api.client("infer") as other:
        assert other.get(f"/v1/jobs/{job}/reviews").status_code == 403


def clustered(key: str, label: str, angle: float, score: float = 0.9) -> dict[str, object]:
    """A row whose embedding points in a direction, in degrees."""
    return {**row(key, score, label), "embedding": [math.cos(math.radians(angle)), math.sin(math.radians(angle))]}


@pytest.fixture
def embedded(api: Api, model: str, settings: Settings, store: ObjectStore) -> str:
    """A job with twelve discs that are alike, twelve squares that are alike, and a square among the discs."""
    id = submit(api, model, embed=True)
    discs = [clustered(f"disc{n}", "disc", n / 10, 0.80 + n / 100) for n in range(12)]
    squares = [clustered(f"square{n}", "square", 80 + n / 10, 0.80 + n / 100) for n in range(12)]
    commit_rows(store, id, discs, shard=0)
    commit_rows(store, id, [*squares, clustered("odd", "square", 0.55, 0.99)], shard=1)
    end(settings, store, id, ok=25, done=25, total=25, model="shapes@1")
    return id


def test_a_sure_label_against_its_neighbours_comes_first(browse: Browse, embedded: str, store: ObjectStore) -> None:
    client = browse("review")
    place = f"/console/jobs/{embedded}/review"
    # Given a job whose images nobody has compared yet, I expect the page to have that done, and to look again,
    page = client.get(place, params={"by": "neighbours"}).text
    assert "A worker compares the images now" in page and 'data-reload="5"' in page and not shown(page)
    # and once a worker has done it,
    neighbours.write(store, embedded)
    page = client.get(place, params={"by": "neighbours"}).text
    # the one that stands out, of which the model was the surest of all, with the reason.
    assert shown(page) == "odd" and "100% of the nearest images carry another label, most of them disc." in page
    assert "data-reload" not in page
    part = client.post(place, data={**fields(page), "label": "disc"}, headers=HTMX).text
    assert "No image whose label stands against most of its neighbours is left" in part
    # It is made once for each end of the job.
    before = store.get(JobKeys(embedded).neighbours)
    neighbours.write(store, embedded)
    assert store.get(JobKeys(embedded).neighbours) == before


def test_without_embeddings_no_order_by_neighbours(browse: Browse, job: str, store: ObjectStore) -> None:
    page = browse("review").get(f"/console/jobs/{job}/review", params={"by": "neighbours"}).text
    assert "This job kept no embeddings; label the source again with <code>--embed</code>" in page
    neighbours.write(store, job)
    assert not store.exists(JobKeys(job).neighbours)
