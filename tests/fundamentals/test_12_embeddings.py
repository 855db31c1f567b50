"""With `embed`, each row also carries what the model sees: 1,280 numbers, near for photos that are alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from contract.jobs.reviews import neighbours
from producer import Client
from tests.fundamentals.conftest import Label, Rows
from tests.waiting import wait_until


def test_alike_is_near(label: Label, rows: Rows, photos: dict[str, Path], tmp_path: Path) -> None:
    # Given some photos, and one of them mirrored and smaller,
    for name in ("tabby-cat", "kitten", "castle", "koala", "espresso", "dam"):
        (tmp_path / f"{name}.jpg").write_bytes(photos[name].read_bytes())
    with Image.open(photos["koala"]) as koala:
        ImageOps.mirror(koala).resize((300, 400)).save(tmp_path / "mirrored.jpg")

    # if I ask for embeddings,
    found = rows(label(tmp_path, embed=True))

    # I expect vectors of 1,280 numbers, with similar directions for similar images.
    vectors = {key.removesuffix(".jpg"): np.array(row["embedding"]) for key, row in found.items()}
    assert {vector.shape for vector in vectors.values()} == {(1280,)}

    def alike(one: str, other: str) -> float:
        a, b = vectors[one], vectors[other]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    others = sorted(set(vectors) - {"mirrored"})
    assert max(others, key=lambda name: alike("mirrored", name)) == "koala"
    assert alike("tabby-cat", "kitten") > max(alike("tabby-cat", n) for n in ("castle", "espresso", "dam"))


def test_they_are_float32_in_parquet(client: Client, label: Label, folder: Path, tmp_path: Path) -> None:
    # Given shards of one image, and one in which it failed, so that it has no embedding to write,
    (folder / "aaa.jpg").write_bytes(b"no image")
    job = label(folder, embed=True, shard_size=1)

    client.write_results(job.id, "parquet", tmp_path / "labels.parquet")

    table = pq.read_table(tmp_path / "labels.parquet")
    assert table.schema.field("embedding").type.value_type == pa.float32()
    assert [len(vector or ()) for vector in table["embedding"].to_pylist()] == [0, 1280, 1280, 1280, 1280]
    assert table["embedding"].null_count == 1
    assert table["key"].to_pylist()[0] == "aaa.jpg"


def test_images_are_compared_by_them_when_the_page_is_asked_for(
    client: Client, label: Label, photos: dict[str, Path], tmp_path: Path
) -> None:
    # Given photos of which one is there twice, the second time mirrored,
    for name in ("tabby-cat", "castle", "koala", "espresso"):
        (tmp_path / f"{name}.jpg").write_bytes(photos[name].read_bytes())
    with Image.open(photos["koala"]) as koala:
        ImageOps.mirror(koala).save(tmp_path / "mirrored.jpg")
    job = label(tmp_path, embed=True)
    store = client.backend.store
    assert neighbours.read(store, job.id, end=job.finished_at) is None
    # if somebody asks for what is made of the whole job, I expect a table in which the two are nearest to each other.
    client.report(job.id)
    table = wait_until(lambda: neighbours.read(store, job.id, end=job.finished_at), 30, "the images to be compared")
    found = {row["key"]: row for row in table.to_pylist()}
    nearest = sorted(found, key=lambda key: found[key]["distance"])[:2]
    assert len(found) == 5 and set(nearest) == {"koala.jpg", "mirrored.jpg"}


def test_without_asking_there_are_none(label: Label, rows: Rows, folder: Path) -> None:
    assert "embedding" not in rows(label(folder))["koala.jpg"]
