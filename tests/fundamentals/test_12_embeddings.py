"""With `embed`, each row also carries what the model sees: 1,280 numbers, near for photos that are alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from producer import Client
from tests.fundamentals.conftest import Label, Rows


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


def test_without_asking_there_are_none(label: Label, rows: Rows, folder: Path) -> None:
    assert "embedding" not in rows(label(folder))["koala.jpg"]
