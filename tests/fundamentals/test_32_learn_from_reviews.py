"""A model labels, people correct it, and the next model learns what they said."""

from __future__ import annotations

import json
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


def test_what_people_said_in_label_studio_counts_too(
    client: Client, taught: None, labelled: Status, imagemill: Imagemill, tmp_path: Path
) -> None:
    # Given the labels as tasks of Label Studio, if two people there look at one each,
    tasks = tmp_path / "tasks.json"
    assert imagemill("results", "zoo", "--format", "labelstudio", "-o", tasks)[0] == 0
    by_key = {task["data"]["key"]: task for task in json.loads(tasks.read_text())}
    assert len(by_key) == 120

    def annotated(key: str, label: str, person: int) -> dict[str, object]:
        result = by_key[key]["predictions"][0]["result"][0]
        made = {**result, "id": "x", "value": {"choices": [label]}}
        times = {"created_at": "2026-11-26T10:00:00.000000Z", "updated_at": "2026-11-26T10:00:00.000000Z"}
        annotation = {"id": person, "completed_by": person, "result": [made], "was_cancelled": False, **times}
        return {"id": person, "data": by_key[key]["data"], "annotations": [annotation], "predictions": []}

    export = tmp_path / "project-1-at-2026-11-26.json"
    both = [annotated("koala/000.png", "koala", 1), annotated("goldfish/001.png", "carp", 2)]
    gone = {**annotated("koala/002.png", "koala", 3), "data": {"image": "s3://elsewhere/x.png", "key": "x.png"}}
    export.write_text(json.dumps([*both, gone]))
    code, out, said = imagemill("reviews", "import", "zoo", export)

    # I expect what they said beside the reviews of the console: the first settles a dispute, the second makes one.
    assert code == 0 and "3 annotations: 2 new, 0 known" in out and "x.png" in said
    rows = {row["key"]: row for row in client.reviewed("zoo")}
    assert (rows["koala/000.png"]["label"], rows["koala/000.png"]["disputed"]) == ("koala", False)
    assert rows["goldfish/001.png"]["disputed"]
    shown = imagemill("reviews", "show", "zoo")[1]
    assert "label-studio:2" in shown and "ann, bob" in shown and "disputed" in shown
    assert "3 annotations: 0 new, 2 known" in imagemill("reviews", "import", "zoo", export)[1]
