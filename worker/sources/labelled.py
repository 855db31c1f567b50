"""Lists the images of a labelled source with their classes: of a bucket, a manifest, tars, or of an earlier job.

It reads the object store only and opens no image, so the controller can plan by it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from contract.backend.objects import ObjectStore
from contract.data import image_index
from contract.data.items import Item, parse_s3
from contract.data.label_rows import OK
from contract.errors import InvalidSource
from contract.jobs.lifecycle import read_spec
from contract.jobs.results import with_items
from contract.jobs.specs import ImagesSpec, Source
from worker.sources import idx
from worker.sources.listing import Listing

Part = Literal["train", "test"]


def items(store: ObjectStore, source: Source, *, frames: int = 0, min_score: float = 0.0) -> Iterator[Item]:
    """The images of a source that is no IDX, each with its label; with `frames` its sequences.

    Of the labels of a job those that are `min_score` sure. Raises InvalidSource where an image has no label.
    """
    found: Iterable[Item]
    if source.kind == "job":
        found = _of_job(store, source, frames, min_score)
    else:
        found = Listing(store, source, frames, labels=True).items()
    for item in found:
        if item.label is None:
            what = "sequences" if frames else "images"
            raise InvalidSource(
                f"{item.key} of {source.label} has no label; put {what} into a folder a class, write .cls files "
                "beside them in a tar, or give a manifest a column `label`."
            )
        yield item


def _of_job(store: ObjectStore, source: Source, frames: int, min_score: float) -> Iterator[Item]:
    spec = read_spec(store, source.uri)
    if isinstance(spec, ImagesSpec):
        yield from _generated(store, spec, min_score)
        return
    for shard in with_items(store, source.uri):
        for row, item in shard:
            if item.length is not None and not frames:
                raise InvalidSource(f"{source.label} labelled sequences; a model of images needs images.")
            if row["status"] == OK and row["score"] >= min_score:
                yield replace(item.thinned(frames), label=row["label"])


def _generated(store: ObjectStore, spec: ImagesSpec, min_score: float) -> Iterator[Item]:
    """The images that a job generated, those of a synthesis that were accepted."""
    for commit, table in image_index.shards(store, spec):
        tar = image_index.tar_of(str(commit.output))
        for row in table.to_pylist():
            sure = row["score"] is None or row["score"] >= min_score
            if row["accepted"] and sure:
                name = f"{row['key']}{image_index.SUFFIX[spec.image_format]}"
                yield Item(name, f"{tar}#{name}", row["size"], tar, row["offset"], label=row["label"])


# IDX


def has_test_part(store: ObjectStore, source: Source) -> bool:
    """Whether a source keeps images apart to test with, as IDX folders of several pairs of files do."""
    return source.kind == "idx" and len(_pairs(store, source)) > 1


def read_idx(store: ObjectStore, source: Source, part: Part) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images, uint8 [n, h, w, 1], and labels, int64 [n], of IDX files: of several pairs those of `part`."""
    pair = _choose(_pairs(store, source), part, source)
    bucket, _ = parse_s3(source.uri)
    images, labels = (io.BytesIO(store.get(key, bucket=bucket)) for key in (pair.images, pair.labels))
    return idx.read_pair(images, labels, pair)


def _pairs(store: ObjectStore, source: Source) -> dict[str, idx.Pair]:
    bucket, prefix = parse_s3(source.uri)
    return idx.pairs([entry.key for entry in store.list(prefix, bucket=bucket)])


def _choose(pairs: dict[str, idx.Pair], part: Part, source: Source) -> idx.Pair:
    if not pairs:
        raise InvalidSource(f"{source.label} holds no IDX files; they end in -images-idx3-ubyte, perhaps with .gz.")
    if len(pairs) == 1:
        return next(iter(pairs.values()))
    starts = ("train",) if part == "train" else ("t10k", "test")
    fitting = [pair for stem, pair in pairs.items() if PurePosixPath(stem).name.startswith(starts)]
    if len(fitting) != 1:
        names = ", ".join(PurePosixPath(stem).name for stem in pairs)
        raise InvalidSource(f"{source.label} holds several pairs of IDX files ({names}); name one of them.")
    return fitting[0]
