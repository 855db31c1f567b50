"""Label the images of one shard of a classify job.

    manifest → fetch ‖ decode ‖ forward → rows → output

It knows neither leases nor Celery: `worker.execution.job_runner` runs it and commits what it made.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

from contract.data.items import Item, parse_s3, read_manifest, write_manifest
from contract.data.label_rows import ERROR
from contract.errors import (
    DecodeFailed,
    ImagemillError,
    InferenceFailed,
    NotAnImage,
    ObjectNotFound,
    ServiceUnavailable,
    TruncatedImage,
    WorkerKilled,
)
from contract.instruments import STAGE_SECONDS
from contract.jobs.commits import read_commit, read_retries
from contract.jobs.lifecycle import Backend, read_plan
from contract.jobs.reach import Reach
from contract.jobs.sources import source_kind
from contract.jobs.specs import Classify
from contract.jobs.status import Output, ShardCommit
from contract.keys.jobs import JobKeys
from contract.keys.shards import MAX_OPEN_SHARDS, child_shards, shard_stem
from contract.models.registry import Model
from worker.classify.isolate import isolate
from worker.classify.rows import Rows, read_rows, tally
from worker.engine import canary
from worker.engine.budget import Reservation, release_all
from worker.engine.images import decoders
from worker.engine.pipeline import Encoded, Failed, Result
from worker.execution.job_runner import ShardWork
from worker.execution.leases import Lease
from worker.execution.model_cache import Loaded, Models
from worker.execution.resources import Resources
from worker.execution.runner import ImagesFailed, said
from worker.sources.fetch import Fetcher

log = logging.getLogger(__name__)

_OF_DECODERS = (DecodeFailed, NotAnImage, TruncatedImage)
_SUBMIT = 32  # images handed to the engine at a time; a GPU needs no finer division
_SUBMIT_BYTES, _HELD_BYTES = 64 * 2**20, 512 * 2**20  # bytes of frames; one sequence may be 64 photos of 5 MB


@dataclass(frozen=True)
class ClassifyWork(ShardWork[Classify]):
    """Labels the images of shards."""

    backend: Backend
    fetcher: Fetcher
    models: Models

    def retry_of(self, job: str, shard: int) -> int:
        if not self.backend.ledger.retry_number(job):
            return 0
        return read_retries(self.backend.store, job).required.get(shard, 0)

    def make(self, spec: Classify, lease: Lease, retry: int) -> ShardCommit:
        """Label the images of a shard, and write their rows."""
        items, model = self._items(lease), self.models.model(spec.model)
        old = self._earlier_rows(spec, lease.shard, retry) if retry else {}
        with self.models.use(spec.model, spec.precision) as loaded:
            rows = self._label(spec, lease, model, loaded, items, old)
            runtime, precision = loaded.runtime.name, loaded.runtime.precision
        commit = self._write(spec, lease, retry, model, rows)
        decoder = decoders.beside_pillow()
        return commit.model_copy(update={"runtime": runtime, "precision": precision, "decoder": decoder})

    def give_up(self, spec: Classify, lease: Lease, retry: int, kills: int) -> ShardCommit:
        """Bisect the shard, or write an error row if the image that ends workers is alone in it."""
        items, model = self._items(lease), self.models.model(spec.model)
        if len(items) > 1:
            return self._split(spec, lease.shard, items)
        rows = _rows(model, spec)
        rows.fail(items[0], _poison(kills))
        return self._write(spec, lease, retry, model, rows)

    def divisible(self, lease: Lease) -> bool:
        return len(self._items(lease)) > 1

    def _items(self, lease: Lease) -> list[Item]:
        return read_manifest(self.backend.store.get(JobKeys(lease.job).manifest(lease.shard)))

    def _write(self, spec: Classify, lease: Lease, retry: int, model: Model, rows: Rows) -> ShardCommit:
        """Write the rows of a shard, and return their commit."""
        with STAGE_SECONDS.seconds("encode"):
            data = rows.parquet()
        lease.check()
        output = f"{spec.output}{shard_stem(lease.shard, retry)}.parquet"
        bucket, key = parse_s3(output)
        with STAGE_SECONDS.seconds("put"):
            written = self.backend.store.put_if_absent(key, data, bucket=bucket)
        if not written:
            # Left by a worker that died before its commit, or by a twin: what is written counts.
            data = self.backend.store.get(key, bucket=bucket)
            rows = tally(read_rows(data), model)
        return ShardCommit(
            shard=lease.shard,
            retry=retry,
            items=rows.ok + rows.errors,
            ok=rows.ok,
            errors=rows.errors,
            error_codes=dict(rows.codes),
            labels=dict(rows.labels),
            output=output,
            sha256=(digest := hashlib.sha256(data).hexdigest()),
            outputs=(Output(address=output, size=len(data), sha256=digest),),
        )

    def _split(self, spec: Classify, shard: int, items: list[Item]) -> ShardCommit:
        """Write the manifests of two halves; they count only once the commit names them."""
        halves = child_shards(shard, self._planned(spec, shard))
        middle = len(items) // 2
        log.warning("Shard %d of %s killed its processes and is bisected into %d and %d", shard, spec.id, *halves)
        for number, half in zip(halves, (items[:middle], items[middle:]), strict=True):
            self.backend.store.put(JobKeys(spec.id).manifest(number), write_manifest(half))
        return ShardCommit(shard=shard, items=len(items), ok=0, errors=0, split=halves)

    def _planned(self, spec: Classify, shard: int) -> int:
        """Return the number of shards in the plan; halves are numbered from there."""
        if source_kind(spec.source.kind).open_plan:
            return MAX_OPEN_SHARDS  # more may come
        plan = read_plan(self.backend.store, spec.id)
        if plan is None:
            raise ServiceUnavailable(f"Shard {shard} of {spec.id} can only be bisected once the plan is complete.")
        return plan.shards

    def _earlier_rows(self, spec: Classify, shard: int, retry: int) -> dict[int, dict[str, object]]:
        """Return the rows of earlier runs that are not errors, by position."""
        for earlier in range(retry - 1, -1, -1):
            try:
                commit = read_commit(self.backend.store, spec.id, shard, earlier)
            except ObjectNotFound:
                continue
            if commit.output is None:
                return {}
            bucket, key = parse_s3(commit.output)
            rows = read_rows(self.backend.store.get(key, bucket=bucket))
            return {n: row for n, row in enumerate(rows) if row["status"] != ERROR}
        return {}

    def _label(
        self,
        spec: Classify,
        lease: Lease,
        model: Model,
        loaded: Loaded,
        items: list[Item],
        old: dict[int, dict[str, object]],
    ) -> Rows:
        """Return a row for every item, in manifest order."""
        todo = [n for n in range(len(items)) if n not in old]
        rows = _rows(model, spec)
        early: dict[int, Result] = {}
        failed = 0  # of those in `early`
        at = 0

        def add() -> None:
            """Add the rows whose turn it is."""
            nonlocal at, failed
            while at < len(items) and (at in old or at in early):
                if at in old:
                    rows.keep(dict(old[at]))
                else:
                    result = early.pop(at)
                    failed -= isinstance(result, Failed)
                    rows.add(items[at], result)
                at += 1

        add()
        reach = Reach.of(self.backend.store, spec.source)
        suspicious = False
        for n, result in self._proven(spec, lease, loaded, model, items, todo, reach):
            early[n] = result
            failed += isinstance(result, Failed)
            suspicious |= isinstance(result, Failed) and isinstance(result.error, _OF_DECODERS)
            add()
            lease.progress(rows.ok + len(early) - failed, rows.errors + failed)
        if suspicious:
            canary.check(loaded.engine, frames=model.frames)  # the decoders here are not at fault
        return rows

    def _proven(
        self,
        spec: Classify,
        lease: Lease,
        loaded: Loaded,
        model: Model,
        items: list[Item],
        todo: list[int],
        reach: Reach,
    ) -> Iterator[tuple[int, Result]]:
        """Yield place and result of the items at `todo`.

        Raises ImagesFailed if some failed alone while a known good image passed, and no other process has said so yet.
        """

        def run(places: Sequence[int]) -> Iterator[tuple[int, Result]]:
            for place, result in self._results(spec, lease, loaded, [items[n] for n in places], reach):
                lease.progress(lease.ok, lease.errors)
                yield places[place], result

        left = dict.fromkeys(todo)
        try:
            for n, result in run(todo):
                del left[n]
                yield n, result
            return
        except (ImagemillError, MemoryError):
            raise
        except Exception:
            log.exception("Shard %d of %s raised; its images are tried apart", lease.shard, spec.id)
        good = partial(canary.check, loaded.engine, frames=model.frames)
        found, failures = isolate(list(left), lambda part: dict(run(part)), good)
        others = {n: lease.trouble.images.get(n, frozenset()) - {lease.process} for n in failures}
        if not all(others.values()):
            raise ImagesFailed(failures)
        yield from found.items()
        for n, error in failures.items():
            yield n, Failed(_inference_failed(error, 1 + len(others[n])), None)

    def _results(
        self, spec: Classify, lease: Lease, loaded: Loaded, items: list[Item], reach: Reach
    ) -> Iterator[tuple[int, Result]]:
        """Yield the place and the result of each item, in the order in which their bytes arrive.

        Only a few batches are in flight at a time, so memory stays flat.
        """
        under_way: deque[tuple[Future[list[Result]], list[int], int]] = deque()
        batch: list[Encoded] = []
        places: list[int] = []
        memory: list[Reservation] = []
        fresh = held = 0  # bytes of frames: in the batch, and under way
        size = min(loaded.runtime.batch_size, _SUBMIT)
        # Two per lane, or two whole batches if the device takes more.
        most = max(2 * loaded.runtime.lanes, 2 * loaded.runtime.batch_size // size) + 1

        def submit() -> None:
            nonlocal batch, places, memory, fresh, held
            if batch:
                future = loaded.engine.submit(batch, top_k=spec.top_k, features=spec.embed, memory=memory)
                under_way.append((future, places, fresh))
                held += fresh
                batch, places, memory, fresh = [], [], [], 0

        def first() -> Iterator[tuple[int, Result]]:
            nonlocal held
            future, of_first, freed = under_way.popleft()
            yield from zip(of_first, future.result(), strict=True)
            held -= freed

        with ExitStack() as stack:
            fetched = stack.enter_context(closing(self.fetcher.read_any(items, reach)))
            stack.callback(lambda: release_all(memory))  # of what was not submitted
            for arrived in fetched:
                if isinstance(arrived, str):  # for memory or the web: nothing else may wait with it
                    lease.check()
                    submit()
                    while under_way:
                        yield from first()
                    if arrived == "web":
                        lease.gives_way()
                    else:
                        lease.waits_here()
                    continue
                places.append(arrived[0])
                batch.append(arrived[1])
                memory.append(arrived[2])
                lease.check()
                fresh += _frames(arrived[1])
                del arrived  # so that the bytes end when they are decoded
                if len(batch) == size or fresh >= _SUBMIT_BYTES:
                    submit()
                    while under_way and (len(under_way) == most or held > _HELD_BYTES):
                        yield from first()
            submit()
            while under_way:
                lease.check()
                yield from first()


def _frames(encoded: Encoded) -> int:
    """Return the bytes of a sequence's frames, 0 for a single file."""
    return sum(len(frame.data) for frame in encoded) if isinstance(encoded, tuple) else 0


def _inference_failed(error: Exception, processes: int) -> InferenceFailed:
    return InferenceFailed(
        f"Alone, the image failed in {processes} processes that labelled a known good image ({said(error)}); look at "
        "the file, then retry the job."
    )


def _poison(kills: int) -> WorkerKilled:
    return WorkerKilled(
        f"Alone in its process, the image ended it {kills} times; look at the file, then retry the job."
    )


def make_work(resources: Resources) -> ClassifyWork:
    """Return what labels images in this process."""
    return ClassifyWork(resources.backend, resources.fetcher, resources.models)


def _rows(model: Model, spec: Classify) -> Rows:
    """Return the rows of a shard, with the columns that its job has."""
    watched = source_kind(spec.source.kind).watched
    return Rows(model, spec.embed, watched=watched, archived=spec.source.archived)
