"""Judge a model that generates images, by a classifier of the same classes, and get a page to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contract.data.items import parse_s3
from contract.errors import InvalidInput
from contract.jobs.status import Status
from producer import Client
from tests.mill import Mill


@pytest.fixture(scope="module")
def judged(mill: Mill, client: Client, painter_and_critic: None, crops: Path) -> Status:
    job = client.evaluate("painter", crops, features="critic", cas_epochs=1, job="judged-painter")
    return mill.finished(job.id)


def test_the_figures_of_a_generator(client: Client, judged: Status) -> None:
    # Given 360 images that it learnt from and 40 that it did not,
    assert (judged.kind, judged.state, judged.model) == ("evaluate", "succeeded", "painter@1"), judged.reason
    assert judged.done == judged.total

    # I expect distances to the latter, as many images being generated, and copies to be looked for in the former.
    figures = figures_of(client, judged)
    assert (figures["distances"]["real"], figures["distances"]["generated"]) == (40, 40)
    assert figures["memorisation"]["held_out"] == 40
    assert [pair["distance"] for pair in figures["closest"]] == sorted(pair["distance"] for pair in figures["closest"])
    assert judged.metrics is not None
    assert judged.metrics["frechet_distance"] == figures["distances"]["frechet"] > 0
    assert 0 <= judged.metrics["class_accuracy"] <= 1

    # And how well a classifier does that saw none but generated images, beside one that saw as many real ones.
    score = figures["score"]
    assert (score["images"], score["tested"], score["recipe"]["epochs"]) == (360, 40, 1)
    assert judged.metrics["cas_gap"] == pytest.approx(score["real"] - score["generated"])


def test_the_same_evaluation_finds_the_same(mill: Mill, client: Client, judged: Status, crops: Path) -> None:
    again = mill.finished(client.evaluate("painter", crops, features="critic", cas_epochs=1).id)
    assert again.metrics == pytest.approx(judged.metrics, rel=1e-4)
    other = mill.finished(client.evaluate("painter", crops, features="critic", seed=1).id)
    assert other.metrics is not None and judged.metrics is not None
    assert other.metrics["frechet_distance"] != judged.metrics["frechet_distance"]
    assert "cas" not in other.metrics, "nothing is trained unless it is asked for"


def test_a_page_shows_samples_and_the_nearest_training_images(client: Client, judged: Status) -> None:
    page = client.report(judged.id)
    for said in ("Fréchet distance", "Nearest training images", "What a classifier learns from it", "critic@1"):
        assert said in page, said
    assert page.count('src="data:image/png') == 3
    assert "http://" not in page and "https://" not in page


def test_what_cannot_be_judged_is_told_before_anything_is_queued(
    client: Client, painter_and_critic: None, crops: Path
) -> None:
    with pytest.raises(InvalidInput, match="name one with --features"):
        client.evaluate("painter", crops)
    with pytest.raises(InvalidInput, match=r"does not know the class 'giant-panda' of painter@1"):
        client.evaluate("painter", crops, features="efficientnet-lite0")
    with pytest.raises(InvalidInput, match="does generate, and this takes a model that does classify"):
        client.evaluate("painter", crops, features="painter")
    with pytest.raises(InvalidInput, match="leave --features out"):
        client.evaluate("critic", crops, features="critic")


def figures_of(client: Client, job: Status) -> dict[str, Any]:
    bucket, prefix = parse_s3(job.output)
    found: dict[str, Any] = json.loads(client.backend.store.get(f"{prefix}evaluation.json", bucket=bucket))
    return found
