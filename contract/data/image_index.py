"""Generated images as rows and files: the columns of their index, the names of their members, and how to read both.

A shard of images is two objects of one stem: `shard-000000.tar`, a WebDataset with `<key>.png` and `<key>.json` for
each image, and `shard-000000.parquet`, its index, with a row for each candidate, rejected ones too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

import pyarrow as pa

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.jobs.results import committed, iter_commits
from contract.jobs.specs import ImagesSpec
from contract.jobs.status import ShardCommit

ImageFormat = Literal["png", "webp", "jpeg"]
SUFFIX: dict[ImageFormat, str] = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
REJECTS = ("class", "score", "copy", "duplicate", "surplus")
"""Why a candidate is rejected, in the order of the tests: taken for another class, not surely enough for its own, too
near a training image, too near an accepted one of a lower index, or behind the last that was wanted."""

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""What IPTC calls an image that a trained model has made; in each file as `DigitalSourceType`."""


_OWN: dict[str, list[tuple[str, pa.DataType]]] = {
    "reconstruct": [("original", pa.string()), ("mse", pa.float32())],
    "interpolate": [("position", pa.float32())],
}


def schema(kind: str = "generate") -> pa.Schema:
    """The Arrow schema of the index of a job of a kind.

    `label_index` counts the classes of the generator, `index` the images of a class: image `index` of a class follows
    from weights, `seed`, class, `index` and the parameters of the job alone. `predicted` and `score` are the gate's,
    null where there is none; `duplicate_distance` is to the nearest accepted image of a lower index, `copy_distance` to
    the nearest training image, whose key or row is `nearest`; cosine distances of the gate's features. `sha256`, `size`
    and `offset` are of the file's bytes in the tar of the same stem; null where the image is not kept.

    What is encoded has no seed, and `index` is its place in the source, or on the way between two images. A
    reconstruction has `original`, the name of the image in the source, and `mse`, the mean squared error of its
    pixels, 0 to 1, at the size of the model; an interpolation `position`, 0 at the first image, 1 at the second.
    """
    return pa.schema(
        [
            ("key", pa.string()),
            ("label", pa.string()),
            ("label_index", pa.int32()),
            ("seed", pa.int64()),
            ("index", pa.int64()),
            ("accepted", pa.bool_()),
            ("reject_reason", pa.string()),
            ("predicted", pa.string()),
            ("score", pa.float32()),
            ("duplicate_distance", pa.float32()),
            ("copy_distance", pa.float32()),
            ("nearest", pa.string()),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("size", pa.int64()),
            ("offset", pa.int64()),
            ("model", pa.string()),
            ("weights_sha256", pa.string()),
            *_OWN.get(kind, []),
        ]
    )


def sha256(data: bytes) -> str:
    """What an index says of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def sample_key(label: int, index: int) -> str:
    """The stem of an image's members in a tar, without dots, sorted by class and index."""
    return f"{label:05d}-{index:09d}"


def tar_of(output: str) -> str:
    """The address of the tar that belongs to an index."""
    return output.removesuffix(".parquet") + ".tar"


def shards(store: ObjectStore, spec: ImagesSpec) -> Iterator[tuple[ShardCommit, pa.Table]]:
    """The index of each shard that is part of the outcome, in their order, with its commit.

    The commits of a synthesis that did not get to its end are of candidates, from which nothing is chosen yet; they lie
    elsewhere. Raises ObjectDamaged where an index is not what was committed.
    """
    for commit in iter_commits(store, spec.id):
        if commit.output is not None and commit.output.startswith(spec.output):
            yield commit, committed(store, commit)


def read_tar(store: ObjectStore, commit: ShardCommit) -> bytes:
    """The images of a committed shard, as a tar."""
    assert commit.output is not None, "a committed shard of images has an index"
    bucket, key = parse_s3(tar_of(commit.output))
    return store.get(key, bucket=bucket)
