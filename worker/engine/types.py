"""The protocol of a runtime, the model that it loads and the output that it returns.

It knows no runtime, and imports neither torch nor OpenVINO.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from worker.engine.images.regions import Regions

if TYPE_CHECKING:
    from contract.models.registry import Model

Precision = Literal["fp32", "bf16"]

Pixels: TypeAlias = NDArray[np.uint8] | Regions
"""Images as a model takes them, uint8 [n, size, size, 3], or what becomes them where the model computes."""


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a model for n images: `logits` float32 [n, classes], `features` float32 [n, d]."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a runtime needs to know of a model. Pixels, 0 to 255, become (pixel − mean) / std.

    With `channels` 1 they are converted to gray first.
    """

    family: str
    weights: Path
    weights_sha256: str
    size: int
    mean: float
    std: float
    classes: int
    channels: int = 3
    sequences: bool = False
    config: Mapping[str, int | float | str | bool] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, weights: Path) -> ModelSpec:
        """Make a spec from a model's record and its weights file."""
        how = model.preprocess
        return cls(
            family=model.family,
            config=dict(model.config),
            weights=weights,
            weights_sha256=model.weights.sha256,
            size=how.size,
            channels=how.channels,
            mean=how.mean,
            std=how.std,
            classes=len(model.labels),
            sequences=model.task == "classify-sequence",
        )


class Runtime(Protocol):
    """A loaded model on a device. Any number of threads may submit at the same time.

    `batch_size` is the maximum number of images in one `submit` (it shrinks when the device runs out of memory);
    `lanes` is the number of decoding and submitting threads that keep the device busy.
    """

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def lanes(self) -> int: ...

    def submit(self, pixels: NDArray[np.uint8], lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        """Run up to `batch_size` images, uint8 [n, size, size, 3]; the rows of the output are in the same order.

        A sequence runtime takes [n, t, size, size, 3] and the number of real frames in each, int64 [n].

        The future fails with DeviceOutOfMemory if not even one image fits. A runtime may compute on the caller's
        thread and return a completed future.
        """
        ...

    def close(self) -> None:
        """Finish all submitted batches and free the device."""
        ...


@runtime_checkable
class PromptRuntime(Runtime, Protocol):
    """A Runtime that answers few images sooner: in smaller batches, and ahead of what waits for the device."""

    def prepare(self) -> None:
        """Compile and warm up batches of 1, 2, 4 and 8, as far as they are smaller than `batch_size`; takes seconds."""
        ...

    def submit_first(self, pixels: NDArray[np.uint8], lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        """Run images as `submit` does, before those that wait, in the prepared batches that take them soonest."""
        ...


@runtime_checkable
class FedRuntime(Runtime, Protocol):
    """A Runtime that says in which memory it takes images soonest, and that may resize them itself."""

    @property
    def resizes(self) -> bool:
        """Whether `submit` takes `Regions` too, and the device resizes them to the pixels that Pillow would make."""
        ...

    def allocate(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Return an array with any content, which the device can copy without the CPU."""
        ...
