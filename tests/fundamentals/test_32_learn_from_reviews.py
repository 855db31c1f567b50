"""A model labels, people correct it, and the next model learns what they said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contract.errors import InvalidInput, InvalidSource, UnknownJob
from contract.jobs.index import users
from contract.jobs.reviews import verdicts
from contract.jobs.reviews.records import verdict_of
from contract.jobs.status import Status
from producer import Client
from tests.fundamentals.conftest import Imagemill
from tests.mill import Mill

SETTINGS = ["size=16", "variant=classic", "batch_size=16", "learning_rate=0.02", "ema=0.9"]


@pytest.fixture(scope="module")
def labelled(mill: Mill, client: Client, crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Status:
    """Crops of three photos, labelled by a model that has never seen a koala."""
    known, some = tmp_path_factory.mktemp("known"), tmp_path_factory.mktemp("some")
    for name in ("espresso", "goldfish"):
        shutil.copytree(crops / name, known / name)
    for name in ("espresso", "goldfish", "koala"):
        (some / name).mkdir()
        for n in range(40):
            shutil.copy(crops / name / f"{n:03d}.png", some / name)
    mill.finished(client.train("cnn", known, name="novice", epochs=4, settings=SETTINGS).id)
    return mill.finished(client.classify(some, model="novice", job="zoo").id)


@pytest.fixture(scope="module")
def reviewed(client: Client, labelled: Status) -> Status:
    """Ann says what each image is, and bob takes one for something else."""
    for row in client.results(labelled.id):
        name = row["key"].partition("/")[0]
        verdicts.add(client.backend.store, labelled.id, verdict_of(row, name, by="ann"))
        if row["key"] == "koala/000.png":
            verdicts.add(client.backend.store, labelled.id, verdict_of(row, "espresso", by="bob"))
    return labelled


def test_without_a_review_there_is_nothing_to_learn(client: Client, labelled: Status) -> None:
    jobs = {job.id for job in client.jobs()}
    with pytest.raises(InvalidSource, match="Nobody has reviewed zoo yet"):
        client.train("cnn", "review:zoo", name="pupil")
    with pytest.raises(UnknownJob):
        client.train("cnn", "review:nowhere", name="pupil")
    with pytest.raises(InvalidSource, match="only labels are reviewed"):
        client.train("cnn", f"review:{next(job.id for job in client.jobs() if job.kind == 'train')}", name="pupil")
    with pytest.raises(InvalidInput, match="people's, which have no score; leave --min-score out"):
        client.train("cnn", "review:zoo", name="pupil", min_score=0.5)
    assert {job.id for job in client.jobs()} == jobs, "nothing was queued"


@pytest.fixture(scope="module")
def command() -> list[str]:
    """Trains on what people said."""
    options = [part for one in SETTINGS for part in ("--set", one)]
    return ["train", "cnn", "--data", "review:zoo", "--name", "taught", "--epochs", "8", "--job", "taught", *options]


@pytest.fixture(scope="module")
def taught(reviewed: Status, imagemill: Imagemill, command: list[str]) -> None:
    code, _, said = imagemill(*command)
    assert code == 0, said


def test_what_people_said_is_beside_what_the_model_said(client: Client, reviewed: Status) -> None:
    assert {row["label"] for row in client.results("zoo")} <= {"espresso", "goldfish"}
    rows = {row["key"]: row for row in client.reviewed("zoo")}
    assert len(rows) == 120 and rows["koala/001.png"]["label"] == "koala"
    assert [key for key, row in rows.items() if row["disputed"]] == ["koala/000.png"]


def test_the_next_model_knows_it(
    mill: Mill, client: Client, taught: None, crops: Path, imagemill: Imagemill, command: list[str]
) -> None:
    # Given a model that was trained on all but the disputed image, I expect it to know koalas,
    model = client.model("taught")
    assert model.labels == ("espresso", "goldfish", "koala")
    assert (model.data["source"], model.data["images"] + model.data["held_out"]) == ("review:zoo", 119)  # type: ignore[operator]
    # also those that it has never seen.
    again = mill.finished(client.classify(crops / "koala", model="taught").id)
    right = sum(row["label"] == "koala" for row in client.results(again.id))
    assert right / again.total > 0.9
    # The same command again is the same job.
    assert imagemill(*command)[0] == 0 and client.model("taught").version == 1


def test_a_model_is_evaluated_by_what_people_said(mill: Mill, client: Client, taught: None) -> None:
    done = mill.finished(client.evaluate("taught", "review:zoo").id)
    assert done.metrics is not None and done.metrics["top1"] > 0.9 and done.total == 119
    # The first model has never heard of koalas, and its evaluation says so.
    novice = mill.finished(client.evaluate("novice", "review:zoo").id)
    assert novice.state == "failed"
    assert "review:zoo has the label 'koala', which is none of the 2 classes" in str(novice.reason)
    # The jobs need the images of the reviewed one.
    assert {"taught", done.id} <= set(users(client.backend.store, "zoo"))
