"""What a job's page shows while it runs, and the figures of trainings and evaluations."""

from __future__ import annotations

import json
import re
from contextlib import closing

import pytest

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.jobs.commits import read_commit
from contract.keys.jobs import JobKeys
from contract.settings import Settings
from producer.jobs.tallies import Tallies
from producer.web.console.drawing.charts import curves, shade
from tests.producer.web.console.conftest import Browse
from tests.producer.web.console.jobs.test_listing import submit
from tests.producer.web.console.rows import commit_rows, end
from tests.serving import Api


def epoch(number: int, loss: float, accuracy: float) -> dict[str, object]:
    metrics = {"accuracy": accuracy, "loss": loss + 0.1}
    return {
        "epoch": number,
        "step": number * 10,
        "losses": {"loss": loss},
        "metrics": metrics,
        "learning_rate": 0.1,
        "seconds": 3.0,
    }


def train(api: Api, store: ObjectStore) -> str:
    body = {"command": "train", "family": "cnn", "source": f"s3://{store.bucket}/photos/", "name": "mine"}
    with api.client("jobs") as client:
        answer = client.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])


def test_labels_failures_and_the_newest_images_come_while_a_job_runs(
    api: Api, browse: Browse, model: str, settings: Settings, store: ObjectStore
) -> None:
    client, id = browse("jobs"), submit(api, model)
    for shard in range(3):
        commit_rows(store, id, [{"key": f"{shard}-{n}", "label": "disc"} for n in range(10)], shard)
    commit_rows(store, id, [{"key": "bad", "status": "error", "error_code": "truncated", "error_message": "!"}], 3)
    with closing(Ledger(settings)) as ledger:
        ledger.forget(id)  # so that it is counted anew from the bucket
    part = client.get(f"/console/jobs/{id}/samples").text
    assert "Labels so far" in part and ">30</td>" in part and "Failures so far" in part and "Images that failed" in part
    # The newest shard comes first.
    assert re.findall(r'alt="(\d)-\d"', part)[:2] == ["2", "2"] and "Newest images" in part
    # After the end the page itself has the counts of all.
    end(settings, store, id, ok=30, errors=1, labels={"disc": 30}, error_codes={"truncated": 1})
    part = client.get(f"/console/jobs/{id}/samples").text
    assert "so far" not in part and re.findall(r'alt="(\d)-\d"', part)[0] == "0"


def test_a_tally_reads_each_commit_once_and_follows_a_retry(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []

    def counted(store: ObjectStore, id: str, shard: int, retry: int = 0) -> object:
        read.append((shard, retry))
        return read_commit(store, id, shard, retry)

    monkeypatch.setattr("producer.jobs.tallies.read_commit", counted)
    found = Tallies()
    commit_rows(store, "a", [{"key": "x", "status": "error", "error_code": "truncated"}], 0)
    tally = found.of(store, "a")
    assert (tally.codes, tally.failing) == ({"truncated": 1}, 0)
    commit_rows(store, "a", [{"key": "y", "label": "disc"}], 1)
    tally = found.of(store, "a")
    assert (tally.codes, tally.labels, read) == ({"truncated": 1}, {"disc": 1}, [(0, 0), (1, 0)])
    # A retry that repaired the image counts in place of the first try.
    keys = JobKeys("a")
    store.put(keys.commit(0, 1), store.get(keys.commit(1)).replace(b'"shard":1', b'"shard":0'))
    tally = found.of(store, "a")
    assert (tally.codes, tally.labels, tally.failing) == ({}, {"disc": 2}, None)


def test_a_share_is_set_while_a_job_runs(api: Api, browse: Browse, model: str) -> None:
    client, id = browse("jobs"), submit(api, model)
    given = {"priority": "high", "weight": "2.5", "max_slots": "3"}
    answer = client.post(f"/console/jobs/{id}/share", data=given)
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/console/jobs/{id}")
    page = client.get(f"/console/jobs/{id}").text
    assert "<option selected>high</option>" in page and 'value="2.5"' in page and "3 shards at once at most" in page
    for wrong in ({"priority": "first"}, {"weight": "0"}, {"max_slots": "-1"}):
        assert client.post(f"/console/jobs/{id}/share", data={**given, **wrong}).status_code == 422
    assert "/share" not in browse("review").get(f"/console/jobs/{id}").text
    assert browse("jobs", owner="bob").post(f"/console/jobs/{id}/share", data=given).status_code == 404
    client.post(f"/console/jobs/{id}/cancel")
    assert "/share" not in client.get(f"/console/jobs/{id}").text
    assert client.post(f"/console/jobs/{id}/share", data=given).status_code == 409


def test_a_training_shows_its_curves_as_they_come(api: Api, browse: Browse, model: str, store: ObjectStore) -> None:
    client, id = browse("review"), train(api, store)
    assert f'hx-get="/console/jobs/{id}/training"' in client.get(f"/console/jobs/{id}").text
    assert "Curves come" in client.get(f"/console/jobs/{id}/training").text
    store.put(JobKeys(id).history, json.dumps([epoch(1, 2.0, 0.5), epoch(2, 1.0, 0.75)]).encode())
    store.put(JobKeys(id).picture(2), b"\x89PNG\r\n\x1a\n" + bytes(30))
    part = client.get(f"/console/jobs/{id}/training").text
    assert "2 epochs" in part and part.count("<polyline") == 3 and f"/console/jobs/{id}/epochs/2" in part
    assert client.get(f"/console/jobs/{id}/epochs/2").headers["Content-Type"] == "image/png"
    assert client.get(f"/console/jobs/{id}/epochs/3").status_code == 404
    assert browse("review", owner="bob").get(f"/console/jobs/{id}/training").status_code == 404


def test_a_chart_scales_its_lines_together_and_leaves_out_what_is_no_number() -> None:
    history = [epoch(1, 2.0, 0.5), epoch(2, float("nan"), 0.75), epoch(3, 1.0, 0.75)]
    accuracy, loss = curves(history)
    assert (accuracy.title, loss.title) == ("accuracy", "loss")
    assert (loss.low, loss.high) == (1.0, 2.1) and [line.name for line in loss.lines] == ["training", "held out"]
    assert loss.lines[0].points.count(",") == 2 and accuracy.lines[0].points == "4.0,116.0 160.0,4.0 316.0,4.0"
    assert curves([]) == []


def test_a_shade_is_a_share_of_the_row() -> None:
    assert [shade(count, 9) for count in (0, 1, 5, 9)] == [0, 1, 5, 9] and shade(0, 0) == 0


def test_an_evaluation_shows_its_matrix(
    api: Api, browse: Browse, model: str, settings: Settings, store: ObjectStore
) -> None:
    body = {"command": "evaluate", "model": model, "source": f"s3://{store.bucket}/photos/"}
    with api.client("jobs") as http:
        id = str(http.post("/v1/jobs", json=body).json()["id"])
    hostile = "<img src=x>"
    scores = [
        {"name": name, "examples": 5, "predictions": 5, "precision": 0.5, "recall": None, "f1": f1}
        for name, f1 in (("disc", 0.9), (hostile, 0.4))
    ]
    output = f"s3://{store.bucket}/jobs/{id}/out/"
    written = {"classes": scores, "confusion": [[4, 1], [2, 3]]}
    client = browse("review")
    assert "matrix" not in client.get(f"/console/jobs/{id}/evaluation").text
    store.put(f"jobs/{id}/out/evaluation.json", json.dumps(written).encode())
    end(settings, store, id, kind="evaluate", output=output, metrics={"top1": 0.7})
    part = client.get(f"/console/jobs/{id}/evaluation").text
    assert 'class="figure shade-8"><b>4</b>' in part and "<img src=x>" not in part
    assert part.index("Most confused") < part.index("Weakest classes") and "0.400" in part


@pytest.mark.parametrize("part", ["samples", "training", "evaluation"])
def test_a_part_is_a_page_of_its_own_for_a_browser_without_scripts(
    part: str, api: Api, browse: Browse, model: str, store: ObjectStore, settings: Settings
) -> None:
    client, id = browse("jobs"), submit(api, model)
    commit_rows(store, id, [{"key": "a.png", "label": "disc"}])
    end(settings, store, id, ok=1, labels={"disc": 1})
    place = f"/console/jobs/{id}/{part}"
    assert "<html" not in client.get(place, headers={"HX-Request": "true"}).text
    page = client.get(place).text
    assert "<html" in page and f'<a href="/console/jobs/{id}"' in page and "<h1>" in page
    if part == "samples":
        assert "First images" in page
        shown = client.get(f"/console/jobs/{id}").text
        assert f'<a href="{place}">' in shown.partition("<noscript>")[2].partition("</noscript>")[0]


def test_no_shard_of_a_job_that_has_ended_runs(
    api: Api, browse: Browse, model: str, store: ObjectStore, settings: Settings
) -> None:
    # Given an end that was written while a shard was still at work,
    client, id = browse("jobs"), submit(api, model)
    end(settings, store, id, state="failed", reason="!", shards={"total": 2, "done": 1, "running": 1})
    page = client.get(f"/console/jobs/{id}").text
    assert "1 of 2" in page and "running" not in page.partition("<main")[2].partition("</main>")[0]


def test_a_label_that_fills_the_page_is_cut_in_a_tile_and_whole_on_hover(
    api: Api, browse: Browse, model: str, store: ObjectStore, settings: Settings
) -> None:
    client, id, label = browse("jobs"), submit(api, model), "a label of many words " * 40
    commit_rows(store, id, [{"key": "a.png", "label": label, "score": 0.5}])
    end(settings, store, id, ok=1, labels={label: 1})
    page = client.get(f"/console/jobs/{id}/samples").text
    assert f'title="{label}"' in page and f">{label}" not in page and "…</b>" in page
