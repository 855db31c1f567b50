"""Makes one shard of a job that generates: a block of images, judged where there is a gate, and encoded.

    block → latents → images → gate → encode → tar, index

Images leave the device in groups while those before them are encoded on other threads; the tar and the index of a
shard are written and uploaded while the device is at the next one. It knows nothing of Celery, nor of which candidates
are chosen in the end (`worker.generation.select_images`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from contract.data.image_index import INDEX, named
from contract.errors import ModelError
from contract.instruments import STAGE_SECONDS
from contract.jobs.lifecycle import Backend
from contract.jobs.outputs import write
from contract.jobs.specs import Generate, ImagesSpec, Synthesize
from contract.jobs.status import ShardCommit
from contract.keys.jobs import JobKeys
from contract.keys.shards import shard_stem
from contract.models.registry import Model
from worker.engine.busy import busy_on
from worker.engine.generators.sampler import GROUP
from worker.engine.images import pixels
from worker.engine.images.encode import encode
from worker.execution.device_slots import DeviceSlots
from worker.execution.job_runner import ShardWork
from worker.execution.leases import Lease
from worker.execution.model_cache import Models
from worker.execution.resources import Resources
from worker.generation import candidate_plan
from worker.generation.archive import Archive, Row, facts, index, new_row
from worker.generation.candidate_plan import CandidateBlock
from worker.generation.reference_features import Reference, ReferenceFeatures, make_reference_features
from worker.generation.selection import normalized

FEATURES = "features"
"""The last column of an index of candidates: features of the gate, list of float32, null for a rejected candidate."""

_UNDER_WAY = 8
"""Groups that may wait to be encoded; bounds the memory."""


S = TypeVar("S", bound=ImagesSpec)


@dataclass(frozen=True)
class Filled:
    """What `fill` returns besides the images in the archive."""

    left_out: Counter[str] = field(default_factory=Counter)
    """How many source images could not be read, by error code."""
    columns: dict[str, pa.Array] = field(default_factory=dict)
    """Columns of the index after those of the schema."""


@dataclass(frozen=True)
class ImagesWork(ShardWork[S]):
    """Makes shards of images; `fill` differs from kind to kind."""

    backend: Backend
    models: Models
    encoders: ThreadPoolExecutor
    device_slots: DeviceSlots

    @abstractmethod
    def fill(self, spec: S, lease: Lease, archive: Archive) -> Filled:
        """Put every image of a shard into its archive."""

    def prefix(self, spec: S) -> str:
        """Return the s3:// prefix of the outputs of a shard."""
        return spec.output

    def give_up(self, spec: S, lease: Lease, retry: int, kills: int) -> ShardCommit:
        raise ModelError(
            f"Shard {lease.shard} of {spec.id} ended {kills} workers; see their logs, and try a smaller --shard-size."
        )

    def make(self, spec: S, lease: Lease, retry: int) -> ShardCommit:
        """Make the images of a shard; write tar and index."""
        archive = Archive(spec.image_format)
        filled = self.fill(spec, lease, archive)
        left_out = filled.left_out
        data = index(archive.rows, spec.kind, filled.columns)
        lease.check()
        files = {".tar": archive.close(), INDEX: data}
        with STAGE_SECONDS.seconds("put"):
            outputs = write(self.backend.store, self.prefix(spec), shard_stem(lease.shard), files)
        runtime = self.models.generator(spec.model, spec.precision)
        return ShardCommit(
            shard=lease.shard,
            items=len(archive.rows) + left_out.total(),
            ok=len(archive.rows),
            errors=left_out.total(),
            error_codes=dict(left_out),
            labels=dict(Counter(row["label"] for row in archive.rows if row["accepted"])),
            **named(outputs),
            runtime=runtime.name,
            precision=runtime.precision,
        )

    def turn_on_device(self, lease: Lease) -> AbstractContextManager[None]:
        """Hold a slot of the device in a `with` block. Raises JobStopped or LeaseLost while it waits for one."""

        def waits() -> None:
            lease.progress(lease.ok, lease.errors)
            lease.check()

        return self.device_slots.turn(waits)


D = TypeVar("D", Generate, Synthesize)


@dataclass(frozen=True)
class SampledWork(ImagesWork[D]):
    """Makes images from latents drawn from a seed: a block of them per shard."""

    def block(self, spec: D, lease: Lease) -> CandidateBlock:
        """Return what a shard is to make."""
        return candidate_plan.read_block(self.backend.store, spec.id, lease.shard)

    def images(
        self, spec: D, block: CandidateBlock, lease: Lease
    ) -> Iterator[tuple[list[tuple[int, int]], NDArray[np.uint8]]]:
        """Yield class and index of the images of a group, and the images, uint8 [n, h, w, c], group by group."""
        keys = list(block.images())
        labels, numbers = torch.tensor(keys).T
        sampler = self.models.generator(spec.model, spec.precision).sampler(spec.seed, spec.truncation)
        groups = sampler.groups(labels, numbers)
        for at in range(0, len(keys), GROUP):
            with self.turn_on_device(lease):
                group = next(groups)
            yield keys[at : at + GROUP], group.movedim(1, -1).contiguous().numpy()


@dataclass(frozen=True)
class GeneratedWork(SampledWork[Generate]):
    """Makes every image of a block."""

    def fill(self, spec: Generate, lease: Lease, archive: Archive) -> Filled:
        self.draw(spec, self.block(spec, lease), lease, archive)
        return Filled()

    def draw(self, spec: Generate, block: CandidateBlock, lease: Lease, archive: Archive) -> None:
        """Put every image of a block into an archive."""
        model = self.models.model(spec.model)
        made: list[tuple[list[Row], Future[list[bytes]]]] = []
        # Hold the slot for all groups: shards that took turns would finish at the same time and leave the device idle
        # together.
        with self.turn_on_device(lease):
            for keys, images in self.images(spec, block, lease):
                rows = [new_row(spec, model, label, number, spec.size or images.shape[1]) for label, number in keys]
                made.append((rows, self.encoders.submit(encode_images, spec, images)))
                if len(made) > _UNDER_WAY:
                    made[-_UNDER_WAY - 1][1].result()
                lease.progress(lease.ok + len(rows), 0)
                lease.check()
        for rows, files in made:
            for row, file in zip(rows, files.result(), strict=True):
                archive.add(row, file, facts(spec, row))


@dataclass(frozen=True)
class CandidateWork(SampledWork[Synthesize]):
    """Makes every candidate of a block, and keeps those that pass the gate."""

    reference_features: ReferenceFeatures

    def fill(self, spec: Synthesize, lease: Lease, archive: Archive) -> Filled:
        return Filled(columns={FEATURES: self._judge(spec, self.block(spec, lease), lease, archive)})

    def prefix(self, spec: Synthesize) -> str:
        """Return the prefix of candidates, which `worker.generation.selection` chooses from."""
        return f"s3://{self.backend.store.bucket}/{JobKeys(spec.id).candidate_prefix}"

    def _judge(self, spec: Synthesize, block: CandidateBlock, lease: Lease, archive: Archive) -> pa.Array:
        """Put every candidate of a block into the archive, with a file if it passes the gate; return the features."""
        model, gate = self.models.model(spec.model), self.models.model(spec.gate)
        reference = self.reference_features.of(spec, lease)
        features: list[NDArray[np.float32] | None] = []
        made: list[tuple[list[Row], NDArray[np.float32], Future[list[bytes]]]] = []
        with self.models.use(spec.gate, "fp32") as loaded:
            for keys, images in self.images(spec, block, lease):
                given = pixels.rgb(pixels.resized(images, gate.preprocess.size))
                size = loaded.runtime.batch_size
                parts = [given[at : at + size] for at in range(0, len(given), size)]
                with STAGE_SECONDS.seconds("judge"), busy_on(loaded.runtime.device).computing():
                    outputs = [loaded.runtime.submit(part).result() for part in parts]
                said = np.concatenate([output.logits for output in outputs])
                seen = np.concatenate([output.features for output in outputs])
                rows = [new_row(spec, model, label, number, spec.size or images.shape[1]) for label, number in keys]
                _verdicts(spec, gate, rows, said, seen, reference)
                passing = [n for n, row in enumerate(rows) if row["reject_reason"] is None]
                made.append((rows, seen, self.encoders.submit(encode_images, spec, images[passing])))
                if len(made) > _UNDER_WAY:
                    made[-_UNDER_WAY - 1][2].result()
                lease.progress(lease.ok + len(rows), 0)
                lease.check()
        for rows, seen, encoded in made:
            files = iter(encoded.result())
            for row, feature in zip(rows, seen, strict=True):
                if row["reject_reason"] is None:
                    archive.add(row, next(files), facts(spec, row))
                    features.append(feature)
                else:
                    archive.reject(row)
                    features.append(None)
        return pa.array(features, pa.list_(pa.float32()))


def _verdicts(
    spec: Synthesize,
    gate: Model,
    rows: list[Row],
    logits: NDArray[np.float32],
    features: NDArray[np.float32],
    reference: Reference | None,
) -> None:
    """Write what the gate finds into the rows: predicted class, score, copy distance, reason for rejection."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = odds / odds.sum(axis=1, keepdims=True)
    best = logits.argmax(axis=1)
    near = reference.nearest(normalized(features)) if reference is not None else None
    for n, row in enumerate(rows):
        row["predicted"] = gate.labels[best[n]]
        row["score"] = float(scores[n, gate.labels.index(row["label"])])
        if near is not None and reference is not None:
            row["copy_distance"], row["nearest"] = float(near[0][n]), str(int(near[1][n]))
        if row["predicted"] != row["label"]:
            row["reject_reason"] = "class"
        elif not row["score"] >= spec.min_score:  # also a score that is no number
            row["reject_reason"] = "score"
        elif near is not None and not row["copy_distance"] >= spec.copy_distance:
            row["reject_reason"] = "copy"
        row["accepted"] = row["reject_reason"] is None


def encode_images(spec: ImagesSpec, images: NDArray[np.uint8]) -> list[bytes]:
    """Return the file of each image, at the size that was asked for."""
    with STAGE_SECONDS.seconds("encode"):
        if spec.size and len(images):
            images = pixels.resized(images, spec.size)
        return [encode(image, spec.image_format) for image in images]


def make_generator(resources: Resources) -> GeneratedWork:
    """Return what makes images for `generate` in this process."""
    return GeneratedWork(*shared(resources))


def make_candidates(resources: Resources) -> CandidateWork:
    """Return what makes candidates for `synthesize` in this process."""
    return CandidateWork(*shared(resources), resources.once(make_reference_features))


def device_slots(resources: Resources) -> DeviceSlots:
    """Return the slots of the device of a process."""
    return resources.once(_make_device_slots)


def shared(resources: Resources) -> tuple[Backend, Models, ThreadPoolExecutor, DeviceSlots]:
    """Return the fields of `ImagesWork`; all kinds of jobs share the threads and the device of the process."""
    return resources.backend, resources.models, resources.once(_make_encoders), device_slots(resources)


def _make_encoders(resources: Resources) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(resources.threads, "encode")


def _make_device_slots(resources: Resources) -> DeviceSlots:
    return DeviceSlots(resources.device, resources.threads)
