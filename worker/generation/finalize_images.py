"""Finalizes a job that generates images, once every shard of its plan is done.

    synthesize:   indices of candidates → selection → more candidates, or: selected tars and indices → end
    other kinds:  summary and page → end

It runs on a worker, under a lock of the job. Whenever it is killed, the reconciler sends it again, and the outcome is
the same: the selection depends on the candidates alone, and every object has a fixed key.
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
from contract.jobs.lifecycle import Backend, close, read_commit, read_images
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
from worker.generation.candidate_plan import CandidateBlock, next_candidates
from worker.generation.selection import Selection
from worker.generation.shard import FEATURES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImagesFinalizer:
    """Finalizes jobs that generate images; one a process."""

    backend: Backend
    models: Models
    report: Callable[[ImagesSpec], Callable[[ImagesSpec, DatasetStats], dict[str, float]]]
    """Return the function that writes the page of such a job and returns the figures it measured."""
    lock_seconds: float
    """Seconds after which another worker takes over from one that died."""

    def run(self, job: str) -> None:
        """Finalize a job whose shards are all done, unless another worker does. It is safe to run twice."""
        ledger = self.backend.ledger
        with ledger.lock("finish", job, self.lock_seconds) as lock:
            if lock is None:
                return
            try:
                if ledger.state(job) == "finalizing":
                    self._finalize_images(job, lock)
            except _LockLostError:
                log.info("Another worker finalizes %s, or it was canceled", job)
            except ServiceUnavailable as error:
                log.warning("Finalizing %s is put off: %s", job, error)  # the reconciler sends it again
            except ImagemillError as error:
                self._fail(job, str(error))
            except Exception as error:
                # A deterministic failure would repeat for ever; end the job with a reason instead.
                log.exception("Finalizing %s failed", job)
                self._fail(job, f"The images could not be put together ({error!r}); see the worker's log.")

    def _fail(self, job: str, reason: str) -> None:
        """End the job, unless it has ended: an object may be missing because another worker cleaned up at the end."""
        if self.backend.ledger.state(job) == "finalizing":
            close(self.backend, job, "failed", reason)

    def _finalize_images(self, job: str, lock: Lock) -> None:
        spec = read_images(self.backend.store, job)
        if not isinstance(spec, Synthesize):
            self._end(spec, [])
            return
        blocks = candidate_plan.read(self.backend.store, job)
        status = self.backend.ledger.status(job)
        if status is not None and status.shards.total < len(blocks):
            # An earlier run was killed after it had written a longer plan and before the ledger knew.
            self._extend(spec, blocks)
            return
        tables = []
        for number in range(len(blocks)):
            _check(lock)
            tables.append(committed(self.backend.store, read_commit(self.backend.store, job, number)))
        selected = select(spec, blocks, tables)
        more = next_candidates(spec, blocks, {label: one.accepted for label, one in selected.items()})
        if more:
            log.info("%s: %d more shards of candidates", job, len(more))
            candidate_plan.write(self.backend.store, job, [*blocks, *more])
            self._extend(spec, [*blocks, *more])
            return
        model = self.models.model(spec.model)
        verdicts = {label: iter(zip(one.reasons, one.distances, strict=True)) for label, one in selected.items()}
        for number, table in enumerate(tables):
            _check(lock)
            self._keep(spec, number, table, verdicts)
        self._end(spec, _short(spec, model, selected))

    def _extend(self, spec: Synthesize, blocks: Sequence[CandidateBlock]) -> None:
        """Let a job run again with a longer plan: in the bucket first, then in the ledger."""
        plan = Plan(shards=len(blocks), items=sum(map(len, blocks)), skipped=0)
        self.backend.store.put(JobKeys(spec.id).plan, plan.to_json())
        limit = spec.error_limit(plan.items)
        step = self.backend.ledger.extend(spec.id, shards=plan.shards, items=plan.items, error_limit=limit)
        self.backend.queues.run(step.kind, spec.id, step.queue)

    def _keep(
        self,
        spec: Synthesize,
        number: int,
        table: pa.Table,
        verdicts: dict[int, zip[tuple[str | None, float | None]]],
    ) -> None:
        """Write what is selected from a shard of candidates, and commit it."""
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
                "ok": len(accepted),
                "items": len(rows),
                "labels": dict(Counter(accepted)),
                "output": output,
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )
        store.put(keys.selected(number), commit.to_json())

    def _end(self, spec: ImagesSpec, short: Sequence[str]) -> None:
        """Write summary and page, and end the job; `short` names the classes that lack images."""
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
            reason = f"After {stats.candidates:,} candidates {'; '.join(short)}; these images are kept."
            close(self.backend, spec.id, "failed", reason, **details)
            return
        store.put(f"{prefix}_SUCCESS", b"", bucket=bucket)
        close(self.backend, spec.id, "succeeded", **details)
        for entry in list(store.list(JobKeys(spec.id).candidate_prefix)):
            store.delete(entry.key)


def _left_out(store: ObjectStore, spec: ImagesSpec) -> Counter[str]:
    """Count the source images that could not be read, by error code; images drawn from a seed have none."""
    if kind_of(spec).seeded:
        return Counter()
    return sum((Counter(commit.error_codes) for commit in read_commits(store, spec.id)), Counter[str]())


class _LockLostError(Exception):
    """Another worker has taken the lock, or the job was canceled."""


def _check(lock: Lock) -> None:
    if not lock.held:
        raise _LockLostError


def select(spec: Synthesize, blocks: Sequence[CandidateBlock], tables: Sequence[pa.Table]) -> dict[int, Selection]:
    """Select among the candidates of each class; the blocks of a class must be in the order of their indices."""
    selected = {label: Selection(spec.per_class, spec.dedup) for label in spec.classes}
    for block, table in zip(blocks, tables, strict=True):
        (label,) = block.labels
        column = table[FEATURES].combine_chunks()
        passing = column.is_valid().to_numpy(zero_copy_only=False)
        features = column.flatten().to_numpy().reshape(int(passing.sum()), -1) if passing.any() else None
        selected[label].add(table["reject_reason"].to_pylist(), features)
    return selected


def _files(data: bytes, spec: Synthesize) -> dict[str, bytes]:
    """Return the images of a tar by key."""
    suffix = SUFFIX[spec.image_format]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = ((member, tar.extractfile(member)) for member in tar if member.name.endswith(suffix))
        return {member.name.removesuffix(suffix): file.read() for member, file in found if file is not None}


def _short(spec: Synthesize, model: Model, selected: dict[int, Selection]) -> list[str]:
    return [
        f"{model.labels[label]} has {one.accepted:,} of {spec.per_class:,}"
        for label, one in selected.items()
        if one.accepted < spec.per_class
    ]


def make_finalizer(resources: Resources) -> Callable[[str], None]:
    """Return the function that finalizes a job in this process."""

    def report(spec: ImagesSpec) -> Callable[[ImagesSpec, DatasetStats], dict[str, float]]:
        write: Callable[[ImagesSpec, DatasetStats], dict[str, float]]
        write = resources.once(load(str(kind_of(spec).report)))
        return write

    finalizer = ImagesFinalizer(resources.backend, resources.models, report, resources.settings.lease_seconds)
    return finalizer.run
