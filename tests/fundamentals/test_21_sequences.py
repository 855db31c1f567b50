"""A model of image sequences: an animation is one item, and its label is about what happens in it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from contract.errors import InvalidInput
from contract.jobs.status import Status
from producer import Client
from tests.mill import Mill

Rows = Callable[[Status], dict[str, dict[str, object]]]
SETTINGS = ["channels=1", "batch_size=16", "learning_rate=0.01", "ema=0.5", "hidden=16"]


@pytest.fixture(scope="module")
def animations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gray squares that grow brighter, or darker, in three to six frames; single frames are alike in both classes."""
    made = tmp_path_factory.mktemp("animations")
    rng = random.Random(0)
    for label in ("brighter", "darker"):
        (made / label).mkdir()
        for n in range(40):
            levels = sorted((rng.randrange(0, 256, 8) for _ in range(rng.randint(3, 6))), reverse=label == "darker")
            frames = [Image.new("L", (16, 16), level) for level in levels]
            kind = rng.choice(["gif", "webp"])
            frames[0].save(
                made / label / f"{n:02d}.{kind}", save_all=True, append_images=frames[1:], duration=50, lossless=True
            )
    return made


@pytest.fixture(scope="module")
def trained(mill: Mill, client: Client, animations: Path) -> Status:
    job = client.train("rnn", animations, name="brightness", epochs=12, settings=SETTINGS)
    return mill.finished(job.id)


def test_it_learns_what_no_single_frame_tells(client: Client, trained: Status) -> None:
    model = client.model("brightness")
    assert (trained.state, model.task, model.preprocess.channels) == ("succeeded", "classify-sequence", 1)
    assert model.metrics["accuracy"] >= 0.9


def test_a_job_labels_one_animation_a_row(
    mill: Mill,
    client: Client,
    trained: Status,
    animations: Path,
    rows: Rows,
) -> None:
    found = rows(mill.finished(client.classify(animations, model="brightness").id))
    assert len(found) == 80
    assert sum(row["label"] == key.split("/")[0] for key, row in found.items()) >= 72
    assert {(row["width"], row["height"]) for row in found.values()} == {(16, 16)}


def test_it_is_judged_as_it_is_served(mill: Mill, client: Client, trained: Status, animations: Path) -> None:
    judged = mill.finished(client.evaluate("brightness", animations).id)
    assert judged.metrics is not None
    assert judged.metrics["top1"] >= 0.9


def test_a_still_image_is_a_sequence_of_one_and_a_broken_file_an_error_row(
    mill: Mill, client: Client, trained: Status, tmp_path: Path, rows: Rows
) -> None:
    Image.new("L", (16, 16), 100).save(tmp_path / "still.png")
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    found = rows(mill.finished(client.classify(tmp_path, model="brightness", max_errors="100%").id))
    assert found["./"]["status"] == "ok", "a still is a frame of the folder that it lies in"
    assert found["broken.gif"]["status"] == "error"


def test_a_generator_labels_nothing(mill: Mill, client: Client, crops: Path, animations: Path) -> None:
    settings = ["size=16", "batch_size=64", "epochs=1"]
    made = mill.finished(client.train("vae", crops, name="artist", settings=settings).id)
    assert made.state == "succeeded"
    with pytest.raises(InvalidInput, match="artist@1 does generate, and this takes a model that does classify"):
        client.classify(crops, model="artist")
