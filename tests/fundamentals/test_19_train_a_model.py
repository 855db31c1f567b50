"""Train a model on folders of images, and label with it. The workers that label train, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.errors import InvalidInput, InvalidSource, UnknownModel
from contract.jobs.status import Status
from contract.models.registry import Registry
from producer import Client
from tests.mill import Mill

SETTINGS = ["size=16", "variant=classic", "batch_size=32", "learning_rate=0.02", "ema=0.9"]


@pytest.fixture(scope="module")
def trained(mill: Mill, client: Client, crops: Path) -> Status:
    """A training that has ended: crops of four photos, told apart."""
    job = client.train("cnn", crops, name="photos", epochs=4, settings=SETTINGS)
    return mill.finished(job.id)


def test_a_training_ends_as_a_version_in_the_registry(client: Client, trained: Status, crops: Path) -> None:
    # Given four class folders of a hundred images each, if I train on them,
    assert (trained.kind, trained.state, trained.model) == ("train", "succeeded", "photos@1")
    assert trained.total == trained.done == 4 * 360, "four passes over what is not held out"

    # I expect a record that says what it is, how it was made and what it can do,
    model = client.model("photos")
    assert (model.family, model.task, model.preprocess.size) == ("cnn", "classify", 16)
    assert model.labels == ("espresso", "giant-panda", "goldfish", "koala")
    assert (model.data["source"], model.data["images"], model.data["held_out"]) == (str(crops), 360, 40)
    assert model.recipe["learning_rate"] == 0.02
    assert trained.metrics == model.metrics
    assert model.metrics["accuracy"] > 0.6, "one in four would be chance"

    # and files to look at beside its weights.
    assert {file.name for file in model.files} >= {"card.md", "metrics.json", "accuracy.png", "loss.png", "picture.png"}
    Registry(client.backend.store).verify(model)


def test_the_card_has_the_command_that_makes_it_again(client: Client, trained: Status, crops: Path) -> None:
    model = client.model("photos")
    (card,) = (file for file in model.files if file.name == model.card)
    text = Registry(client.backend.store).read(model, card).decode()
    assert f"imagemill train cnn --data {crops} --name photos --epochs 4 --set batch_size=32" in text
    assert f"| accuracy | {model.metrics['accuracy']:.6g} |" in text


def test_each_epoch_has_its_figures(client: Client, trained: Status) -> None:
    history = client.history(trained.id)
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3, 4]
    assert all({"accuracy", "loss"} <= set(epoch["metrics"]) for epoch in history)
    best = max(history, key=lambda epoch: (epoch["metrics"]["accuracy"], -epoch["epoch"]))
    assert trained.metrics is not None
    assert trained.metrics["epoch"] == best["epoch"]


def test_a_job_can_label_with_it(
    mill: Mill, client: Client, trained: Status, crops: Path, rows: Callable[[Status], dict[str, dict[str, object]]]
) -> None:
    job = mill.finished(client.classify(crops, model="photos").id)
    found = rows(job)
    right = sum(row["label"] == key.split("/")[0] for key, row in found.items())
    assert (job.model, len(found)) == ("photos@1", 400)
    assert right / len(found) == pytest.approx(client.model("photos").metrics["accuracy"], abs=0.2)


def test_the_labels_of_a_job_can_be_learnt_from(mill: Mill, client: Client, trained: Status, crops: Path) -> None:
    """Labelling feeds training: a second model learns what the first one was sure of."""
    labelled = mill.finished(client.classify(crops, model="photos").id)
    sure = [row for row in client.results(labelled.id) if row["score"] >= 0.5]

    job = client.train(
        "cnn", f"job:{labelled.id}", name="pupil", epochs=1, settings=SETTINGS, min_score=0.5, start="photos@1"
    )
    mill.finished(job.id)

    model = client.model("pupil")
    assert model.data["images"] + model.data["held_out"] == len(sure)  # type: ignore[operator]
    assert set(model.labels) == {row["label"] for row in sure}


def test_a_training_can_begin_with_a_model(mill: Mill, client: Client, trained: Status, crops: Path) -> None:
    """One that hardly learns, in a single epoch, is as good as what it began with."""
    settings = [*SETTINGS, "learning_rate=1e-9", "ema=0"]
    job = client.train("cnn", crops, name="heir", epochs=1, settings=settings, start="photos@1")
    assert mill.finished(job.id).state == "succeeded"
    accuracy = client.model("photos@1").metrics["accuracy"]
    assert client.model("heir").metrics["accuracy"] == pytest.approx(accuracy, abs=0.1)


def test_the_same_name_again_is_the_next_version(mill: Mill, client: Client, trained: Status, crops: Path) -> None:
    job = mill.finished(client.train("cnn", crops, name="photos", epochs=1, settings=SETTINGS).id)
    assert job.model == "photos@2"
    assert client.model("photos").version == 2
    assert client.model("photos@1").metrics == trained.metrics, "a version never changes"


def test_a_loss_that_is_no_number_ends_the_job_and_publishes_nothing(mill: Mill, client: Client, crops: Path) -> None:
    settings = [*SETTINGS, "learning_rate=1e30", "warmup=0"]
    job = mill.finished(client.train("cnn", crops, name="diverged", epochs=1, settings=settings).id)
    assert job.state == "failed"
    assert "learning" in str(job.reason) and "\n" not in str(job.reason)
    with pytest.raises(UnknownModel):
        client.model("diverged")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"family": "cn"}, InvalidInput, "did you mean cnn"),
        ({"settings": ["epoch=3"]}, InvalidInput, "did you mean epochs"),
        ({"name": "No Name"}, InvalidInput, "--name"),
        ({"start": "efficientnet-lite0"}, InvalidInput, "a cnn cannot begin with its weights"),
        ({"start": "gone"}, UnknownModel, "There is no model 'gone'"),
        ({"source": "/nowhere"}, InvalidSource, "/nowhere"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_queued(
    client: Client, crops: Path, options: dict[str, object], error: type[Exception], said: str
) -> None:
    before = {job.id for job in client.jobs()}
    call = {"family": "cnn", "source": crops, "name": "wrong", **options}
    with pytest.raises(error, match=said):
        client.train(call.pop("family"), call.pop("source"), **call)  # type: ignore[arg-type]
    assert {job.id for job in client.jobs()} == before


def test_what_only_the_worker_can_see_ends_the_job_with_its_reason(
    mill: Mill, client: Client, camera: object, crops: Path
) -> None:
    (photo,) = list(crops.glob("koala/000.png"))
    camera.put("lonely/koala/0.png", photo.read_bytes())  # type: ignore[attr-defined]
    camera.put("lonely/panda/0.png", photo.read_bytes())  # type: ignore[attr-defined]
    job = mill.finished(client.train("cnn", "s3://camera/lonely/", name="lonely", settings=SETTINGS).id)
    assert job.state == "failed"
    assert "'koala' has one image" in str(job.reason)


def test_history_is_json(client: Client, trained: Status) -> None:
    assert json.loads(json.dumps(client.history(trained.id)))[0]["epoch"] == 1
