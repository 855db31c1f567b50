"""WebDataset tars go in: the images in them are labelled where they are, without unpacking."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidSource
from tests.fundamentals.conftest import Label, Rows

NAMES = ["espresso", "giant-panda", "koala"]
LABELS = ["espresso", "giant panda", "koala"]


def webdataset(photos: dict[str, Path], names: list[str]) -> bytes:
    """A sample is files of one stem: the image, what is known of it, its class."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for n, name in enumerate(names):
            image = photos[name].read_bytes()
            for suffix, content in (
                ("jpg", image),
                ("json", json.dumps({"name": name}).encode()),
                ("cls", str(n).encode()),
            ):
                member = tarfile.TarInfo(f"samples/{name}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


def test_tars_on_this_machine(label: Label, rows: Rows, tmp_path: Path, photos: dict[str, Path]) -> None:
    # Given a data set of two tars, with .json and .cls beside each image,
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train-0000.tar").write_bytes(webdataset(photos, NAMES[:2]))
    (tmp_path / "set" / "train-0001.tar").write_bytes(webdataset(photos, NAMES[2:]))

    # if I label the folder, or one tar of it,
    both, one = label(tmp_path / "set"), label(tmp_path / "set" / "train-0001.tar")

    # I expect a row for each image, and none for what is beside it.
    assert [row["label"] for row in rows(both).values()] == LABELS
    assert list(rows(both))[-1] == "train-0001.tar/samples/koala.jpg"
    assert [row["label"] for row in rows(one).values()] == ["koala"]
    assert both.skipped == 6


def test_tars_in_a_bucket(label: Label, rows: Rows, camera: ObjectStore, photos: dict[str, Path]) -> None:
    camera.put("sets/a/train 0.tar", webdataset(photos, NAMES[:2]))
    camera.put("sets/a/train 1.tar", webdataset(photos, NAMES[2:]))

    both, one = label("s3://camera/sets/a/"), label("s3://camera/sets/a/train 1.tar")

    assert [row["label"] for row in rows(both).values()] == LABELS
    assert [row["label"] for row in rows(one).values()] == ["koala"]


@pytest.mark.parametrize("cut", ["in the last image", "behind its header", "in its header", "before its header"])
def test_a_tar_that_breaks_off(
    label: Label, rows: Rows, camera: ObjectStore, photos: dict[str, Path], cut: str
) -> None:
    # Given a tar whose upload broke off,
    whole = webdataset(photos, NAMES)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        last = tar.getmember("samples/koala.jpg")
    end = {
        "in the last image": last.offset_data + last.size // 2,
        "behind its header": last.offset_data,
        "in its header": last.offset_data - 100,
        "before its header": last.offset,
    }[cut]
    key = f"sets/{cut}/train.tar".replace(" ", "-")
    camera.put(key, whole[:end])

    # if I label it, I expect what is whole to be labelled, and an error row that says what is not.
    job = label(f"s3://camera/{key}")
    found = rows(job)
    assert job.state == "succeeded"
    assert [row["label"] for row in found.values() if row["status"] == "ok"] == LABELS[:2]
    assert job.errors >= 1


def test_a_tar_of_nothing_but_a_header(label: Label, rows: Rows, camera: ObjectStore, photos: dict[str, Path]) -> None:
    camera.put("sets/header/train.tar", webdataset(photos, ["koala"])[:512])

    job = label("s3://camera/sets/header/train.tar")

    assert (job.state, job.ok) == ("succeeded", 0)
    assert all(row["error_code"] for row in rows(job).values())


def test_a_local_file_that_is_no_tar_is_refused_at_once(label: Label, tmp_path: Path) -> None:
    path = tmp_path / "train.tar"
    path.write_bytes(b"no tar at all" * 100)

    with pytest.raises(InvalidSource, match=r"train\.tar cannot be read as a tar"):
        label(path)
