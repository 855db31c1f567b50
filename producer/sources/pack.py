"""Packs local images into one tar a shard and plans the job while it does.

Workers cannot read the producer's disk, and one GET a shard is cheaper than one a photo. The tar is
written first, then the manifest, then the ledger, so that a producer that dies leaves whole shards,
and the same command goes on behind them. While one shard is on its way, the next is packed; labelling
begins with the first.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path
from typing import Literal

from contract.backend.ledger import Step
from contract.backend.objects import ObjectStore
from contract.data.items import SHARD_FRAMES, Item, read_manifest, write_manifest
from contract.errors import InvalidSource, JobConflict, JobStopped, ObjectNotFound, RedisUnavailable
from contract.fleet.sizes import pin
from contract.jobs.lifecycle import Backend, read_plan, rebuild
from contract.jobs.specs import Classify
from contract.jobs.status import ENDED, Plan
from contract.keys.jobs import JobKeys
from producer.sources.folders import Local, LocalSequence
from producer.sources.images import Packed
from producer.sources.tar_writer import write_tar

log = logging.getLogger(__name__)

_SHARD_BYTES = 512 * 2**20
"""A shard of large photos is closed early: two tars are on the local disk at a time, and an upload
that breaks off is sent again from its beginning."""


_TAR_IMAGES = 4096


@dataclass(frozen=True)
class Progress:
    """The progress of a source: how much is packed and uploaded, of `total`.

    Counts images, but `files` where a manifest or tars are uploaded as they are.
    """

    packed: int
    uploaded: int
    total: int
    unit: Literal["images", "files"] = "images"


def pack(
    backend: Backend,
    spec: Classify,
    source: Packed,
    *,
    max_bytes: int,
    progress: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Bring every image of `source` to the store, shard by shard, and complete the plan.

    Shards that are there are left as they are. `max_bytes` is the size that an image may have.
    `progress` is called in the caller's thread. Returns early where the job is canceled meanwhile.
    Raises JobConflict where the folder is not what it was when an earlier call was interrupted.
    """
    plan = read_plan(backend.store, spec.id)
    if plan is None:
        try:
            plan = _Packer(backend, spec, source.total, max_bytes, progress).run(source)
        except JobStopped:
            return
        backend.store.put(JobKeys(spec.id).plan, plan.to_json())
    _complete(backend, spec, plan)


def upload(
    store: ObjectStore,
    keys: JobKeys,
    source: Packed,
    *,
    max_bytes: int,
    progress: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Bring every image of `source` to the store, in their order: tars, each with a manifest that has the labels too.

    No shard is planned. What is there is left as it is.
    """
    packed = uploaded = 0

    def count() -> None:
        nonlocal packed
        packed += 1
        progress(Progress(packed, uploaded, source.total))

    with tempfile.TemporaryDirectory(prefix="imagemill-") as folder:
        for number, files in enumerate(cut(source.files(), repeat(_TAR_IMAGES), _SHARD_BYTES)):
            key = keys.tar(number)
            if store.exists(keys.tar_manifest(number)):
                packed += len(files)
            else:
                tar = Path(folder) / "part.tar"
                items = write_tar(files, tar, f"s3://{store.bucket}/{key}", max_bytes=max_bytes, done=count)
                store.put_file(key, tar)
                store.put(keys.tar_manifest(number), write_manifest(items, labels=True))
            uploaded += len(files)
            progress(Progress(packed, uploaded, source.total))


class _Packer:
    def __init__(
        self, backend: Backend, spec: Classify, total: int, max_bytes: int, progress: Callable[[Progress], None]
    ) -> None:
        self._backend, self._spec, self._keys = backend, spec, JobKeys(spec.id)
        self._total, self._max_bytes, self._progress = total, max_bytes, progress
        self._packed = self._uploaded = 0

    def run(self, source: Packed) -> Plan:
        shards = images = 0
        size = pin(self._backend.store, self._backend.ledger, self._spec)
        sizes = (size(shards, images) for _ in count())  # asked when a shard begins
        under_way: tuple[int, Future[None]] | None = None
        with (
            tempfile.TemporaryDirectory(prefix="imagemill-") as folder,
            ThreadPoolExecutor(1, thread_name_prefix="upload") as uploader,
        ):
            for files in cut(source.files(), sizes, _SHARD_BYTES):
                there = self._there(shards)
                if there is not None:
                    self._check_same(shards, files, there)
                    self._packed += len(files)
                    self._tell_planned(shards, len(files))
                    self._count(len(files))
                else:
                    tar = Path(folder) / f"{shards}.tar"
                    items = write_tar(
                        files,
                        tar,
                        f"s3://{self._backend.store.bucket}/{self._keys.tar(shards)}",
                        max_bytes=self._max_bytes,
                        done=self._count_packed,
                    )
                    self._wait(under_way)
                    under_way = len(items), uploader.submit(self._deliver, shards, tar, items)
                shards, images = shards + 1, images + len(files)
            self._wait(under_way)
        if not shards:
            raise InvalidSource(f"{source.label} holds no images any more; nothing was packed.")
        return Plan(shards=shards, items=self._packed, skipped=source.skipped)

    def _deliver(self, shard: int, tar: Path, items: list[Item]) -> None:
        store = self._backend.store
        store.put_file(self._keys.tar(shard), tar)
        tar.unlink()
        store.put(self._keys.manifest(shard), write_manifest(items))
        self._tell_planned(shard, len(items))

    def _tell_planned(self, shard: int, items: int) -> None:
        """The manifest is what counts. A ledger that is away now hears of the shard with the next one,
        or when the plan is complete."""
        try:
            step = self._backend.ledger.planned(self._spec.id, shard, items)
            _follow_up(self._backend, self._spec.id, step)
        except RedisUnavailable as error:
            log.info("Shard %d is packed, but not told to the ledger: %s", shard, error)
            return
        if step.state in ENDED:
            raise JobStopped(f"The job {self._spec.id} was {step.state} while it was packed.")

    def _there(self, shard: int) -> list[Item] | None:
        try:
            return read_manifest(self._backend.store.get(self._keys.manifest(shard)))
        except ObjectNotFound:
            return None

    def _check_same(self, shard: int, files: list[Local], there: list[Item]) -> None:
        changed = difference(files, there)
        if changed is not None:
            raise JobConflict(
                f"{self._spec.source.label} has changed since {self._spec.id} was begun: {changed!r} in "
                f"shard {shard} is not what was packed; restore it, or start a new job without --job."
            )

    def _wait(self, under_way: tuple[int, Future[None]] | None) -> None:
        if under_way is not None:
            count, future = under_way
            future.result()
            self._count(count)

    def _count_packed(self) -> None:
        self._packed += 1
        self._progress(Progress(self._packed, self._uploaded, self._total))

    def _count(self, uploaded: int) -> None:
        self._uploaded += uploaded
        self._progress(Progress(self._packed, self._uploaded, self._total))


def cut(files: Iterable[Local], counts: Iterator[int], max_bytes: int) -> Iterator[list[Local]]:
    """Shards of as many files or sequences as `counts` says and, but for a single larger one, of at most `max_bytes`
    bytes and no more frames than a shard may have."""
    shard: list[Local] = []
    size, frames, count = 0, 0, next(counts)
    for file in files:
        bytes, more = file.size or 0, _frames(file)
        if shard and (len(shard) == count or size + bytes > max_bytes or frames + more > SHARD_FRAMES):
            yield shard
            shard, size, frames, count = [], 0, 0, next(counts)
        shard.append(file)
        size += bytes
        frames += more
    if shard:
        yield shard


def _frames(file: Local) -> int:
    return len(file.frames) if isinstance(file, LocalSequence) else 0


def difference(files: Sequence[Local], there: Sequence[Item]) -> str | None:
    """The key of the first file or sequence that is not what a manifest says, None where all are.

    A file that could not be read then, or cannot be read now, may have any size.
    """
    for file, item in zip(files, there, strict=False):
        resized = None not in (file.size, item.size) and file.size != item.size
        length = file.length if isinstance(file, LocalSequence) else None
        if file.key != item.key or resized or length != item.length:
            return file.key
    if len(files) != len(there):
        shorter = min(len(files), len(there))
        return files[shorter].key if len(files) > shorter else there[shorter].key
    return None


def _complete(backend: Backend, spec: Classify, plan: Plan) -> None:
    step = backend.ledger.complete(
        spec.id,
        shards=plan.shards,
        items=plan.items,
        error_limit=spec.error_limit(plan.items),
        skipped=plan.skipped,
    )
    _follow_up(backend, spec.id, step)


def _follow_up(backend: Backend, job: str, step: Step) -> None:
    if step.state == "unknown":
        # Redis was wiped meanwhile; the bucket has the shards so far, and this one.
        rebuild(backend, job)
    else:
        backend.follow_up(job, step)
