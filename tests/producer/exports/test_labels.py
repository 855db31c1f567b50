"""Labelled rows in the formats that people know."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.data.items import Item
from contract.data.label_rows import schema
from contract.errors import ImageNotFound, InvalidInput
from contract.jobs.results import Row
from producer.exports.folder_names import FolderNames, safe
from producer.exports.labels import csv as csv_format
from producer.exports.labels import imagefolder, jsonl, labelstudio, parquet
from producer.exports.labels.source import Labels


def row(key: str = "a.jpg", label: str = "tabby cat", index: int = 281, data: bytes = b"bytes") -> Row:
    top = [{"label": label, "label_index": index, "score": 0.12345678}]
    return {
        "key": key,
        "uri": f"s3://camera/{key}",
        "sha256": hashlib.sha256(data).hexdigest(),
        "status": "ok",
        "error_code": None,
        "error_message": None,
        "width": 4,
        "height": 3,
        "label": label,
        "label_index": index,
        "score": 0.12345678,
        "top_k": top,
        "model": "cnn@1",
        "weights_sha256": "0" * 64,
    }


def failure(key: str = "bad.jpg") -> Row:
    nothing = dict.fromkeys(schema().names)
    return {
        **nothing,
        "key": key,
        "uri": f"s3://camera/{key}",
        "status": "error",
        "error_code": "truncated",
        "error_message": "…",
    }


def labels_in(
    rows: list[Row],
    *,
    columns: pa.Schema | None = None,
    read: Callable[[Item], bytes] = lambda item: b"bytes",
    link: Callable[[str], str] = str,
) -> Labels:
    columns = schema() if columns is None else columns
    tables = [pa.Table.from_pylist([one], schema=columns) for one in rows]
    return Labels(columns, lambda: tables, lambda: [[(one, item(one)) for one in rows]], read, link)


def item(row: Row) -> Item:
    return Item(key=row["key"], uri=row["uri"])


def test_jsonl_is_one_row_a_line_with_short_floats() -> None:
    out = io.StringIO()

    assert jsonl.write(labels_in([row("ü.jpg"), failure()]), out) == (2, 0)
    first, second = out.getvalue().splitlines()
    assert '"key": "ü.jpg"' in first
    assert json.loads(first)["top_k"][0]["score"] == json.loads(first)["score"] == 0.123457
    assert json.loads(second)["label"] is None


def test_csv_keeps_lists_as_json() -> None:
    out = io.StringIO()
    csv_format.write(labels_in([row(), failure()]), out)

    first, second = csv.DictReader(io.StringIO(out.getvalue()))
    assert json.loads(first["top_k"]) == [{"label": "tabby cat", "label_index": 281, "score": 0.123457}]
    assert (second["label"], second["error_code"]) == ("", "truncated")


def test_parquet_keeps_the_embeddings(tmp_path: Path) -> None:
    columns = schema(embedding=True)
    labelled = {**row(), "embedding": [1.0, 2.0]}

    assert parquet.write(labels_in([failure(), labelled], columns=columns), tmp_path / "out.parquet") == (2, 0)
    assert pq.read_table(tmp_path / "out.parquet")["embedding"].to_pylist() == [None, [1.0, 2.0]]


def test_labelstudio_is_a_list_of_tasks_with_predictions() -> None:
    out = io.StringIO()

    counts = labelstudio.write(labels_in([failure(), row("a.jpg"), row("b.jpg")], link=str.upper), out)

    first, _ = json.loads(out.getvalue())
    assert counts == (2, 1)
    assert first["data"]["image"] == "S3://CAMERA/A.JPG"
    (prediction,) = first["predictions"]
    assert prediction["model_version"] == "cnn@1"
    assert prediction["result"][0]["value"] == {"choices": ["tabby cat"]}


def test_labelstudio_without_rows_is_an_empty_list() -> None:
    out = io.StringIO()
    labelstudio.write(labels_in([]), out)

    assert json.loads(out.getvalue()) == []


# The image folder


def test_an_image_folder_has_a_folder_a_label_and_metadata(tmp_path: Path) -> None:
    rows = [row("x/a.jpg"), row("y/a.jpg"), failure()]

    counts = imagefolder.write(labels_in(rows), tmp_path / "out")

    lines = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert counts == (2, 1)
    assert [line["key"] for line in lines] == ["x/a.jpg", "y/a.jpg"]
    assert len({line["file_name"] for line in lines}) == 2
    for line in lines:
        assert line["file_name"].startswith("tabby cat/")
        assert (tmp_path / "out" / line["file_name"]).read_bytes() == b"bytes"
    assert not list((tmp_path / "out").glob(".*"))


def test_an_image_that_is_gone_or_another_one_now_is_left_out(tmp_path: Path) -> None:
    gone, changed = row("gone.jpg"), row("changed.jpg", data=b"as it was")

    def read(item: Item) -> bytes:
        if item.key == "gone.jpg":
            raise ImageNotFound("gone")
        return b"as it is"

    assert imagefolder.write(labels_in([gone, changed], read=read), tmp_path) == (0, 2)


def test_a_folder_with_files_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").touch()

    with pytest.raises(InvalidInput, match="is not empty"):
        imagefolder.write(labels_in([]), tmp_path)


def test_two_labels_that_are_spelled_alike_have_two_folders() -> None:
    names = FolderNames()

    assert names.of("crane", 134) == "crane"
    assert names.of("crane", 517) == "crane-517"
    assert names.of("crane", 134) == "crane"
    assert names.of("crane", 517) == "crane-517"


def test_labels_that_become_alike_when_they_are_made_safe_have_folders_of_their_own() -> None:
    names = FolderNames()
    labels = ["T-shirt/top", "T-shirt_top", "t-shirt:top", "T-shirt_top-1"]

    folders = [names.of(label, index) for index, label in enumerate(labels)]

    assert folders[0] == "T-shirt_top"
    assert len({folder.lower() for folder in folders}) == 4
    assert folders == [names.of(label, index) for index, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tabby, cat", "tabby_ cat"), ("../up", "up"), ("a/b", "a_b"), ("...", "unnamed"), ("éclair", "éclair")],
)
def test_names_are_safe_for_every_file_system(name: str, expected: str) -> None:
    assert safe(name) == expected


@pytest.mark.parametrize(
    ("key", "data", "suffix"),
    [("a.JPG", b"", ".jpg"), ("object", b"\x89PNG\r\n\x1a\n", ".png"), ("v1.5", b"\xff\xd8\xff", ".jpg")],
)
def test_a_file_has_the_suffix_of_an_image(key: str, data: bytes, suffix: str) -> None:
    assert Path(imagefolder.file_name(row(key), data)).suffix == suffix
