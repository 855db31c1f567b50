"""A list of images goes in: JSON lines, CSV or Parquet, on this machine or in a bucket."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.backend.objects import ObjectStore
from tests.fundamentals.conftest import Label, Rows

NAMES = ["espresso", "giant-panda", "koala"]
LABELS = ["espresso", "giant panda", "koala"]


def jsonl(path: Path, uris: list[str]) -> Path:
    """As SageMaker and Ground Truth write it."""
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps({"source-ref": uri, "note": "é"}) + "\n" for uri in uris))
    return path


def csv_file(path: Path, uris: list[str]) -> Path:
    """As a spreadsheet writes it, with a byte order mark and more columns."""
    path = path.with_suffix(".csv")
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "uri"])
        writer.writerows(["a, note\nof two lines", uri] for uri in uris)
    return path


def parquet(path: Path, uris: list[str]) -> Path:
    path = path.with_suffix(".parquet")
    pq.write_table(pa.table({"uri": uris, "n": list(range(len(uris)))}), path)
    return path


@pytest.fixture(params=[jsonl, csv_file, parquet], ids=["jsonl", "csv", "parquet"])
def manifest(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[list[str]], Path]:
    """Writes a list of addresses in each of the formats."""
    return lambda uris: request.param(tmp_path / "list", uris)


@pytest.fixture
def objects(camera: ObjectStore, photos: dict[str, Path]) -> list[str]:
    """Addresses of three photos in a bucket."""
    for name in NAMES:
        camera.put(f"listed/{name} #1.jpg", photos[name].read_bytes())
    return [f"s3://camera/listed/{name} #1.jpg" for name in NAMES]


def test_a_list_of_objects(label: Label, rows: Rows, manifest: Callable[[list[str]], Path], objects: list[str]) -> None:
    job = label(manifest(objects))

    assert [row["label"] for row in rows(job).values()] == LABELS
    assert [row["uri"] for row in rows(job).values()] == objects


def test_a_list_that_lies_in_the_bucket(
    label: Label, rows: Rows, manifest: Callable[[list[str]], Path], objects: list[str], camera: ObjectStore
) -> None:
    path = manifest(objects)
    camera.put(f"lists/{path.name}", path.read_bytes())

    job = label(f"s3://camera/lists/{path.name}")

    assert [row["label"] for row in rows(job).values()] == LABELS


def test_a_list_of_web_addresses(label: Label, rows: Rows, tmp_path: Path, web: str) -> None:
    job = label(jsonl(tmp_path / "web", [*(f"{web}/{name}.jpg" for name in NAMES), f"{web}/unicorn.jpg"]))

    found = list(rows(job).values())
    assert [row["label"] for row in found] == [*LABELS, None]
    assert found[-1]["error_code"] == "not_found"


def test_a_list_of_files(label: Label, rows: Rows, folder: Path) -> None:
    # Paths are relative to the list, or absolute, or file:// addresses.
    uris = ["espresso.jpg", str(folder / "giant-panda.jpg"), (folder / "koala.jpg").as_uri()]

    job = label(jsonl(folder / "list", uris))

    found = rows(job)
    assert list(found) == ["espresso.jpg", "giant-panda.jpg", "koala.jpg"]
    assert [row["label"] for row in found.values()] == LABELS


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("no-json.jsonl", b'{"uri": "s3://camera/x.jpg"}\nwhat is this?\n'),
        ("no-object.jsonl", b'["s3://camera/x.jpg"]\n'),
        ("no-address.jsonl", b'{"url": "s3://camera/x.jpg"}\n'),
        ("no-column.csv", b"url,note\ns3://camera/x.jpg,\n"),
        ("no-utf-8.csv", "uri\ns3://camera/grün.jpg\n".encode("latin-1")),
        ("no-parquet.parquet", b"PAR1 is how it begins, and that is all"),
    ],
)
def test_a_list_in_the_bucket_that_cannot_be_read_fails_the_job_and_says_why(
    label: Label, camera: ObjectStore, name: str, data: bytes
) -> None:
    camera.put(f"broken/{name}", data)

    job = label(f"s3://camera/broken/{name}")

    assert job.state == "failed"
    assert job.reason
    assert name in job.reason
