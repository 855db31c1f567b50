"""EfficientNet-Lite0 with its ImageNet weights, for the tests that run a real model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from worker.engine.types import ModelSpec
from worker.zoo import builtin


def lite0(folder: Path) -> ModelSpec:
    """Write the weights into a folder, and return the spec that names them."""
    data = builtin.weights()
    path = folder / "weights.safetensors"
    path.write_bytes(data)
    return ModelSpec(
        family="efficientnet-lite0",
        weights=path,
        weights_sha256=hashlib.sha256(data).hexdigest(),
        size=224,
        mean=127.0,
        std=128.0,
        classes=1000,
    )
