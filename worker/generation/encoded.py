"""Fills a shard with images that a model encodes and decodes: reconstructions and interpolations.

    source_images → encoder → means → (points between them) → decoder → images → archive

Writing tar and index is left to `worker.generation.shard`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from contract.instruments import STAGE_SECONDS
from contract.jobs.specs import EncodedSpec, Interpolate, Reconstruct
from worker.engine.generators.interpolation import spherical
from worker.engine.generators.sampler import GROUP
from worker.engine.images import pixels
from worker.engine.images.encode import encode
from worker.execution.leases import Lease
from worker.execution.resources import Resources
from worker.generation.archive import Archive, facts, new_row
from worker.generation.shard import Filled, ImagesWork, shared
from worker.generation.source_images import SourceImages, make_source_images


@dataclass(frozen=True)
class ReconstructWork(ImagesWork[Reconstruct]):
    """Encodes and decodes a block of source images a shard."""

    source_images: SourceImages

    def fill(self, spec: Reconstruct, lease: Lease, archive: Archive) -> Filled:
        model, first = self.models.model(spec.model), lease.shard * spec.shard_size

        def seen(images: int) -> None:
            lease.progress(0, 0, {"read": images})
            lease.check()

        block = self.source_images.of_shard(spec, lease.shard, seen=seen)
        autoencoder = self.models.generator(spec.model, spec.precision).autoencoder()
        for at in range(0, len(block.labels), GROUP):
            given, labels = block.images[at : at + GROUP], torch.from_numpy(block.labels[at : at + GROUP])
            with self.turn_on_device(lease):
                z = autoencoder.means(torch.from_numpy(given).movedim(-1, 1), labels)
                made = autoencoder.images(z, labels).movedim(1, -1).contiguous().numpy()
            errors = mean_squared_errors(given, made)
            shown, files = written(self.encoders, spec, made)
            for n, file in enumerate(files):
                row = new_row(spec, model, int(labels[n]), first + block.places[at + n], shown.shape[1])
                row |= {"original": block.keys[at + n], "mse": float(errors[n])}
                archive.add(row, file, facts(spec, row))
            lease.progress(len(archive.rows), block.left_out.total())
            lease.check()
        return Filled(left_out=block.left_out)


@dataclass(frozen=True)
class InterpolateWork(ImagesWork[Interpolate]):
    """Decodes some of the steps between two images a shard."""

    source_images: SourceImages

    def fill(self, spec: Interpolate, lease: Lease, archive: Archive) -> Filled:
        model, (label,) = self.models.model(spec.model), spec.classes
        start = lease.shard * spec.shard_size
        autoencoder = self.models.generator(spec.model, spec.precision).autoencoder()
        ends = torch.from_numpy(self.source_images.ends(spec)).movedim(-1, 1)
        with self.turn_on_device(lease):
            a, b = autoencoder.means(ends, torch.full((2,), label))
        for numbers in torch.arange(start, min(start + spec.shard_size, spec.steps)).split(GROUP):
            positions = numbers.double() / (spec.steps - 1)
            with self.turn_on_device(lease):
                made = autoencoder.images(spherical(a, b, positions), torch.full((len(numbers),), label))
            shown, files = written(self.encoders, spec, made.movedim(1, -1).contiguous().numpy())
            for number, position, file in zip(numbers.tolist(), positions.tolist(), files, strict=True):
                row = new_row(spec, model, label, number, shown.shape[1]) | {"position": position}
                archive.add(row, file, facts(spec, row))
            lease.progress(len(archive.rows), 0)
            lease.check()
        return Filled()


def written(
    encoders: ThreadPoolExecutor, spec: EncodedSpec, made: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], list[bytes]]:
    """Return the images at the size that was asked for, and their files."""
    with STAGE_SECONDS.seconds("encode"):
        shown = pixels.resized(made, spec.size) if spec.size else made
        return shown, list(encoders.map(partial(encode, image_format=spec.image_format), shown))


def mean_squared_errors(source_images: NDArray[np.uint8], images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean squared error of each image, float64 [n], with pixels scaled to 0 to 1.

    Both arrays are uint8 [n, h, w, c].
    """
    apart = (source_images.astype(np.float64) - images) / 255
    found: NDArray[np.float64] = np.square(apart).mean(axis=(1, 2, 3))
    return found


def make_reconstructor(resources: Resources) -> ReconstructWork:
    """Return what makes reconstructions in this process."""
    return ReconstructWork(*shared(resources), resources.once(make_source_images))


def make_interpolator(resources: Resources) -> InterpolateWork:
    """Return what makes interpolations in this process."""
    return InterpolateWork(*shared(resources), resources.once(make_source_images))
