"""Judge a model by labelled images, and get a page to look at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.errors import InvalidInput, JobConflict
from contract.jobs.status import Status
from producer import Client
from tests.mill import Mill

MODEL = "efficientnet-lite0"
KNOWN = {"espresso": "espresso", "koala": "koala", "giant-panda": "giant panda", "cheetah": "cheetah"}


@pytest.fixture(scope="module")
def labelled(camera: ObjectStore, photos: dict[str, Path]) -> str:
    """A prefix with a folder a class; one photo is in the folder of another class."""
    for name, label in KNOWN.items():
        for n in range(3):
            camera.put(f"judged/{label}/{n}.jpg", photos[name].read_bytes())
    camera.put("judged/koala/wrong.jpg", photos["giant-panda"].read_bytes())
    camera.put("judged/koala/empty.jpg", b"")
    return "s3://camera/judged/"


@pytest.fixture(scope="module")
def judged(mill: Mill, client: Client, labelled: str) -> Status:
    return mill.finished(client.evaluate(MODEL, labelled, job="judged").id)


def test_the_figures_are_those_of_the_labels(client: Client, judged: Status) -> None:
    # Given 13 photos, one of which has a label that is wrong, and a file that is empty,
    assert (judged.kind, judged.state, judged.model) == ("evaluate", "succeeded", f"{MODEL}@1")
    assert (judged.total, judged.done, judged.skipped) == (13, 13, 1)
    assert judged.metrics is not None
    assert judged.metrics["top1"] == pytest.approx(12 / 13)
    assert judged.metrics["recall"] == pytest.approx((1 + 1 + 1 + 3 / 4) / 4)


def test_every_figure_is_in_the_bucket(client: Client, judged: Status) -> None:
    bucket, prefix = parse_s3(judged.output)
    figures = json.loads(client.backend.store.get(f"{prefix}evaluation.json", bucket=bucket))
    koala = next(row for row in figures["classes"] if row["name"] == "koala")
    assert (koala["examples"], koala["recall"], koala["precision"]) == (4, 0.75, 1.0)
    assert sum(map(sum, figures["confusion"])) == 13


def test_a_page_needs_nothing_else(client: Client, judged: Status) -> None:
    page = client.report(judged.id)
    assert page.startswith("<!doctype html>")
    assert "giant panda" in page and "92.31" in page
    assert "<img" in page and 'src="data:image/png' in page
    assert "http://" not in page and "https://" not in page


def test_labels_that_the_model_does_not_know_are_named(
    mill: Mill, client: Client, camera: ObjectStore, photos: dict[str, Path]
) -> None:
    camera.put("strange/unicorn/1.jpg", photos["koala"].read_bytes())
    job = mill.finished(client.evaluate(MODEL, "s3://camera/strange/").id)
    assert job.state == "failed"
    assert "has the label 'unicorn', which is none of the 1000 classes" in str(job.reason)


def test_rows_are_of_labelling_alone(client: Client, judged: Status) -> None:
    with pytest.raises(JobConflict, match="labels no images, its kind is evaluate"):
        list(client.results(judged.id))
    with pytest.raises(InvalidInput):
        client.evaluate("gone", "s3://camera/judged/")
