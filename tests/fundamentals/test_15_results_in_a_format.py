"""Results leave in formats that other programs read, and they do read them."""

from __future__ import annotations

import csv
import io
import json
import urllib.request
from pathlib import Path

import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
import pytest
from PIL import Image

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput
from contract.jobs.status import Status
from producer import Client
from tests.fundamentals.conftest import Label, Row, Rows

ODD = """formats/odd, "key"\n of 'two' lines ünd mehr.jpg"""
BROKEN = "formats/broken.jpg"


@pytest.fixture(scope="module")
def job(label: Label, camera: ObjectStore, photos: dict[str, Path]) -> Status:
    """Three photos, one of an odd name, and a broken file."""
    manifest = "formats-list.jsonl"
    for key, name in (("formats/espresso.jpg", "espresso"), ("formats/koala.jpg", "koala"), (ODD, "alpaca")):
        camera.put(key, photos[name].read_bytes())
    camera.put(BROKEN, b"no image")
    keys = ("formats/espresso.jpg", "formats/koala.jpg", ODD, BROKEN)
    camera.put(manifest, "".join(json.dumps({"uri": f"s3://camera/{key}"}) + "\n" for key in keys).encode())
    return label(f"s3://camera/{manifest}", shard_size=3)


@pytest.fixture(scope="module")
def expected(job: Status, rows: Rows) -> dict[str, Row]:
    return rows(job)


def test_jsonl(client: Client, job: Status, expected: dict[str, Row], tmp_path: Path) -> None:
    exported = client.write_results(job.id, "jsonl", tmp_path / "out" / "labels.jsonl")

    lines = (tmp_path / "out" / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert (exported.written, exported.left_out, len(found)) == (4, 0, 4)
    for row in found:
        assert list(row) == list(expected[row["key"]])
        assert (row["label"], row["error_code"]) == tuple(expected[row["key"]][c] for c in ("label", "error_code"))
    assert pyarrow.json.read_json(tmp_path / "out" / "labels.jsonl").num_rows == 4


def test_csv(client: Client, job: Status, expected: dict[str, Row], tmp_path: Path) -> None:
    client.write_results(job.id, "csv", tmp_path / "labels.csv")

    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        found = {row["key"]: row for row in csv.DictReader(file)}
    assert set(found) == set(expected)
    assert found[ODD]["label"] == "llama"
    assert (found[BROKEN]["label"], found[BROKEN]["error_code"]) == ("", "not_an_image")
    assert json.loads(found[ODD]["top_k"])[0]["label"] == "llama"
    options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    assert pyarrow.csv.read_csv(tmp_path / "labels.csv", parse_options=options).num_rows == 4


def test_parquet(client: Client, job: Status, expected: dict[str, Row], tmp_path: Path) -> None:
    client.write_results(job.id, "parquet", tmp_path / "labels.parquet")

    assert {row["key"]: row for row in pq.read_table(tmp_path / "labels.parquet").to_pylist()} == expected


def test_imagefolder(client: Client, job: Status, tmp_path: Path) -> None:
    exported = client.write_results(job.id, "imagefolder", tmp_path / "set")

    # A folder a label, the images themselves, and metadata that names each of them; failures are left out.
    lines = (tmp_path / "set" / "metadata.jsonl").read_text().splitlines()
    found = {line["key"]: line for line in map(json.loads, lines)}
    assert (exported.written, exported.left_out) == (3, 1)
    assert set(found) == {"formats/espresso.jpg", "formats/koala.jpg", ODD}
    assert {line["file_name"].partition("/")[0] for line in found.values()} == {"espresso", "koala", "llama"}
    for line in found.values():
        with Image.open(tmp_path / "set" / line["file_name"]) as image:
            image.load()
    with pytest.raises(InvalidInput, match="is not empty; name a new folder"):
        client.write_results(job.id, "imagefolder", tmp_path / "set")


def test_labelstudio(client: Client, job: Status, camera: ObjectStore) -> None:
    text = io.StringIO()
    exported = client.write_results(job.id, "labelstudio", text)

    tasks = json.loads(text.getvalue())
    assert (exported.written, exported.left_out, len(tasks)) == (3, 1, 3)
    by_key = {task["data"]["key"]: task for task in tasks}
    assert by_key["formats/koala.jpg"]["data"]["image"] == "s3://camera/formats/koala.jpg"
    (prediction,) = by_key["formats/koala.jpg"]["predictions"]
    assert prediction["result"][0]["value"] == {"choices": ["koala"]}

    # With presigned addresses a browser that has no credentials can show them.
    text = io.StringIO()
    client.write_results(job.id, "labelstudio", text, presign_hours=1)
    for task in json.loads(text.getvalue()):
        with urllib.request.urlopen(task["data"]["image"], timeout=10) as answer:
            assert answer.read() == camera.get(task["data"]["key"])


def test_a_folder_of_images_is_no_text(client: Client, job: Status) -> None:
    with pytest.raises(InvalidInput, match="cannot be written to a terminal or a pipe; name a place with -o"):
        client.write_results(job.id, "imagefolder", io.StringIO())
