"""What a runtime takes and gives: its protocol, the model it loads, the output it returns.

It knows no runtime, and imports neither torch nor OpenVINO.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from contract.models.registry import Model

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class Output:
    """What a model says of n images: `logits` float32 [n, classes], `features` float32 [n, d]."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model as a runtime needs it. Pixels 0 to 255 become (pixel − mean) / std, gray first where `channels` is 1."""

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
        """A record, and its weights as a file."""
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

    `batch_size` is the most images of one `submit` (it shrinks when the device runs out of memory);
    `lanes` is how many threads that decode and submit keep the device busy.
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
        """Run n ≤ `batch_size` images, uint8 [n, size, size, 3]; the rows come back in the same order.

        A runtime of sequences takes [n, t, size, size, 3] and how many frames of each are real, int64 [n].

        The future fails with DeviceOutOfMemory where not even one image fits. A runtime may compute on
        the caller's thread and return a future that is done.
        """
        ...

    def close(self) -> None:
        """Finish what was submitted and free the device."""
        ...
