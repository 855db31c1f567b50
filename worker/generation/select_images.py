"""Selects the images of a synthesis among its candidates, or asks for more candidates; then ends the job.

    indices of candidates → selection → a longer plan, or: selected tars and indices → end

The selection depends on the candidates alone and every object is named by its content, so a second worker, or a second
run after a kill, selects the same images and writes the same objects.
"""

from __future__ import annotations

import io
import logging
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from contract.backend.lock import Lock
from contract.data import image_index
from contract.data.dataset_stats import DatasetStats
from contract.data.image_index import INDEX, SUFFIX, named
from contract.datasets import extending
from contract.datasets.records import Part, Version
from contract.errors import StoreUnavailable
from contract.jobs.commits import read_commit
from contract.jobs.outputs import missing, write
from contract.jobs.results import committed
from contract.jobs.specs import Synthesize
from contract.jobs.status import Plan
from contract.keys.jobs import JobKeys
from contract.keys.queues import QUEUE_GENERATE
from contract.keys.shards import shard_stem
from contract.models.registry import Model
from worker.execution.resources import Resources
from worker.generation import candidate_plan
from worker.generation.archive import Archive, facts, index
from worker.generation.candidate_plan import CandidateBlock, next_candidates
from worker.generation.dataset_features import ByClass, DatasetFeatures, make_dataset_features
from worker.generation.finalize_images import ImagesFinalizer, LockLostError, finalizer_of
from worker.generation.selection import Selection
from worker.generation.shard import FEATURES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SynthesisFinalizer(ImagesFinalizer):
    """Finalizes jobs of kind `synthesize`."""

    features: DatasetFeatures | None = None
    """The features of datasets; None where no job extends one."""

    def finalize(self, spec: Synthesize, lock: Lock) -> None:
        """Select and end the job, or let it run again for more candidates."""
        blocks = candidate_plan.read(self.backend.store, spec.id)
        status = self.backend.ledger.status(spec.id)
        if status is not None and status.shards.total < len(blocks):
            # An earlier run was killed after it had written a longer plan and before the ledger knew.
            self._extend(spec, blocks)
            return
        self.check_outputs(spec, lock)
        tables = []
        for number in range(len(blocks)):
            check(lock)
            tables.append(committed(self.backend.store, read_commit(self.backend.store, spec.id, number)))
        earlier = self._features.before(spec, lambda: check(lock)) if spec.extend is not None else {}
        selected = select(spec, blocks, tables, earlier)
        more = next_candidates(spec, blocks, {label: one.accepted for label, one in selected.items()})
        if more:
            log.info("%s: %d more shards of candidates", spec.id, len(more))
            candidate_plan.write(self.backend.store, spec.id, [*blocks, *more])
            self._extend(spec, [*blocks, *more])
            return
        model = self.models.model(spec.model)
        verdicts = {label: iter(zip(one.reasons, one.distances, strict=True)) for label, one in selected.items()}
        for number, table in enumerate(tables):
            check(lock)
            self._keep(spec, number, table, verdicts)
        for _, told in missing(self.backend.store, spec, image_index.outcome(self.backend.store, spec)):
            raise StoreUnavailable(f"{told}, though it has just been written; the selection is written again.")
        short = _short(spec, model, selected)
        if spec.extend is not None and not short:
            width = max(one.features().shape[1] for one in selected.values())
            self._features.keep(spec, {label: one.features(width) for label, one in selected.items()})
        self.end(spec, short)

    def publish(self, spec: Synthesize, stats: DatasetStats, short: Sequence[str]) -> None:
        """Write the version of the dataset that the job extends; a class that falls short makes none."""
        if spec.extend is None or short:
            return
        model = self.models.model(spec.model)
        commits = list(image_index.outcome(self.backend.store, spec))
        version = Version(
            dataset=spec.extend.dataset,
            number=spec.extend.number,
            at=spec.extend.at,
            job=spec.id,
            model=spec.model,
            weights_sha256=spec.weights_sha256,
            gate=spec.gate,
            gate_sha256=spec.gate_sha256,
            seed=spec.seed,
            labels=model.labels,
            size=spec.size or model.preprocess.size,
            channels=model.preprocess.channels,
            image_format=spec.image_format,
            accepted={one.label: one.accepted for one in stats.classes if one.accepted},
            parts=tuple(
                Part(index=str(one.output), sha256=str(one.sha256), accepted=one.ok) for one in commits if one.ok
            ),
        )
        extending.publish(self.backend.store, version)

    @property
    def _features(self) -> DatasetFeatures:
        assert self.features is not None, "a worker has them"
        return self.features

    def _extend(self, spec: Synthesize, blocks: Sequence[CandidateBlock]) -> None:
        """Let a job run again with a longer plan: in the bucket first, then in the ledger."""
        plan = Plan(shards=len(blocks), items=sum(map(len, blocks)), skipped=0)
        self.backend.store.put(JobKeys(spec.id).plan, plan.to_json())
        limit = spec.error_limit(plan.items)
        step = self.backend.ledger.extend(spec.id, shards=plan.shards, items=plan.items, error_limit=limit)
        self.backend.ledger.send_tickets(QUEUE_GENERATE, step.tickets)

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
        made = {".tar": archive.close(), INDEX: index(archive.rows, spec.kind)}
        outputs = write(store, spec.output, shard_stem(number), made)
        accepted = [row["label"] for row in archive.rows if row["accepted"]]
        commit = candidates.model_copy(
            update={
                "ok": len(accepted),
                "items": len(rows),
                "labels": dict(Counter(accepted)),
                **named(outputs),
            }
        )
        # The first counts: a finalizer that lost its lock may still be here.
        store.put_if_absent(keys.selected(number), commit.to_json())


def check(lock: Lock) -> None:
    """Raise LockLostError unless the lock is held."""
    if not lock.held:
        raise LockLostError


def select(
    spec: Synthesize, blocks: Sequence[CandidateBlock], tables: Sequence[pa.Table], earlier: ByClass | None = None
) -> dict[int, Selection]:
    """Select among the candidates of each class; the blocks of a class must be in the order of their indices.

    `earlier` are the features of images that a dataset holds already.
    """
    earlier = earlier or {}
    selected = {label: Selection(spec.wanted(label), spec.dedup, earlier=earlier.get(label)) for label in spec.classes}
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
        f"{model.labels[label]} has {one.accepted:,} of {spec.wanted(label):,}"
        for label, one in selected.items()
        if one.accepted < spec.wanted(label)
    ]


def make_finalizer(resources: Resources) -> Callable[[str], None]:
    """Return the function that finalizes a synthesis in this process."""
    made = finalizer_of(resources, SynthesisFinalizer)
    return replace(made, features=resources.once(make_dataset_features)).run
