"""Generated images as rows and files: the columns of their index, the names of their members, and how to read both.

A shard of images is two objects of one stem: `shard-000000-DIGEST.tar`, a WebDataset with `<key>.png` and `<key>.json`
for each image, and `shard-000000-DIGEST.parquet`, its index, with a row for each candidate, rejected ones too. The
digest is that of their content, and the commit names them; older versions wrote `shard-000000.tar`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.errors import ObjectDamaged
from contract.jobs.commits import in_parallel, iter_commits
from contract.jobs.results import committed
from contract.jobs.specs import ImagesSpec
from contract.jobs.status import Output, ShardCommit
from contract.keys.jobs import JobKeys
from contract.keys.shards import parse_shard
from contract.records import ImageFormat

SUFFIX: dict[ImageFormat, str] = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
REJECT_REASONS = {
    "class": "The gate takes the image for another class.",
    "score": "The gate is less sure of the class than `--min-score`.",
    "copy": "A training image from `--away-from` is nearer than `--copy-distance`.",
    "duplicate": "An accepted image, of a lower index or an earlier version of the dataset, is nearer than `--dedup`.",
    "surplus": "The class already has as many images as were asked for.",
}
"""Why a candidate is rejected, in the order of the tests; the reference prints it."""
REJECTS = tuple(REJECT_REASONS)

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""What IPTC calls an image that a trained model has made; in each file as `DigitalSourceType`."""


_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "key": (pa.string(), "Stem of the image's members in the tar."),
    "label": (pa.string(), "Class that was asked for."),
    "label_index": (pa.int32(), "Index of that class in the generator's labels."),
    "seed": (pa.int64(), "Seed of the job; null for an encoded image."),
    "index": (pa.int64(), "Number of the image within its class. For an encoded image, its place in the source."),
    "accepted": (pa.bool_(), "Whether the image is part of the dataset."),
    "reject_reason": (pa.string(), "Why it is not, as a stable code; null if it is."),
    "predicted": (pa.string(), "Class that the gate predicts; null without a gate."),
    "score": (pa.float32(), "The gate's probability of the class that was asked for; null without a gate."),
    "duplicate_distance": (
        pa.float32(),
        "Cosine distance of the gate's features to the nearest accepted image before it; null if not measured.",
    ),
    "copy_distance": (pa.float32(), "Cosine distance to the nearest training image; null without `--away-from`."),
    "nearest": (pa.string(), "Key or row of that training image."),
    "sha256": (pa.string(), "Hash of the file's bytes; null if the image is not kept."),
    "width": (pa.int32(), "Width in pixels; null if the image is not kept."),
    "height": (pa.int32(), "Height in pixels; null if the image is not kept."),
    "size": (pa.int64(), "Size of the file in bytes; null if the image is not kept."),
    "offset": (pa.int64(), "Where the file's bytes begin in the tar; null if the image is not kept."),
    "model": (pa.string(), "The generator, as `name@version`."),
    "weights_sha256": (pa.string(), "Hash of the generator's weights file."),
}
_OWN: dict[str, dict[str, tuple[pa.DataType, str]]] = {
    "reconstruct": {
        "original": (pa.string(), "Name of the image in the source."),
        "mse": (pa.float32(), "Mean squared error against it, for pixels of 0 to 1 at the model's size."),
    },
    "interpolate": {"position": (pa.float32(), "Place between the two images: 0 at the first, 1 at the second.")},
}

DESCRIPTIONS = {
    name: description for columns in (_COLUMNS, *_OWN.values()) for name, (_, description) in columns.items()
}
"""What each column holds; the reference prints it."""


_KEY = "^[A-Za-z0-9_-]{1,100}$"
"""What a key may be, because it becomes the name of a file (`sample_key`)."""


def schema(kind: str = "generate") -> pa.Schema:
    """Return the Arrow schema of the index for a kind of job.

    Image `index` of a class depends only on weights, `seed`, class, `index` and the parameters of the job. All
    distances are cosine distances of the gate's features.
    """
    return pa.schema([(name, type) for name, (type, _) in (_COLUMNS | _OWN.get(kind, {})).items()])


def sha256(data: bytes) -> str:
    """Return the sha256 of a file as an index has it."""
    return hashlib.sha256(data).hexdigest()


def sample_key(label: int, index: int, version: int = 0) -> str:
    """Return the stem of an image's members in a tar: without dots, and sorting by class and index.

    The images of a dataset have their `version` in between, so that no two of its versions share a name.
    """
    return f"{label:05d}-{f'v{version:06d}-' if version else ''}{index:09d}"


INDEX = ".parquet"
"""Suffix of an index; its tar has the same stem."""


def named(outputs: Sequence[Output]) -> dict[str, Any]:
    """Return the fields of a commit that name the outputs of a shard, its index among them."""
    index = next(output for output in outputs if output.address.endswith(INDEX))
    return {"output": index.address, "sha256": index.sha256, "outputs": tuple(outputs)}


def tar_of(output: str) -> str:
    """Return the address of the tar that belongs to an index."""
    return output.removesuffix(INDEX) + ".tar"


def shards(store: ObjectStore, spec: ImagesSpec) -> Iterator[tuple[ShardCommit, pa.Table]]:
    """Yield the index of each shard of the outcome, in the order of the shards, with its commit.

    For a synthesis these are the selected shards; candidates from which nothing is selected yet are not part of the
    outcome. Raises ObjectDamaged if an index is not what was committed.
    """
    # An index of 4,096 images takes two megabytes as a table.
    yield from in_parallel(lambda commit: (commit, _index(store, commit)), outcome(store, spec), threads=8)


def _index(store: ObjectStore, commit: ShardCommit) -> pa.Table:
    index = committed(store, commit)
    if pc.all(pc.match_substring_regex(index["key"], _KEY)).as_py() is False:
        raise ObjectDamaged(f"{commit.output} holds a key that names no file; make the images again as a new job.")
    return index


def outcome(store: ObjectStore, spec: ImagesSpec) -> Iterator[ShardCommit]:
    """Yield the commits that `shards` follows."""
    keys = JobKeys(spec.id)
    selected = sorted(found[0] for entry in store.list(keys.selected_prefix) if (found := parse_shard(entry.key)))
    if selected:
        yield from in_parallel(lambda shard: ShardCommit.model_validate_json(store.get(keys.selected(shard))), selected)
        return
    # Every other kind commits its outcome shard by shard. So did a synthesis before it had a prefix for what it
    # selected: that was the second commit of a shard (`-r1`), told from the candidates' by where its index is.
    for commit in iter_commits(store, spec.id):
        if commit.output is not None and commit.output.startswith(spec.output):
            yield commit


def read_tar(store: ObjectStore, commit: ShardCommit) -> bytes:
    """Return the images of a committed shard as a tar."""
    assert commit.output is not None, "a committed shard of images has an index"
    bucket, key = parse_s3(tar_of(commit.output))
    return store.get(key, bucket=bucket)
