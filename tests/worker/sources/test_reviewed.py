"""The images of a set of reviews: from where the job read them, each once, and only as they were reviewed."""

from __future__ import annotations

import hashlib
import io
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from contract.backend.objects import ObjectStore
from contract.data.items import Item
from contract.errors import InvalidSource
from contract.jobs.reviews import verdicts
from contract.jobs.reviews.records import verdict_of
from contract.jobs.reviews.sets import Ref, pin
from contract.jobs.specs import Source
from contract.keys.jobs import JobKeys
from tests.producer.web.console.rows import commit_rows
from worker.datasets.reader import DatasetReader, Prepared, Wanted
from worker.sources.fetch import Fetcher
from worker.sources.lister import labelled_items


def png(value: int) -> bytes:
    target = io.BytesIO()
    Image.new("L", (8, 8), value).save(target, "PNG")
    return target.getvalue()


def review(store: ObjectStore, said: dict[str, str], shard: int = 0) -> None:
    """Commit a shard of images of a job, and give each of these its label."""
    rows = []
    for n, key in enumerate(said):
        data = png(10 * shard + n)
        store.put(f"photos/{key}", data)
        top = [{"label": "cat", "label_index": 0, "score": 0.4}]
        digest = hashlib.sha256(data).hexdigest()
        rows.append({"key": key, "label": "cat", "score": 0.4, "top_k": top, "sha256": digest})
    commit_rows(store, "job", rows, shard=shard)
    for row in rows:
        if label := said[str(row["key"])]:
            where = {"uri": f"s3://{store.bucket}/photos/{row['key']}"}
            verdicts.add(store, "job", verdict_of({**row, **where}, label, by="ann"))


def source(store: ObjectStore) -> Source:
    return Source(kind="review", uri=pin(store, Ref("job")).text, label="review:job")


def read(store: ObjectStore, folder: Path, found: Source) -> Prepared:
    with closing(Fetcher(store, 10_000, threads=2)) as fetcher:
        reader = DatasetReader(store, fetcher, folder, max_pixels=10_000, threads=2)
        return reader.read(found, Wanted())


def test_reviewed_images_alone_are_listed_with_their_labels(store: ObjectStore, tmp_path: Path) -> None:
    # Given two shards of which some images were reviewed, and halves of the second, which list its items again,
    review(store, {"a": "dog", "b": "", "c": "cat"}, shard=0)
    review(store, {"d": "", "e": "dog"}, shard=1)
    store.put(JobKeys("job").manifest(2), store.get(JobKeys("job").manifest(1)))
    found = list(labelled_items(store, source(store)))
    assert [(item.key, item.label) for item in found] == [("a", "dog"), ("c", "cat"), ("e", "dog")]
    # and they keep their hash in the manifest of a job that encodes them.
    assert Item.from_line(found[0].to_line(label=True).encode()) == found[0]
    prepared = read(store, tmp_path, source(store))
    assert prepared.data.classes == ("cat", "dog") and list(prepared.data.labels) == [1, 0, 1]
    assert list(prepared.data.images[:][:, 0, 0, 0]) == [0, 2, 11]


def test_an_image_that_is_gone_or_another_is_left_out_and_counted(store: ObjectStore, tmp_path: Path) -> None:
    review(store, {"a": "dog", "b": "cat", "c": "cat"})
    store.delete("photos/a")
    store.put("photos/b", png(200))
    prepared = read(store, tmp_path, source(store))
    assert (len(prepared.data), prepared.left_out) == (1, {"not_found": 2})


def test_a_job_without_its_plan_is_named(store: ObjectStore) -> None:
    review(store, {"a": "dog"})
    found = source(store)
    store.put(JobKeys("job").manifest(0), b"")
    with pytest.raises(InvalidSource, match="a, which was reviewed, is no longer among the images of job"):
        list(labelled_items(store, found))
