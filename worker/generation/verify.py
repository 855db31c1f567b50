"""Verifies a job: generates a sample of its images again from their records, and compares them with their files.

    records → images → files → pixels, side by side → figures

An image is identical (the same bytes), within the tolerance (pixels differ by at most 1 of 255 levels), or different.
"""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from contract.data import image_index
from contract.data.image_index import SUFFIX
from contract.datasets.versions import Datasets
from contract.errors import JobConflict, ModelError, ObjectDamaged
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, read_images
from contract.jobs.numerics import read_class
from contract.jobs.specs import SampledSpec, Verify
from contract.jobs.status import Plan, ShardCommit
from contract.keys.jobs import JobKeys
from worker.datasets.dataset import evenly
from worker.engine.generators.generator import Generator
from worker.engine.images import pixels
from worker.engine.images.decode import decode
from worker.engine.images.encode import encode
from worker.execution.job_runner import ShardWork
from worker.execution.leases import Lease
from worker.execution.model_cache import Models
from worker.execution.resources import Resources
from worker.generation.archive import Row

_TOLERANCE = 1
"""Levels of 255 by which another batch size or another kind of processor may change a pixel."""


class _Chosen(NamedTuple):
    """An image of the sample: the job that made it, its record, and its file."""

    made: SampledSpec
    row: Row
    file: bytes


@dataclass(frozen=True)
class VerifyWork(ShardWork[Verify]):
    """Verifies jobs; one a process."""

    backend: Backend
    models: Models
    max_pixels: int

    def give_up(self, spec: Verify, lease: Lease, retry: int, kills: int) -> ShardCommit:
        raise ModelError(f"The verification of {spec.job} ended {kills} workers; see their logs.")

    def make(self, spec: Verify, lease: Lease, retry: int) -> ShardCommit:
        """Generate a sample of the images again, and compare."""
        chosen = list(self._chosen(spec))
        plan = Plan(shards=1, items=len(chosen), skipped=0)
        self.backend.store.put(JobKeys(spec.id).plan, plan.to_json())
        self.backend.ledger.complete(spec.id, shards=1, items=plan.items, error_limit=plan.items, skipped=0)
        found: Counter[str] = Counter()
        worst, differing = 0, []
        for made, row, file, image in self._again(chosen):
            new = encode(image, made.image_format)
            apart = 0 if new == file else self._apart(new, file, row["width"])
            worst = max(worst, apart)
            found["identical" if new == file else "within_tolerance"] += apart <= _TOLERANCE
            if apart > _TOLERANCE:
                differing.append(row["key"])
            lease.progress(sum(found.values()), 0)
            lease.check()
        named = spec.dataset or spec.job
        if differing:
            raise ModelError(
                f"{len(differing)} of {len(chosen)} images of {named} differ from what {spec.model} makes now, by "
                f"up to {worst} of 255 levels ({found['identical']} are identical, {found['within_tolerance']} within "
                f"{_TOLERANCE} level); the first is {differing[0]}, so the images or the weights were changed."
            )
        return ShardCommit(
            shard=lease.shard,
            items=len(chosen),
            ok=len(chosen),
            errors=0,
            model=spec.model,
            metrics={
                "compared": float(len(chosen)),
                "identical": float(found["identical"]),
                "within_tolerance": float(found["within_tolerance"]),
                "max_difference": float(worst),
            },
            runtime=self._generator(chosen[0].made).name,
            precision=self._generator(chosen[0].made).precision,
        )

    def _generator(self, made: SampledSpec) -> Generator:
        """Return the generator of a job, in the arithmetic that made its images."""
        numerics = read_class(self.backend.store, made.id)
        return self.models.generator(made.model, numerics.precision if numerics else made.precision)

    def _again(self, chosen: Sequence[_Chosen]) -> Iterator[tuple[SampledSpec, Row, bytes, NDArray[np.uint8]]]:
        """Yield each image of the sample with what its records make now, uint8 [h, w, c], job by job."""
        for _, group in groupby(chosen, key=lambda one: one.made.id):
            of_job = list(group)
            made = of_job[0].made
            sampler = self._generator(made).sampler(made.seed, made.truncation)
            labels = torch.tensor([one.row["label_index"] for one in of_job])
            numbers = torch.tensor([one.row["index"] for one in of_job])
            again = sampler.images(labels, numbers).movedim(1, -1).contiguous().numpy()
            if made.size:
                again = pixels.resized(again, made.size)
            for one, image in zip(of_job, again, strict=True):
                yield made, one.row, one.file, image

    def _jobs(self, spec: Verify) -> list[SampledSpec]:
        """Return the jobs that made the images: one, or one a version of a dataset."""
        if not spec.dataset:
            made = read_images(self.backend.store, spec.job)
            if not kind_of(made).seeded:
                raise JobConflict(
                    f"{spec.job} was made of other images, which its records do not hold, so it cannot be verified."
                )
            return [cast("SampledSpec", made)]
        versions = Datasets(self.backend.store).grown(spec.dataset).versions
        return [cast("SampledSpec", read_images(self.backend.store, version.job)) for version in versions]

    def _chosen(self, spec: Verify) -> Iterator[_Chosen]:
        """Yield the records of the sample, spread evenly over all accepted images, with their files.

        Raises ObjectDamaged if a file is not what its record says.
        """
        shards = [(made, *found) for made in self._jobs(spec) for found in image_index.shards(self.backend.store, made)]
        total = sum(sum(table["accepted"].to_pylist()) for _, _, table in shards)
        if not total:
            raise ModelError(f"{spec.job} has no accepted images to verify.")
        wanted = set(evenly(total, spec.sample).tolist())
        at = 0
        for made, commit, table in shards:
            rows = [row for row in table.to_pylist() if row["accepted"]]
            picked = [row for n, row in enumerate(rows, at) if n in wanted]
            at += len(rows)
            if not picked:
                continue
            with tarfile.open(fileobj=io.BytesIO(image_index.read_tar(self.backend.store, commit))) as tar:
                for row in picked:
                    member = tar.extractfile(f"{row['key']}{SUFFIX[made.image_format]}")
                    data = b"" if member is None else member.read()
                    if image_index.sha256(data) != row["sha256"]:
                        raise ObjectDamaged(
                            f"The image {row['key']} of {made.id} is not what its record says (its sha256 differs); "
                            "restore the tar from a backup, or generate it again as a new job."
                        )
                    yield _Chosen(made, row, data)

    def _apart(self, one: bytes, other: bytes, side: int) -> int:
        """Return the largest difference of two images in a channel of a pixel, in levels."""
        first, second = (
            decode(data, side, crop=1.0, interpolation="bicubic", max_pixels=self.max_pixels).pixels.astype(np.int16)
            for data in (one, other)
        )
        return int(np.abs(first - second).max())


def make_work(resources: Resources) -> VerifyWork:
    """Return what verifies in this process."""
    return VerifyWork(resources.backend, resources.models, resources.settings.max_image_pixels)
