"""A sequence may be many files: the still images of a folder, or the frames that a row of a manifest lists."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from contract.backend.objects import ObjectStore
from contract.jobs.status import Status
from producer import Client
from tests.mill import Mill

Rows = Callable[[Status], dict[str, dict[str, object]]]
SETTINGS = ["channels=1", "batch_size=16", "learning_rate=0.01", "ema=0.5", "hidden=16", "frames=5"]
FIRST = 8
"""The number of the first frame, so that the order of names is not that of letters: frame-8, frame-9, frame-10."""


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLASS/SEQUENCE/frame-8.png: gray squares that grow brighter, or darker, in three to seven frames."""
    made = tmp_path_factory.mktemp("walks")
    rng = random.Random(0)
    for label in ("brighter", "darker"):
        for n in range(40):
            folder = made / label / f"{n:02d}"
            folder.mkdir(parents=True)
            # No level twice: an animation would show it once, for longer.
            levels = sorted(rng.sample(range(0, 256, 8), rng.randint(3, 7)), reverse=label == "darker")
            for number, level in enumerate(levels, FIRST):
                Image.new("L", (16, 16), level).save(folder / f"frame-{number}.png")
    return made


def frames(folder: Path) -> list[Path]:
    """The frames of a sequence in their order."""
    return sorted(folder.iterdir(), key=lambda path: int(path.stem.split("-")[1]))


def some(walks: Path) -> list[Path]:
    """Three sequences of each class."""
    return [walks / label / f"{n:02d}" for label in ("brighter", "darker") for n in range(3)]


@pytest.fixture(scope="module")
def trained(mill: Mill, client: Client, walks: Path) -> Status:
    return mill.finished(client.train("rnn", walks, name="daylight", epochs=12, settings=SETTINGS).id)


@pytest.fixture(scope="module")
def labels(mill: Mill, client: Client, trained: Status, walks: Path, rows: Rows) -> dict[str, dict[str, object]]:
    """The rows of all sequences, by `CLASS/SEQUENCE/`."""
    return rows(mill.finished(client.classify(walks, model="daylight").id))


def test_it_trains_on_folders_of_frames_and_is_judged_by_them(
    mill: Mill, client: Client, trained: Status, walks: Path
) -> None:
    assert (trained.state, client.model("daylight").task) == ("succeeded", "classify-sequence")
    assert client.model("daylight").labels == ("brighter", "darker")
    judged = mill.finished(client.evaluate("daylight", walks).id)
    assert judged.metrics is not None and judged.metrics["top1"] >= 0.9


def test_a_folder_is_one_row(labels: dict[str, dict[str, object]], walks: Path) -> None:
    assert set(labels) == {f"{path.parent.name}/{path.name}/" for path in walks.glob("*/*")}
    assert sum(row["label"] == key.split("/")[0] for key, row in labels.items()) >= 72
    assert labels["darker/07/"]["uri"] == f"{(walks / 'darker' / '07').as_uri()}/"
    assert (labels["darker/07/"]["width"], labels["darker/07/"]["height"]) == (16, 16)


def test_an_animation_of_the_same_frames_has_the_same_label(
    mill: Mill, client: Client, labels: dict[str, dict[str, object]], walks: Path, tmp_path: Path, rows: Rows
) -> None:
    # Given the same sequences without loss in one file each, among them folders of frames as before,
    for folder in some(walks):
        first, *rest = [Image.open(path) for path in frames(folder)]
        target = tmp_path / folder.parent.name / f"{folder.name}.webp"
        target.parent.mkdir(exist_ok=True)
        first.save(target, save_all=True, append_images=rest, duration=50, lossless=True)
    for label in ("brighter", "darker"):
        (tmp_path / label / "more").symlink_to(walks / label / "09")

    found = rows(mill.finished(client.classify(tmp_path, model="daylight").id))

    # I expect the same labels with the same scores, no matter which sequences were padded together.
    assert len(found) == 8
    for key, row in found.items():
        same = labels[key.replace(".webp", "/").replace("more", "09")]
        assert row["label"] == same["label"]
        assert row["score"] == pytest.approx(same["score"], abs=1e-4)


def test_a_prefix_of_a_bucket_is_read_the_same(
    mill: Mill,
    client: Client,
    camera: ObjectStore,
    labels: dict[str, dict[str, object]],
    walks: Path,
    rows: Rows,
) -> None:
    for folder in some(walks):
        for path in frames(folder):
            camera.put(f"walks/{path.relative_to(walks)}", path.read_bytes())
    found = rows(mill.finished(client.classify("s3://camera/walks/", model="daylight", shard_size=2).id))
    assert len(found) == 6
    for key, row in found.items():
        assert row["uri"] == f"s3://camera/{key}"
        assert (row["label"], row["sha256"]) == (
            labels[key.removeprefix("walks/")]["label"],
            labels[key.removeprefix("walks/")]["sha256"],
        )
    judged = mill.finished(client.evaluate("daylight", "s3://camera/walks/").id)
    assert judged.total == 6


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_row_of_a_manifest_lists_frames_in_their_order(
    mill: Mill,
    client: Client,
    camera: ObjectStore,
    labels: dict[str, dict[str, object]],
    walks: Path,
    tmp_path: Path,
    rows: Rows,
    kind: str,
) -> None:
    # Given sequences that grow brighter, here by their paths, elsewhere by addresses, and each backwards too,
    listed = []
    for folder in some(walks)[:3]:
        paths = frames(folder)
        addresses = [str(path) for path in paths]
        if kind != "jsonl":
            addresses = [f"s3://camera/rows/{path.relative_to(walks)}" for path in paths]
            for path in paths:
                camera.put(f"rows/{path.relative_to(walks)}", path.read_bytes())
        listed += [addresses, addresses[::-1]]
    manifest = tmp_path / f"list.{kind}"
    if kind == "jsonl":
        manifest.write_text("".join(json.dumps({"frames": one}) + "\n" for one in listed))
    elif kind == "csv":
        with manifest.open("w", newline="") as file:
            csv.writer(file).writerows([["frames"], *([json.dumps(one)] for one in listed)])
    else:
        pq.write_table(pa.table({"frames": listed}), manifest)

    found = rows(mill.finished(client.classify(manifest, model="daylight").id))

    # I expect a row each, named by its number, and backwards the other label.
    assert set(found) == {f"list.{kind}#{n}" for n in range(1, 7)}
    assert str(found[f"list.{kind}#1"]["uri"]).endswith("#1")
    for n, folder in enumerate(some(walks)[:3]):
        same = labels[f"brighter/{folder.name}/"]
        assert found[f"list.{kind}#{2 * n + 1}"]["label"] == same["label"] == "brighter"
        assert found[f"list.{kind}#{2 * n + 2}"]["label"] == "darker"


def test_a_manifest_with_labels_trains_and_judges(mill: Mill, client: Client, walks: Path, tmp_path: Path) -> None:
    rows = [
        {"frames": [str(path) for path in frames(folder)], "label": f"it grows {folder.parent.name}"}
        for folder in sorted(walks.glob("*/*"))
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trained = mill.finished(client.train("rnn", tmp_path / "list.jsonl", name="dusk", epochs=12, settings=SETTINGS).id)
    assert trained.state == "succeeded"
    assert client.model("dusk").labels == ("it grows brighter", "it grows darker")
    judged = mill.finished(client.evaluate("dusk", tmp_path / "list.jsonl").id)
    assert judged.metrics is not None and judged.metrics["top1"] >= 0.9


def test_a_bad_frame_is_one_error_row_and_can_be_retried(
    mill: Mill, client: Client, camera: ObjectStore, trained: Status, walks: Path, rows: Rows
) -> None:
    # Given one sequence with two bad frames beside a good one,
    good, bad = some(walks)[:2]
    for folder in (good, bad):
        for path in frames(folder):
            camera.put(f"bad/{path.relative_to(walks)}", path.read_bytes())
    broken = [f"bad/brighter/01/frame-{n}.png" for n in (9, 10)]
    for key in broken:
        camera.put(key, b"no image")

    job = mill.finished(client.classify("s3://camera/bad/", model="daylight", max_errors="1").id)

    # I expect one error that names the first of them, and nothing wrong with the other sequence;
    found = rows(job)
    assert (job.ok, job.errors) == (1, 1)
    row = found["bad/brighter/01/"]
    assert row["error_code"] == "not_an_image"
    assert str(row["error_message"]).startswith(f"The frame s3://camera/{broken[0]}: The 8 bytes are of no image")

    # and when the frames are mended and the job is retried, both are labelled.
    for key in broken:
        camera.put(key, (bad / Path(key).name).read_bytes())
    assert mill.finished(client.retry(job.id).id).errors == 0
    assert rows(client.status(job.id))["bad/brighter/00/"] == found["bad/brighter/00/"]


def test_frames_that_are_not_looked_at_are_not_read(
    mill: Mill, client: Client, camera: ObjectStore, trained: Status, tmp_path: Path, rows: Rows
) -> None:
    # Given 101 frames and a model that looks at five, if all others are broken,
    manifest = {"frames": [f"s3://camera/long/{n}.png" for n in range(101)]}
    for n in range(101):
        camera.put(f"long/{n}.png", b"no image")
    for n in (0, 25, 50, 75, 100):
        Image.new("L", (16, 16), 2 * n).save(tmp_path / "frame.png")
        camera.put(f"long/{n}.png", (tmp_path / "frame.png").read_bytes())
    (tmp_path / "list.jsonl").write_text(json.dumps(manifest) + "\n")

    # I expect that nobody notices, in a folder and in a manifest.
    for source, key in (("s3://camera/long/", "long/"), (tmp_path / "list.jsonl", "list.jsonl#1")):
        found = rows(mill.finished(client.classify(source, model="daylight").id))
        assert (found[key]["status"], found[key]["label"]) == ("ok", "brighter")


def test_labels_of_sequences_teach_another_model(mill: Mill, client: Client, trained: Status, walks: Path) -> None:
    labelled = mill.finished(client.classify(walks, model="daylight").id)
    taught = mill.finished(
        client.train("rnn", f"job:{labelled.id}", name="pupil", epochs=1, settings=[*SETTINGS[:-1], "frames=3"]).id
    )
    assert taught.state == "succeeded"
    refused = mill.finished(client.train("cnn", f"job:{labelled.id}", name="still", epochs=1).id)
    assert refused.state == "failed"
    assert refused.reason is not None and "a model of images needs images" in refused.reason


def test_an_image_folder_has_no_place_for_a_sequence_of_files(
    mill: Mill, client: Client, trained: Status, walks: Path, tmp_path: Path
) -> None:
    job = mill.finished(client.classify(walks / "darker", model="daylight").id)
    exported = client.write_results(job.id, "imagefolder", tmp_path / "out")
    assert (exported.written, exported.left_out) == (0, 40)


def test_a_model_of_images_sees_every_still(mill: Mill, client: Client, walks: Path, rows: Rows) -> None:
    found = rows(mill.finished(client.classify(walks / "darker" / "00", model="efficientnet-lite0").id))
    assert set(found) == {path.name for path in (walks / "darker" / "00").iterdir()}
