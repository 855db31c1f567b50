"""Exports the images of a job as a data set in a folder, with its card and its Croissant metadata.

It decides what may be exported and in which order files appear; the layouts are the modules beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from contract.backend.objects import ObjectStore
from contract.data.dataset_card import CARD, CROISSANT, Layout, card
from contract.data.dataset_stats import DatasetStats, count
from contract.data.image_index import shards
from contract.errors import JobConflict
from contract.jobs import lifecycle
from contract.jobs.specs import ImagesSpec
from producer.exports.images import idx, imagefolder, parquet, webdataset
from producer.exports.images.accepted import read
from producer.exports.images.croissant import croissant
from producer.exports.images.target import Target

OnImages = Callable[[int, int], None]
"""Told how many images are written, and of how many."""


def export(
    store: ObjectStore, job: str, layout: Layout, folder: Path, progress: OnImages | None = None
) -> DatasetStats:
    """Write the accepted images of an ended job into `folder`; what is in them, class by class.

    Every file appears when it is whole, `croissant.json` last. Raises JobConflict for a job of another kind, one that
    has not ended or one without images, InvalidInput where the layout cannot hold these or the folder has other files,
    and ObjectDamaged where something is not what was committed.
    """
    spec = lifecycle.read_images(store, job)
    end = lifecycle.read_end(store, job)
    if end is None:
        raise JobConflict(f"The job {job} has not ended; follow it with `imagemill follow {job}`, then export it.")
    stats = count(index for _, index in shards(store, spec))
    if not stats.accepted:
        how = "was canceled" if end.state == "canceled" else f"has {end.state}"
        raise JobConflict(f"The job {job} {how} before it had an image; there is nothing to export.")
    target = Target(folder, job, layout)
    written = 0

    def done(images: int) -> None:
        nonlocal written
        written += images
        if progress is not None:
            progress(written, stats.accepted)

    names = _write(store, spec, stats, layout, target, done)
    target.write(CARD, card(spec, stats, layout, end=end).encode())
    files = [target.entry(name) for name in names]
    described = croissant(spec, stats, layout, files, created_at=lifecycle.read_created(store, job))
    target.write(CROISSANT, json.dumps(described, indent=1, ensure_ascii=False).encode())
    return stats


def _write(
    store: ObjectStore,
    spec: ImagesSpec,
    stats: DatasetStats,
    layout: Layout,
    target: Target,
    done: Callable[[int], None],
) -> list[str]:
    """Write the images; the names of the files that the metadata lists."""
    if layout == "webdataset":
        return webdataset.write(store, spec, target, done)
    images = read(store, spec)
    if layout == "imagefolder":
        return imagefolder.write(spec, stats, images, target, done)
    if layout == "idx":
        return idx.write(spec, stats, images, target, done)
    names = parquet.write(spec, stats, images, target, done)
    if parquet.has_candidates(spec):
        names += parquet.write_candidates((index for _, index in shards(store, spec)), target)
    return names
