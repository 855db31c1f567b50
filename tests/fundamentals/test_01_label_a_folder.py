"""A folder of photos goes in; one row a photo comes out."""

from __future__ import annotations

import hashlib
from pathlib import Path

from contract.backend.objects import ObjectStore
from producer import Client
from tests.conftest import PHOTOS
from tests.fundamentals.conftest import EVIDENT, MODEL, Label, Rows


def test_a_koala_is_a_koala(label: Label, rows: Rows) -> None:
    # If I label the photos that the project ships,
    job = label(PHOTOS)

    # I expect each of them to be one row, and SOURCES.md, which is no image, to be skipped,
    assert (job.state, job.total, job.ok, job.errors, job.skipped) == ("succeeded", 37, 37, 0, 1)
    found = rows(job)
    assert set(found) == {path.name for path in PHOTOS.glob("*.jpg")}

    # and each to be called what it is.
    assert {name: found[f"{name}.jpg"]["label"] for name in EVIDENT} == EVIDENT


def test_a_row_says_what_was_labelled_by_what(label: Label, rows: Rows, folder: Path, client: Client) -> None:
    job = label(folder)

    row = rows(job)["koala.jpg"]

    file = folder / "koala.jpg"
    model = client.model(MODEL)
    assert list(row) == [
        *("key", "uri", "sha256", "status", "error_code", "error_message", "width", "height"),
        *("label", "label_index", "score", "top_k", "model", "weights_sha256"),
    ]
    assert row["uri"] == file.as_uri()
    assert row["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (row["status"], row["error_code"], row["error_message"]) == ("ok", None, None)
    assert (row["width"], row["height"]) == (480, 640)
    assert (row["label"], model.labels[row["label_index"]]) == ("koala", "koala")
    assert 0.5 < row["score"] <= 1
    assert (row["model"], row["weights_sha256"]) == (model.ref, model.weights.sha256)


def test_folders_inside_are_labelled_too(label: Label, rows: Rows, folder: Path) -> None:
    # Given a folder in a folder, names that are hard to spell, and files that are no photos,
    inside = folder / "zoo" / "australia & more"
    inside.mkdir(parents=True)
    (folder / "koala.jpg").rename(inside / "köala +100% #1?.JPG")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.jpg").write_text("not an image either")

    # if I label it, I expect keys that are paths within the folder.
    job = label(folder)
    found = rows(job)
    assert set(found) == {
        *("espresso.jpg", "giant-panda.jpg", "polar-bear.jpg"),
        "zoo/australia & more/köala +100% #1?.JPG",
    }
    assert found["zoo/australia & more/köala +100% #1?.JPG"]["label"] == "koala"
    assert job.skipped == 2


def test_the_results_are_parquet_files_in_the_bucket(label: Label, folder: Path, camera: ObjectStore) -> None:
    # If I say where results go,
    job = label(folder, shard_size=2, to="s3://camera/labels")

    # I expect one Parquet file a shard there, a summary, counts by label, and `_SUCCESS`.
    prefix = f"labels/{job.id}/"
    assert job.output == f"s3://camera/{prefix}"
    assert {entry.key.removeprefix(prefix) for entry in camera.list(prefix)} == {
        *("shard-000000.parquet", "shard-000001.parquet"),
        *("summary.json", "labels.csv", "_SUCCESS"),
    }
    lines = camera.get(f"{prefix}labels.csv").decode().splitlines()
    assert lines[0] == "label,images"
    assert set(lines[1:]) == {"koala,1", "giant panda,1", "ice bear,1", "espresso,1"}
