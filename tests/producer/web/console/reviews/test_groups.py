"""Accepting many labels at once: what was shown is what is accepted, by one object, which can be taken back."""

from __future__ import annotations

import json
import re

import httpx2
import pytest

from contract.backend.objects import ObjectStore
from contract.jobs.reviews import verdicts
from contract.jobs.reviews.records import MOST_AT_ONCE, Verdict
from contract.settings import Settings
from producer.jobs import groups
from tests.producer.web.console.conftest import Browse
from tests.producer.web.console.jobs.test_listing import HOSTILE, submit
from tests.producer.web.console.reviews.test_images import clustered, row
from tests.producer.web.console.rows import commit_rows, end
from tests.serving import Api
from worker.classify import neighbours


@pytest.fixture
def job(api: Api, model: str, settings: Settings, store: ObjectStore) -> str:
    """A job with ten discs and five squares, of rising scores, and a cluster of six of the discs."""
    id = submit(api, model, embed=True)
    discs = [clustered(f"disc{n}", "disc", 20 * (n // 6), 0.90 + n / 100) for n in range(10)]
    squares = [clustered(f"square{n}", "square", 80 + n, 0.80 + n / 100) for n in range(5)]
    commit_rows(store, id, discs, shard=0)
    commit_rows(store, id, squares, shard=1)
    end(settings, store, id, ok=15, done=15, total=15, model="shapes@1")
    return id


def forms(page: str) -> list[dict[str, str]]:
    """The hidden fields of each group, and of the undo."""
    return [
        dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))
        for form in re.findall(r'<form method="post" action="/console/jobs/.*?</form>', page, re.DOTALL)
    ]


def accept(client: httpx2.Client, place: str, form: dict[str, str]) -> httpx2.Response:
    answer = client.post(place, data=form)
    assert answer.status_code == 303, answer.text
    return client.get(answer.headers["Location"])


def test_all_of_a_label_above_a_score(api: Api, browse: Browse, job: str, store: ObjectStore) -> None:
    client = browse("review", person="bob")
    place = f"/console/jobs/{job}/review/groups"
    page = client.get(place, params={"at_least": 0.945}).text
    # Given five discs that are that sure, shown with the least sure ones,
    assert "Accept 5 as disc" in page and "at least 0.95 sure" in page and "square" not in page.partition("<main")[2]
    assert re.findall(r'alt="(\w+)"', page) == [f"disc{n}" for n in range(5, 10)]
    # if I accept them, I expect one object that names all five,
    page = accept(client, place, forms(page)[0]).text
    assert "Accepted 5 images as disc." in page and "No image that nobody has reviewed" in page
    (name,) = [entry.key for entry in store.list(f"jobs/{job}/reviews/")]
    kept = json.loads(store.get(name))
    assert (kept["by"], kept["label"], len(kept["images"])) == ("bob", "disc", 5)
    with api.client("review") as other:
        rows = other.get(f"/v1/jobs/{job}/results", params={"status": "reviewed"}).text.splitlines()
        summary = other.get(f"/v1/jobs/{job}/reviews").json()
    assert {json.loads(one)["key"] for one in rows} == {f"disc{n}" for n in range(5, 10)}
    assert summary["reviewers"] == [{"name": "bob", "images": 5}] and summary["changed"] == 0
    # and the review to leave them out, with their number.
    card = client.get(f"/console/jobs/{job}/review").text
    assert "5 of 15 reviewed" in card and "disc5" not in card
    # Undone, they come back, and nothing was deleted.
    page = accept(client, f"{place}/undo", forms(page)[0]).text
    assert "Accept 5 as disc" in page
    assert "Accepted" not in page
    assert len(list(store.list(f"jobs/{job}/reviews/"))) == 2 and not verdicts.listed(store, job)


def test_a_cluster_of_images_that_are_alike(browse: Browse, job: str, store: ObjectStore) -> None:
    client = browse("review")
    place = f"/console/jobs/{job}/review/groups"
    assert "A worker compares the images now" in client.get(place, params={"by": "cluster"}).text
    neighbours.write(store, job)
    page = client.get(place, params={"by": "cluster"}).text
    form = forms(page)[0]
    assert "disc" in page and form["by"] == "cluster"
    accept(client, place, form)
    labels = {one.verdict.label for one in verdicts.given(store, job)}
    assert labels == {"disc"}


def test_what_was_not_shown_is_not_accepted(api: Api, browse: Browse, job: str, store: ObjectStore) -> None:
    client, stranger = browse("review"), browse("review", owner="bob")
    place = f"/console/jobs/{job}/review/groups"
    form = forms(client.get(place).text)[0]
    # Given a group of which somebody else has reviewed an image meanwhile, I expect it to be refused,
    found = next(one for one in groups.sure(store, job, 0.95, (), label="disc"))
    said = {"key": found.taken[0].key, "uri": found.taken[0].uri, "label": "disc"}
    named = verdicts.add(store, job, Verdict(**said, by="eve", at=""))
    assert client.post(place, data=form).status_code == 409
    verdicts.withdraw(store, job, named, by="eve")
    # and so is what another score, label or cluster would give, and what strangers and other sites send.
    for changes in ({"at_least": "0.5"}, {"name": "square"}, {"digest": "0" * 24}, {"by": "cluster", "name": "x"}):
        assert client.post(place, data={**form, **changes}).status_code == 409
    assert client.post(place, data={**form, "at_least": "nan"}).status_code == 422
    assert client.get(place, params={"at_least": "2"}).status_code == 422
    assert stranger.get(place).status_code == stranger.post(place, data=form).status_code == 404
    assert client.post(place, data=form, headers={"Origin": "https://evil"}).status_code == 403
    assert not verdicts.listed(store, job)
    # Nobody takes back what somebody else accepted.
    page = accept(client, place, form)
    undo = forms(page.text)[0]
    assert browse("admin", owner="root").post(f"{place}/undo", data=undo).status_code == 409
    assert client.post(f"{place}/undo", data={**undo, "done": "../x"}).status_code == 422
    assert "Accepted" not in browse("admin", owner="root").get(place, params={"done": undo["done"]}).text
    assert verdicts.listed(store, job)


def test_hostile_labels_stay_text_and_a_large_group_is_accepted_in_parts(
    api: Api, browse: Browse, model: str, settings: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "MOST_AT_ONCE", 2)
    assert MOST_AT_ONCE > 2
    id = submit(api, model)
    commit_rows(store, id, [row(f"{HOSTILE}{n}", 0.99, label=HOSTILE) for n in range(3)])
    end(settings, store, id, ok=3, done=3, total=3, model="shapes@1")
    client, place = browse("review"), f"/console/jobs/{id}/review/groups"
    page = client.get(place).text
    assert "<img src=x" not in page and "3 images, the first 2 at once" in page
    (group,) = groups.sure(store, id, 0.95, ())
    form = {"by": "label", "at_least": "0.95", "name": HOSTILE, "digest": group.digest}
    page = accept(client, place, form).text
    assert "<img src=x" not in page and "Accepted 2 images" in page and "1 image," in page
