"""A model with an encoder reconstructs images through their latents, and interpolates between two of them."""

from __future__ import annotations

import io
import json
import struct
from collections import Counter
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contract.backend.objects import ObjectStore
from contract.data import image_index
from contract.errors import InvalidInput, InvalidSource, JobConflict
from contract.jobs.lifecycle import read_plan
from contract.jobs.specs import Source
from contract.jobs.status import Status
from contract.keys.jobs import JobKeys
from contract.models.families import ENCODERS
from contract.models.registry import File, Model, Preprocess, Registry
from producer import Client
from tests.fundamentals.test_23_generate_images import files_of, pixels, rows_of
from tests.mill import Mill
from worker import zoo
from worker.datasets.reader import DatasetReader, Wanted
from worker.sources.fetch import Fetcher

CLASSES = ("espresso", "giant-panda", "goldfish", "koala")


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory, crops: Path) -> Path:
    """Six crops of three of the four classes, one of which has a single image, and a file that is none."""
    made = tmp_path_factory.mktemp("some")
    for name, count in (("espresso", 3), ("goldfish", 2), ("koala", 1)):
        (made / name).mkdir()
        for n in range(count):
            (made / name / f"{n:03d}.png").write_bytes((crops / name / f"{n:03d}.png").read_bytes())
    (made / "goldfish" / "zzz.png").write_bytes(b"no image")
    return made


@pytest.fixture(scope="module")
def reconstructed(mill: Mill, client: Client, painter_and_critic: None, some: Path) -> Status:
    """All of them, in shards of four."""
    return mill.finished(client.generate("painter", reconstruct=some, shard_size=4, job="again").id)


@pytest.fixture(scope="module")
def way(mill: Mill, client: Client, painter_and_critic: None, crops: Path) -> Status:
    """From one koala to another, in shards of four."""
    ends = (crops / "koala" / "001.png", crops / "koala" / "002.png")
    job = client.generate("painter", interpolate=ends, steps=10, classes=["koala"], shard_size=4, job="way")
    return mill.finished(job.id)


def small(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A crop as the model sees it, in 0 to 1."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC)) / 255


def test_every_image_comes_back_with_its_class_and_its_error(client: Client, reconstructed: Status, some: Path) -> None:
    # Given a folder of class folders, if I have it reconstructed,
    assert (reconstructed.kind, reconstructed.state) == ("reconstruct", "succeeded"), reconstructed.reason
    # I expect an image for each that can be read, under its place in the folder; the others are counted.
    assert (reconstructed.total, reconstructed.ok, reconstructed.errors) == (7, 6, 1)
    assert reconstructed.error_codes == {"not_an_image": 1}
    assert reconstructed.labels == {"espresso": 3, "goldfish": 2, "koala": 1}
    rows, files = rows_of(client, reconstructed), files_of(client, reconstructed)
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4, 6]
    assert files.keys() == {f"{row['key']}{end}" for row in rows for end in (".png", ".json")}
    for row in rows:
        assert row["original"].startswith(f"{row['label']}/") and row["seed"] is None
        given, made = small(some / row["original"]), pixels(files[f"{row['key']}.png"]) / 255
        assert row["mse"] == pytest.approx(np.square(given - made).mean(), rel=1e-4)
    # The job has the mean of the errors, and the ratio that goes with it.
    assert reconstructed.metrics is not None
    mean = float(np.mean([row["mse"] for row in rows]))
    assert reconstructed.metrics["mse"] == pytest.approx(mean)
    assert reconstructed.metrics["psnr"] == pytest.approx(-10 * np.log10(mean))


def test_a_reconstruction_is_nearer_to_its_own_original_than_to_others(
    client: Client, reconstructed: Status, some: Path
) -> None:
    files = files_of(client, reconstructed)
    rows = rows_of(client, reconstructed)
    made = {row["original"]: pixels(files[f"{row['key']}.png"]) / 255 for row in rows}
    for name, image in made.items():
        other = next(one for one in made if one.split("/")[0] != name.split("/")[0])
        assert np.square(image - small(some / name)).mean() < np.square(image - small(some / other)).mean(), name


def test_each_file_says_that_it_is_synthetic_and_what_it_was_made_of(client: Client, reconstructed: Status) -> None:
    files = files_of(client, reconstructed)
    row = rows_of(client, reconstructed)[3]
    facts = json.loads(files[f"{row['key']}.json"])
    assert facts["original"] == row["original"] == "goldfish/000.png"
    assert facts["mse"] == pytest.approx(row["mse"])
    assert facts["synthetic"] is True and "seed" not in facts
    with Image.open(io.BytesIO(files[f"{row['key']}.png"])) as image:
        assert image.info["DigitalSourceType"] == image_index.SYNTHETIC == facts["DigitalSourceType"]


def test_the_page_shows_originals_beside_reconstructions(client: Client, reconstructed: Status) -> None:
    page = client.report(reconstructed.id)
    for said in (
        "Source images and reconstructions",
        "Largest errors",
        "PSNR",
        "1 more could not be read",
        "painter@1",
    ):
        assert said in page, said
    assert page.count('src="data:image/png') == 3, "pairs, worst pairs, histogram"
    assert "http://" not in page and "https://" not in page


def test_the_first_of_what_a_job_made(mill: Mill, client: Client, reconstructed: Status) -> None:
    """What was generated is a source like any other."""
    job = client.generate("painter", reconstruct=f"job:{reconstructed.id}", count=2, size=24, image_format="webp")
    found = mill.finished(job.id)
    assert (found.state, found.labels, found.total) == ("succeeded", {"espresso": 2}, 2), found.reason
    assert all(row["width"] == 24 for row in rows_of(client, found))


def test_of_idx_files_the_test_part(mill: Mill, client: Client, reconstructed: Status, tmp_path: Path) -> None:
    # Given IDX files of two parts, if I have them reconstructed in shards of two,
    for part, count in (("train", 9), ("t10k", 5)):
        images, labels = np.full((count, 16, 16), 128, np.uint8), (np.arange(count) % 4).astype(np.uint8)
        head = struct.pack(">4B3I", 0, 0, 8, 3, count, 16, 16)
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, count) + labels.tobytes())
    found = mill.finished(client.generate("painter", reconstruct=tmp_path, shard_size=2).id)

    # I expect the images of the part that tests are made with, of the classes of these numbers.
    assert (found.state, found.total) == ("succeeded", 5), found.reason
    plan = read_plan(client.backend.store, found.id)
    assert plan is not None and plan.shards == 3
    rows = rows_of(client, found)
    assert [(row["label"], row["original"]) for row in rows] == [(CLASSES[n % 4], str(n)) for n in range(5)]


def test_the_way_from_one_image_to_another(client: Client, way: Status, crops: Path) -> None:
    # Given two images of a class, if I ask for ten steps between them,
    assert (way.kind, way.state, way.labels, way.total) == ("interpolate", "succeeded", {"koala": 10}, 10), way.reason
    rows, files = rows_of(client, way), files_of(client, way)
    # I expect them at equal distances, the ends among them, and each file to say what it lies between.
    assert [row["index"] for row in rows] == list(range(10))
    assert [row["position"] for row in rows] == pytest.approx([n / 9 for n in range(10)])
    images = [pixels(files[f"{row['key']}.png"]) / 255 for row in rows]
    facts = json.loads(files[f"{rows[9]['key']}.json"])
    assert (facts["position"], facts["label"], facts["synthetic"]) == (1.0, "koala", True)
    assert [uri.rpartition("/")[2] for uri in facts["between"]] == ["image-0.png", "image-1.png"]
    # No step is as far as the whole way.
    strides = [np.abs(after - before).mean() for before, after in pairwise(images)]
    assert max(strides) < 0.5 * np.abs(images[-1] - images[0]).mean()
    first, last = small(crops / "koala" / "001.png"), small(crops / "koala" / "002.png")
    assert np.square(images[0] - first).mean() < np.square(images[0] - last).mean()
    page = client.report(way.id)
    assert page.count("<img") == 1 and "koala" in page and "001.png" in page and "1609.04468" in page


def test_the_ends_are_the_reconstructions_of_the_two_images(
    mill: Mill, client: Client, way: Status, camera: ObjectStore, crops: Path
) -> None:
    for n in (1, 2):
        camera.put(f"ends/koala/{n}.png", (crops / "koala" / f"00{n}.png").read_bytes())
    again = mill.finished(client.generate("painter", reconstruct="s3://camera/ends/").id)
    ends = [pixels(data) for name, data in sorted(files_of(client, again).items()) if name.endswith(".png")]
    steps = [pixels(data) for name, data in sorted(files_of(client, way).items()) if name.endswith(".png")]
    assert np.abs(ends[0] - steps[0]).max() <= 1
    assert np.abs(ends[1] - steps[-1]).max() <= 1


def test_both_are_data_sets_like_any_other(client: Client, reconstructed: Status, way: Status, tmp_path: Path) -> None:
    for job in (reconstructed, way):
        for layout in ("webdataset", "parquet", "imagefolder"):
            folder = tmp_path / job.id / layout
            stats = client.export(job.id, layout, folder)
            assert {one.label: one.accepted for one in stats.classes} == job.labels
            card = (folder / "README.md").read_text()
            assert (
                "imagemill generate --model painter@1 --" + ("reconstruct" if job is reconstructed else "inter") in card
            )
    lines = [
        json.loads(line) for line in (tmp_path / "again/imagefolder/train/metadata.jsonl").read_text().splitlines()
    ]
    assert {"original", "mse"} <= lines[0].keys() and "seed" not in lines[0]


def test_a_training_takes_them_with_the_classes_that_they_have(
    client: Client, reconstructed: Status, way: Status, tmp_path: Path
) -> None:
    store = client.backend.store
    with closing(Fetcher(store, max_bytes=2**20)) as fetcher:
        reader = DatasetReader(store, fetcher, tmp_path, max_pixels=2**20, threads=1)
        for job, classes in ((reconstructed, ("espresso", "goldfish", "koala")), (way, ("koala",))):
            source = Source(kind="job", uri=job.id, label=f"job:{job.id}")
            data = reader.read(source, Wanted(size=16, channels=3)).data
            assert data.classes == classes
            assert Counter(classes[label] for label in data.labels) == job.labels


def test_what_is_lost_is_made_again_from_the_bucket_alone(
    mill: Mill, client: Client, reconstructed: Status, way: Status
) -> None:
    for job in (reconstructed, way):
        # Given a job without its end and without one of its commits, as if killed before it wrote them,
        before = rows_of(client, job)
        keys = JobKeys(job.id)
        for key in (keys.end, keys.success, keys.commit(1)):
            client.backend.store.delete(key)
        # if its ledger entry is rebuilt, I expect that shard to be generated again, and nothing to differ.
        (found,) = client.rebuild([job.id])
        assert not found.ended
        found = mill.finished(job.id)
        assert (found.state, found.total, found.ok, found.errors) == (job.state, job.total, job.ok, job.errors)
        assert rows_of(client, job) == before


def test_a_schedule_carries_them_where_workers_reach_the_images(
    mill: Mill, client: Client, way: Status, camera: ObjectStore, crops: Path
) -> None:
    a, b = (f"s3://camera/pair/{n}.png" for n in (1, 2))
    for n in (1, 2):
        camera.put(f"pair/{n}.png", (crops / "koala" / f"00{n}.png").read_bytes())
    told = {"model": "painter", "interpolate": (a, b), "steps": 3, "classes": ("koala",)}
    made = client.add_schedule("between", "generate", told, cron="0 0 1 1 *")
    assert (made.kind, made.source) == ("interpolate", f"{a} to {b}")
    assert mill.finished(client.run_schedule("between").id).labels == {"koala": 3}
    client.remove_schedule("between")

    with pytest.raises(InvalidSource, match="is on this machine, and a schedule runs without it"):
        client.add_schedule(
            "between", "generate", told | {"interpolate": (a, str(crops / "koala/001.png"))}, cron="@daily"
        )


def test_what_cannot_be_is_told_before_anything_is_queued(
    client: Client, reconstructed: Status, way: Status, some: Path, tmp_path: Path
) -> None:
    koala = some / "koala" / "000.png"
    gan = Model(
        name="forger",
        version=1,
        family="gan",
        task="generate",
        labels=CLASSES,
        preprocess=Preprocess(size=16, mean=127.5, std=127.5),
        weights=File(name="weights.safetensors", sha256="0" * 64, bytes=0),
    )
    Registry(client.backend.store).enter(gan)
    with pytest.raises(InvalidInput, match="forger@1 is a gan and has no encoder, which --reconstruct needs"):
        client.generate("forger", reconstruct=some)
    with pytest.raises(InvalidInput, match="forger@1 is a gan and has no encoder, which --interpolate needs"):
        client.generate("forger", interpolate=(koala, koala), classes=["koala"])
    client.remove_model("forger@1")
    with pytest.raises(InvalidInput, match="--count is missing"):
        client.generate("painter")
    with pytest.raises(InvalidInput, match="draws nothing; leave --seed out"):
        client.generate("painter", reconstruct=some, seed=1)
    with pytest.raises(InvalidInput, match="leave --class out"):
        client.generate("painter", reconstruct=some, classes=["koala"])
    with pytest.raises(InvalidInput, match="leave --count out"):
        client.generate("painter", interpolate=(koala, koala), classes=["koala"], count=3)
    with pytest.raises(InvalidInput, match="leave --steps out"):
        client.generate("painter", count=3, steps=10)
    with pytest.raises(InvalidInput, match="another of the same class, and 2 are given"):
        client.generate("painter", interpolate=(koala, koala), classes=["koala", "goldfish"])
    with pytest.raises(InvalidInput, match="another of the same class, and none is given"):
        client.generate("painter", interpolate=(koala, koala))
    with pytest.raises(InvalidSource, match=r"There is no file .* here"):
        client.generate("painter", interpolate=(koala, tmp_path / "gone.png"), classes=["koala"])
    (tmp_path / "tapir").mkdir()
    (tmp_path / "tapir" / "1.png").write_bytes(koala.read_bytes())
    with pytest.raises(InvalidSource, match="of the class 'tapir', and the model knows 4 classes"):
        client.generate("painter", reconstruct=tmp_path)
    with pytest.raises(JobConflict, match="was made of other images"):
        client.verify(way.id)
    with pytest.raises(JobConflict, match="exists with steps 10, not 11"):
        client.generate("painter", interpolate=(koala, koala), steps=11, classes=["koala"], shard_size=4, job="way")


def test_what_is_no_image_fails_the_job_with_a_reason(
    mill: Mill, client: Client, reconstructed: Status, some: Path
) -> None:
    ends = (some / "koala" / "000.png", some / "goldfish" / "zzz.png")
    found = mill.finished(client.generate("painter", interpolate=ends, classes=["koala"]).id)
    assert found.state == "failed"
    assert "zzz.png cannot be read as an image (not_an_image); name another one." in str(found.reason)


def test_a_class_that_the_model_does_not_know_fails_the_job_with_a_reason(
    mill: Mill, client: Client, reconstructed: Status, camera: ObjectStore, some: Path
) -> None:
    camera.put("zoo/tapir/1.png", (some / "koala" / "000.png").read_bytes())
    found = mill.finished(client.generate("painter", reconstruct="s3://camera/zoo/").id)
    assert found.state == "failed"
    assert "s3://camera/zoo/ has the label 'tapir', which is none of the 4 classes" in str(found.reason)


def test_the_families_with_an_encoder_are_those_that_the_producer_takes() -> None:
    assert {family for family in zoo.families("generate") if hasattr(zoo.builder(family), "encode")} == set(ENCODERS)
