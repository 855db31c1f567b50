"""Concludes a job that generates, once every shard of its plan is done: chooses, and writes that, or asks for more.

    indices of candidates → selection → next wave, or: tars, indices, summary → end

It runs on a worker, under a lock of the job. Killed anywhere, it is sent again by the reconciler and comes to the
same: the choice depends on the candidates alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from contract.backend.lock import Lock
from contract.backend.objects import ObjectStore
from contract.data import image_index
from contract.data.dataset_card import CARD, WEBDATASET, card
from contract.data.dataset_stats import DatasetStats, count
from contract.data.image_index import SUFFIX
from contract.data.items import parse_s3
from contract.data.provenance import provenance
from contract.errors import ImagemillError, ServiceUnavailable
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, close, read_commit, read_images, reopen
from contract.jobs.paths import load
from contract.jobs.results import committed, read_commits
from contract.jobs.specs import ImagesSpec, Synthesize
from contract.jobs.status import Plan
from contract.keys import JobKeys, shard_stem
from contract.models.registry import Model
from worker.execution.model_cache import Models
from worker.execution.resources import Resources
from worker.generation import candidate_plan
from worker.generation.archive import Archive, facts, index
from worker.generation.candidate_plan import Portion, next_wave
from worker.generation.selection import Selection
from worker.generation.shard import FEATURES

log = logging.getLogger(__name__)

FINAL = 1
"""The retry number of the commits of what was chosen; those of the candidates have 0."""


@dataclass(frozen=True)
class ImagesFinalizer:
    """What a worker needs to finalize jobs that generate."""

    backend: Backend
    models: Models
    report: Callable[[ImagesSpec], Callable[[ImagesSpec, DatasetStats], dict[str, float]]]
    """Returns what writes the page of such a job, which returns what it measured for that."""
    lock_seconds: float
    """After so long another goes on for a worker that died."""

    def run(self, job: str) -> None:
        """Conclude a job whose shards are done, if nobody does. Harmless when run twice."""
        ledger = self.backend.ledger
        with ledger.lock("finish", job, self.lock_seconds) as lock:
            if lock is None:
                return
            try:
                if ledger.state(job) == "finalizing":
                    self._finalize_images(job, lock)
            except _LockLostError:
                log.info("Another worker concludes %s, or it was canceled", job)
            except ServiceUnavailable as error:
                log.warning("The conclusion of %s waits: %s", job, error)  # the reconciler sends it again
            except ImagemillError as error:
                self._fail(job, str(error))
            except Exception as error:
                # What fails once fails each time: better an end with a reason than a job that never ends.
                log.exception("The conclusion of %s failed", job)
                self._fail(job, f"The images could not be put together ({error!r}); see the worker's log.")

    def _fail(self, job: str, reason: str) -> None:
        """End the job, unless somebody else has: what one finds missing another may have put away at the end."""
        if self.backend.ledger.state(job) == "finalizing":
            close(self.backend, job, "failed", reason)

    def _finalize_images(self, job: str, lock: Lock) -> None:
        spec = read_images(self.backend.store, job)
        if not isinstance(spec, Synthesize):
            self._end(spec, [])
            return
        shards = candidate_plan.read(self.backend.store, job)
        tables = []
        for number in range(len(shards)):
            _check(lock)
            tables.append(committed(self.backend.store, read_commit(self.backend.store, job, number)))
        chosen = select(spec, shards, tables)
        more = next_wave(spec, shards, {label: one.accepted for label, one in chosen.items()})
        if more:
            log.info("%s: %d more shards of candidates", job, len(more))
            candidate_plan.write(self.backend.store, job, [*shards, *more])
            plan = Plan(shards=len(shards) + len(more), items=sum(map(len, [*shards, *more])), skipped=0)
            self.backend.store.put(JobKeys(job).plan, plan.to_json())
            reopen(self.backend, job)
            return
        model = self.models.model(spec.model)
        verdicts = {label: iter(zip(one.reasons, one.distances, strict=True)) for label, one in chosen.items()}
        for number, table in enumerate(tables):
            _check(lock)
            self._keep(spec, number, table, verdicts)
        self._end(spec, _short(spec, model, chosen))

    def _keep(
        self,
        spec: Synthesize,
        number: int,
        table: pa.Table,
        verdicts: dict[int, zip[tuple[str | None, float | None]]],
    ) -> None:
        """Write what is chosen of a shard of candidates, and commit it."""
        store, keys = self.backend.store, JobKeys(spec.id)
        rows = table.drop_columns([FEATURES]).to_pylist()
        candidates = read_commit(store, spec.id, number)
        files = _files(image_index.read_tar(store, candidates), spec)
        archive = Archive(spec.image_format)
        for row in rows:
            reason, distance = next(verdicts[row["label_index"]])
            row |= {"reject_reason": reason, "accepted": reason is None, "duplicate_distance": distance}
            row |= {"sha256": None, "size": None, "offset": None}
            if reason is None:
                archive.add(row, files[row["key"]], facts(spec, row))
            else:
                archive.reject(row)
        data = index(archive.rows, spec.kind)
        output = f"{spec.output}{shard_stem(number)}.parquet"
        for address, content in ((image_index.tar_of(output), archive.close()), (output, data)):
            bucket, key = parse_s3(address)
            store.put(key, content, bucket=bucket)
        accepted = [row["label"] for row in archive.rows if row["accepted"]]
        commit = candidates.model_copy(
            update={
                "retry": FINAL,
                "ok": len(accepted),
                "items": len(rows),
                "labels": dict(Counter(accepted)),
                "output": output,
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )
        store.put_if_absent(keys.commit(number, FINAL), commit.to_json())

    def _end(self, spec: ImagesSpec, short: Sequence[str]) -> None:
        """Write summary and page, and end the job; `short` says of which classes how much is missing."""
        store = self.backend.store
        stats = count(table for _, table in image_index.shards(store, spec))
        accepted = {one.label: one.accepted for one in stats.classes}
        left_out = _left_out(store, spec)
        if left_out and not stats.candidates:
            codes = ", ".join(f"{code} {number:,}" for code, number in left_out.most_common())
            close(self.backend, spec.id, "failed", f"No image of {spec.source.label} could be read ({codes}).")
            return
        bucket, prefix = parse_s3(spec.output)
        status = self.backend.ledger.status(spec.id)
        summary = {
            "id": spec.id,
            "kind": spec.kind,
            "model": spec.model,
            **provenance(spec).origin(),
            "candidates": stats.candidates,
            "accepted": accepted,
            "rejected": stats.rejected,
            "error_codes": dict(left_out),
            "short": list(short),
            "created_at": status.created_at if status else None,
            "started_at": status.started_at if status else None,
        }
        if self.backend.ledger.state(spec.id) != "finalizing":
            raise _LockLostError
        store.put(f"{prefix}summary.json", json.dumps(summary, indent=1, ensure_ascii=False).encode(), bucket=bucket)
        store.put(f"{prefix}{CARD}", card(spec, stats, WEBDATASET).encode(), bucket=bucket)
        metrics = self.report(spec)(spec, stats)
        details: dict[str, Any] = {
            "total": stats.candidates + left_out.total(),
            "done": stats.candidates + left_out.total(),
            "ok": stats.candidates,
            "errors": left_out.total(),
            "error_codes": dict(left_out) or None,
            "labels": accepted,
            "metrics": {"accepted": float(stats.accepted), **metrics},
        }
        if short:
            reason = f"After {stats.candidates:,} candidates {'; '.join(short)}; what there is is kept."
            close(self.backend, spec.id, "failed", reason, **details)
            return
        store.put(f"{prefix}_SUCCESS", b"", bucket=bucket)
        close(self.backend, spec.id, "succeeded", **details)
        for entry in list(store.list(JobKeys(spec.id).candidate_prefix)):
            store.delete(entry.key)


def _left_out(store: ObjectStore, spec: ImagesSpec) -> Counter[str]:
    """How many source images could not be read, by error code; what comes of a seed has none."""
    if kind_of(spec).seeded:
        return Counter()
    return sum((Counter(commit.error_codes) for commit in read_commits(store, spec.id)), Counter[str]())


class _LockLostError(Exception):
    """Somebody else has the lock now, or the job was canceled."""


def _check(lock: Lock) -> None:
    if not lock.held:
        raise _LockLostError


def select(spec: Synthesize, shards: Sequence[Portion], tables: Sequence[pa.Table]) -> dict[int, Selection]:
    """What becomes of each candidate, class by class. Portions of a class lie in the order of its indices."""
    chosen = {label: Selection(spec.per_class, spec.dedup) for label in spec.classes}
    for portion, table in zip(shards, tables, strict=True):
        (label,) = portion.labels
        column = table[FEATURES].combine_chunks()
        passing = column.is_valid().to_numpy(zero_copy_only=False)
        features = column.flatten().to_numpy().reshape(int(passing.sum()), -1) if passing.any() else None
        chosen[label].add(table["reject_reason"].to_pylist(), features)
    return chosen


def _files(data: bytes, spec: Synthesize) -> dict[str, bytes]:
    """The images of a tar by key."""
    suffix = SUFFIX[spec.image_format]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = ((member, tar.extractfile(member)) for member in tar if member.name.endswith(suffix))
        return {member.name.removesuffix(suffix): file.read() for member, file in found if file is not None}


def _short(spec: Synthesize, model: Model, chosen: dict[int, Selection]) -> list[str]:
    return [
        f"{model.labels[label]} has {one.accepted:,} of {spec.per_class:,}"
        for label, one in chosen.items()
        if one.accepted < spec.per_class
    ]


def make_finalizer(resources: Resources) -> Callable[[str], None]:
    """What ends jobs that generate, in this process."""

    def report(spec: ImagesSpec) -> Callable[[ImagesSpec, DatasetStats], dict[str, float]]:
        write: Callable[[ImagesSpec, DatasetStats], dict[str, float]]
        write = resources.once(load(str(kind_of(spec).report)))
        return write

    finalizer = ImagesFinalizer(resources.backend, resources.models, report, resources.settings.lease_seconds)
    return finalizer.run
