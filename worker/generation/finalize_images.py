"""Finalizes a job that generates images, once every shard of its plan is done: summary, card and page, then the end.

It runs on a worker, under a lock of the job. Whenever it is killed, the reconciler sends it again and the outcome is
the same. What a synthesis does before its end is in `worker.generation.select_images`.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from contract.backend.lock import Lock
from contract.backend.objects import ObjectStore
from contract.data import image_index
from contract.data.dataset_card import CARD, WEBDATASET, card
from contract.data.dataset_stats import DatasetStats, count
from contract.data.items import parse_s3
from contract.data.provenance import provenance
from contract.errors import ImagemillError, NewerVersion, ServiceUnavailable
from contract.import_paths import load
from contract.jobs.commits import count_commits, iter_commits
from contract.jobs.ends import Standing, read_standing
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, close, read_images, reopen, settle, write_end
from contract.jobs.outputs import leftovers, missing, run_again
from contract.jobs.specs import ImagesSpec
from contract.keys.jobs import JobKeys
from worker.execution.model_cache import Models
from worker.execution.resources import Resources
from worker.generation.finish_faults import add_fault, read_faults

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
    process: str = ""
    """The process, unique among all that ever were."""
    max_attempts: int = 1
    """Attempts that must raise what nobody foresaw before the job fails."""
    fault_seconds: float = 0.0
    """Seconds for which they must raise."""

    def run(self, job: str) -> None:
        """Finalize a job whose shards are all done, unless another worker does. It is safe to run twice."""
        ledger = self.backend.ledger
        with ledger.lock("finish", job, self.lock_seconds) as lock:
            if lock is None:
                return
            run = ledger.run(job)  # before the state is read: a run that is opened later is not ended here
            try:
                if ledger.state(job) == "finalizing" and not self._waits(job, run):
                    self.finalize(read_images(self.backend.store, job), lock)
            except OutputsMissingError:
                reopen(self.backend, job, Standing(read_standing(self.backend.store, job).run, None))
            except LockLostError:
                log.info("Another worker finalizes %s, or it was canceled", job)
            except (ServiceUnavailable, NewerVersion) as error:
                log.warning("Finalizing %s is put off: %s", job, error)  # the reconciler sends it again
            except ImagemillError as error:
                self._fail(job, str(error), run)
            except Exception as error:  # perhaps a fault of this machine
                log.exception("Finalizing %s failed", job)
                self._retry(job, error, run)

    def _waits(self, job: str, run: int) -> bool:
        """Return whether this process raised lately, so that the job is left to another one for a while."""
        faults = read_faults(self.backend.store, job, run)
        return faults.waits(self.process, self.lock_seconds, time.time())

    def _retry(self, job: str, error: Exception, run: int) -> None:
        """Leave the job to another attempt, which the reconciler sends, or end it after the last one."""
        try:
            faults = add_fault(self.backend.store, job, run, self.process)
            if faults.enough(self.max_attempts, self.fault_seconds):
                tried = f"{faults.attempts} attempts in {len(faults.processes)} processes"
                reason = f"The images could not be put together in {tried} ({error!r}); see the worker's log."
                self._fail(job, reason, run)
        except ServiceUnavailable as away:
            log.warning("The fault of finalizing %s is not counted: %s", job, away)

    def _fail(self, job: str, reason: str, run: int) -> None:
        """End the run, unless it has ended: an object may be missing because another worker cleaned up at the end."""
        if self.backend.ledger.state(job) == "finalizing":
            close(self.backend, job, "failed", reason, run=run)

    def finalize(self, spec: Any, lock: Lock) -> None:
        """End the job. Raises LockLostError if the lock was lost on the way."""
        self.check_outputs(spec, lock)
        self.end(spec)

    def check_outputs(self, spec: ImagesSpec, lock: Lock) -> None:
        """Return if every output that a shard's commit names is there; else let the shard run again, once.

        Raises OutputsMissingError then, and ObjectDamaged if an output was missing before.
        """
        store, lost = self.backend.store, 0
        for commit, told in missing(store, spec, iter_commits(store, spec.id)):
            # Candidates are gone too once the job has succeeded.
            if not lock.held or read_standing(store, spec.id).end is not None:
                raise LockLostError
            run_again(store, spec, commit, told)
            lost += 1
        if lost:
            raise OutputsMissingError

    def publish(self, spec: Any, stats: DatasetStats, short: Sequence[str]) -> None:
        """Make what the job made part of what others read; called before it ends, perhaps more than once."""

    def end(self, spec: ImagesSpec, short: Sequence[str] = ()) -> None:
        """Write summary and page, and end the job; `short` names the classes that lack images."""
        store = self.backend.store
        run = read_standing(store, spec.id).run
        stats = count(table for _, table in image_index.shards(store, spec))
        accepted = {one.label: one.accepted for one in stats.classes}
        left_out = _left_out(store, spec)
        if left_out and not stats.candidates:
            codes = ", ".join(f"{code} {number:,}" for code, number in left_out.most_common())
            reason = f"No image of {spec.source.label} could be read ({codes})."
            close(self.backend, spec.id, "failed", reason, run=run)
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
            raise LockLostError
        metrics = self.report(spec)(spec, stats)
        self.publish(spec, stats, short)
        details: dict[str, Any] = {
            "total": stats.candidates + left_out.total(),
            "done": stats.candidates + left_out.total(),
            "ok": stats.candidates,
            "errors": left_out.total(),
            "error_codes": dict(left_out) or None,
            "labels": accepted,
            "metrics": {"accepted": float(stats.accepted), **metrics},
        }
        reason = f"After {stats.candidates:,} candidates {'; '.join(short)}; these images are kept." if short else ""
        end = write_end(self.backend, spec.id, "failed" if short else "succeeded", reason, run=run, **details)
        if end.labels is not None:  # else it was canceled first
            written = json.dumps(summary, indent=1, ensure_ascii=False).encode()
            store.put(f"{prefix}summary.json", written, bucket=bucket)
            store.put(f"{prefix}{CARD}", card(spec, stats, WEBDATASET).encode(), bucket=bucket)
        settle(self.backend, spec.id)
        if end.state != "succeeded":
            return
        for entry in list(store.list(JobKeys(spec.id).candidate_prefix)):
            store.delete(entry.key)
        for bucket, key in list(leftovers(store, spec, image_index.outcome(store, spec))):
            store.delete(key, bucket=bucket)


def _left_out(store: ObjectStore, spec: ImagesSpec) -> Counter[str]:
    """Count the source images that could not be read, by error code; images drawn from a seed have none."""
    if kind_of(spec).seeded:
        return Counter()
    return count_commits(store, spec.id, 0).error_codes


class OutputsMissingError(Exception):
    """What a commit names is gone; the job goes on."""


class LockLostError(Exception):
    """Another worker has taken the lock, or the job was canceled."""


F = TypeVar("F", bound=ImagesFinalizer)


def make_finalizer(resources: Resources) -> Callable[[str], None]:
    """Return the function that finalizes a job in this process."""
    return finalizer_of(resources, ImagesFinalizer).run


def finalizer_of(resources: Resources, kind: type[F]) -> F:
    """Return a finalizer of this process; the kind of a job names what writes its page."""

    def report(spec: ImagesSpec) -> Callable[[ImagesSpec, DatasetStats], dict[str, float]]:
        write: Callable[[ImagesSpec, DatasetStats], dict[str, float]]
        write = resources.once(load(str(kind_of(spec).report)))
        return write

    settings = resources.settings
    return kind(
        resources.backend,
        resources.models,
        report,
        settings.lease_seconds,
        process=resources.process,
        max_attempts=settings.max_attempts,
        fault_seconds=settings.fault_seconds,
    )
