"""Generate images: as many of each class, each by its number, in tars that other tools read."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contract.data import image_index
from contract.data.items import parse_s3
from contract.errors import InvalidInput, JobConflict
from contract.jobs.lifecycle import read_images
from contract.jobs.status import Status
from producer import Client
from tests.mill import Mill

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def generated(mill: Mill, client: Client, painter_and_critic: None) -> Status:
    """150 images of four classes, in shards of 64."""
    return mill.finished(client.generate("painter", count=150, shard_size=64, job="painted").id)


def rows_of(client: Client, job: Status) -> list[dict[str, Any]]:
    spec = read_images(client.backend.store, job.id)
    return [row for _, table in image_index.shards(client.backend.store, spec) for row in table.to_pylist()]


def files_of(client: Client, job: Status) -> Files:
    """Every member of every tar."""
    found: Files = {}
    for commit, _ in image_index.shards(client.backend.store, read_images(client.backend.store, job.id)):
        with tarfile.open(fileobj=io.BytesIO(image_index.read_tar(client.backend.store, commit))) as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    return found


def pixels(data: bytes) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.int16)


def test_as_many_of_each_class_as_can_be(client: Client, generated: Status) -> None:
    # Given a generator of four classes, if I ask for 150 images,
    assert (generated.kind, generated.state, generated.model) == ("generate", "succeeded", "painter@1"), generated
    assert generated.done == generated.total == 150

    # I expect 37 of each, one more of the first two, numbered from 0, each with its file and its facts.
    rows = rows_of(client, generated)
    assert generated.labels is not None
    assert Counter(row["label"] for row in rows) == generated.labels
    assert sorted(generated.labels.values()) == [37, 37, 38, 38]
    for label in range(4):
        numbers = sorted(row["index"] for row in rows if row["label_index"] == label)
        assert numbers == list(range(len(numbers)))
    files = files_of(client, generated)
    assert files.keys() == {f"{row['key']}{suffix}" for row in rows for suffix in (".png", ".json")}
    assert all(pixels(files[f"{row['key']}.png"]).shape == (16, 16, 3) for row in rows)


def test_each_image_says_that_it_is_synthetic_and_how_to_make_it_again(client: Client, generated: Status) -> None:
    files = files_of(client, generated)
    facts = json.loads(files["00002-000000005.json"])
    assert (facts["label"], facts["index"], facts["seed"], facts["model"]) == ("goldfish", 5, 0, "painter@1")
    assert facts["synthetic"] is True
    with Image.open(io.BytesIO(files["00002-000000005.png"])) as image:
        assert image.info["DigitalSourceType"] == image_index.SYNTHETIC == facts["DigitalSourceType"]


def test_a_smaller_job_is_the_beginning_of_a_larger_one(mill: Mill, client: Client, generated: Status) -> None:
    few = mill.finished(client.generate("painter", count=40, shard_size=16).id)
    whole = files_of(client, generated)
    for name, data in files_of(client, few).items():
        if name.endswith(".png"):
            assert np.abs(pixels(data) - pixels(whole[name])).max() <= 1, name

    other = files_of(client, mill.finished(client.generate("painter", count=4, seed=1).id))
    assert all(data != whole[name] for name, data in other.items()), "another seed, other images"


@pytest.mark.parametrize(("image_format", "suffix"), [("webp", ".webp"), ("jpeg", ".jpg")])
def test_another_size_and_format(mill: Mill, client: Client, image_format: Any, suffix: str, generated: Status) -> None:
    job = client.generate("painter", count=3, classes=["koala"], size=40, image_format=image_format)
    files = files_of(client, mill.finished(job.id))
    images = {name: data for name, data in files.items() if name.endswith(suffix)}
    assert set(images) == {f"00003-00000000{n}{suffix}" for n in range(3)}
    for data in images.values():
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (40, 40)
            assert image_index.SYNTHETIC in str(image.getexif()[0x010E])
            assert f'DigitalSourceType="{image_index.SYNTHETIC}"'.encode() in data, "as XMP"


def test_a_page_with_a_sheet_a_class(client: Client, generated: Status) -> None:
    page = client.report(generated.id)
    assert page.count("<img") == 4 and "painter@1" in page and "seed 0" in page


def test_truncation_makes_images_more_alike(mill: Mill, client: Client, generated: Status) -> None:
    def spread(job: Status) -> float:
        images = [pixels(data) for name, data in files_of(client, job).items() if name.endswith(".png")]
        return float(np.stack(images).std(axis=0).mean())

    plain = mill.finished(client.generate("painter", count=32, classes=["koala"]).id)
    narrow = mill.finished(client.generate("painter", count=32, classes=["koala"], truncation=0.3).id)
    assert spread(narrow) < 0.7 * spread(plain)


def test_a_job_is_verified_from_its_records(mill: Mill, client: Client, generated: Status) -> None:
    found = mill.finished(client.verify("painted", sample=20).id)
    assert (found.kind, found.state, found.model) == ("verify", "succeeded", "painter@1"), found.reason
    assert found.metrics is not None
    assert (found.total, found.metrics["compared"]) == (20, 20)
    assert found.metrics["max_difference"] <= 1

    # A file that was changed behind our back is named,
    commit, _ = next(image_index.shards(client.backend.store, read_images(client.backend.store, "painted")))
    bucket, key = parse_s3(image_index.tar_of(str(commit.output)))
    tar = client.backend.store.get(key, bucket=bucket)
    at = tar.index(b"IDAT") + 8
    client.backend.store.put(key, tar[:at] + bytes([tar[at] ^ 1]) + tar[at + 1 :], bucket=bucket)
    found = mill.finished(client.verify("painted", sample=150).id)
    client.backend.store.put(key, tar, bucket=bucket)
    assert found.state == "failed"
    assert "is not what its record says" in str(found.reason)

    # and a job that generated nothing cannot be verified.
    with pytest.raises(JobConflict, match="generated nothing, its kind is verify"):
        client.verify(found.id)


def test_what_cannot_be_is_told_before_anything_is_queued(client: Client, generated: Status) -> None:
    with pytest.raises(InvalidInput, match=r"painter@1 has no class 'kuala'; did you mean 'koala'"):
        client.generate("painter", count=4, classes=["kuala"])
    with pytest.raises(InvalidInput, match="does classify, and this takes a model that does generate"):
        client.generate("critic", count=4)
    with pytest.raises(InvalidInput, match="--count"):
        client.generate("painter", count=0)
    with pytest.raises(JobConflict, match="exists with count 150, not 151"):
        client.generate("painter", count=151, shard_size=64, job="painted")
