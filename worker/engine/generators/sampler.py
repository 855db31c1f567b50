"""Generates images by class and number.

It knows no family: a generator is a function of latents and labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from contract.errors import ModelError
from contract.instruments import STAGE_SECONDS
from worker.engine.arithmetic import queueing
from worker.engine.busy import busy_on
from worker.engine.generators.latents import DeviceLatents, latents
from worker.engine.precision import autocast
from worker.engine.types import Precision

GROUP = 64
"""Images decoded at once. On two cores groups of 64 make 3,800 images/s of 28 × 28; groups of 256, 4,200."""

Decode = Callable[[Tensor, Tensor], Tensor]
"""Latents [n, latent] and classes, int64 [n], to images [n, c, size, size] in −1..1: `decode` of a generator."""


@dataclass(frozen=True)
class Sampler:
    """A generator and everything that determines its images besides class and number."""

    decode: Decode
    width: int
    """Width of the latents."""
    seed: int
    device: torch.device
    precision: Precision
    truncation: float | None = None
    """Largest magnitude of a number in a latent; None: unlimited."""

    def images(self, labels: Tensor, index: Tensor) -> Tensor:
        """Generate the images of these classes and numbers, both int64 [n]: uint8 [n, c, size, size] on the CPU.

        They are decoded in groups of 64, the last one padded: results can differ in the last bit of a float between
        batch sizes, and with a single size an image depends only on its place in the group. Raises ModelError if a
        pixel is not a finite number, which rounding would hide.
        """
        return torch.cat(list(self.groups(labels, index)))

    @torch.inference_mode()
    def groups(self, labels: Tensor, index: Tensor) -> Iterator[Tensor]:
        """Yield the same images group by group; a device starts on the next one before the last is copied from it."""
        waiting: Callable[[], Tensor] | None = None
        draw = self._draw()
        for y, numbers in zip(labels.split(GROUP), index.split(GROUP), strict=True):
            missing = GROUP - len(y)
            filled = functional.pad(y, (0, missing))
            with sampling(self.device):
                with queueing(self.device):
                    z = draw(filled, functional.pad(numbers, (0, missing)))
                    with autocast(self.device, self.precision):
                        images = self.decode(z, _queued(filled, self.device))
                    before, waiting = waiting, _read(images, len(y))
                group = None if before is None else before()
            if group is not None:
                yield group
        if waiting is not None:
            with sampling(self.device):
                group = waiting()
            yield group

    def _draw(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Return what makes latents of classes and numbers, on the device, which never waits for them."""
        if self.device.type != "cpu":
            return DeviceLatents(self.seed, self.width, self.truncation, self.device)
        return lambda labels, index: latents(self.seed, labels, index, self.width, self.truncation)

    def rows(self, classes: int, columns: int) -> list[Tensor]:
        """Generate the first images of the first classes: for each class, uint8 [columns, c, size, size] on the CPU."""
        labels = torch.arange(classes).repeat_interleave(columns)
        return list(self.images(labels, torch.arange(columns).repeat(classes)).split(columns))


@contextmanager
def sampling(device: torch.device) -> Iterator[None]:
    """Count the time of the block, in which a generator has the device."""
    with STAGE_SECONDS.seconds("sample"), busy_on(str(device)).computing():
        yield


def _queued(tensor: Tensor, device: torch.device) -> Tensor:
    """Queue a copy to a device; one from memory that is not pinned would wait until it is done."""
    if device.type != "cuda":
        return tensor.to(device)
    with torch.cuda.device(device):  # pinning opens a context on the current device
        return tensor.pin_memory().to(device, non_blocking=True)


def _read(images: Tensor, count: int) -> Callable[[], Tensor]:
    """Queue the conversion and the copy of the first `count` images; return what waits for them, and checks them."""
    finite, pixels = images.isfinite().all(), quantized(images[:count])
    if pixels.device.type != "cuda":
        return lambda: _checked(finite, pixels)
    with torch.cuda.device(pixels.device):  # pinning opens a context on the current device
        flag = torch.empty_like(finite, device="cpu", pin_memory=True).copy_(finite, non_blocking=True)
        host = torch.empty_like(pixels, device="cpu", pin_memory=True).copy_(pixels, non_blocking=True)
        done = torch.cuda.Event(blocking=True)
        done.record()

    def wait() -> Tensor:
        done.synchronize()
        return _checked(flag, host)

    return wait


def checked(images: Tensor) -> Tensor:
    """Convert the output of a decoder to uint8; raise ModelError if a pixel is not a finite number."""
    return _checked(images.isfinite().all(), quantized(images))


def _checked(finite: Tensor, pixels: Tensor) -> Tensor:
    if not finite:
        raise ModelError(
            "The images that its weights generate are not finite, so the training has diverged; train the model again "
            "with a lower learning rate."
        )
    return pixels


def quantized(images: Tensor) -> Tensor:
    """Round images in −1..1 to the nearest of 256 levels, as uint8; the inverse of `batches.normalized`."""
    return (images.float() * 127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
