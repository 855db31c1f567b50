"""The child of `ConfinedRuntime`: loads one model with the fastest runtime and answers batches of pixels.

python -m worker.confinement.run … worker.engine.runtimes.confined_child
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contract.data.children.messages import Head
from contract.errors import ModelError
from worker.confinement.serve import Handler, serve
from worker.engine import select
from worker.engine.types import ModelSpec


def make(greeting: Head) -> tuple[Head, Handler]:
    """Load the model that the greeting describes; return facts about its runtime, and what runs a batch."""
    asked = greeting["spec"]
    spec = ModelSpec(**{**asked, "weights": Path(asked["weights"])})
    options = greeting["options"]
    runtime = select.load(spec, **{**options, "cache_dir": Path(options["cache_dir"])})
    most = int(greeting["answer_bytes"])

    def run(request: Head, blobs: list[bytes]) -> tuple[Head, Sequence[bytes | memoryview]]:
        pixels = np.frombuffer(blobs[0], np.uint8).reshape(request["shape"])
        output = runtime.submit(pixels).result()
        parts = [np.ascontiguousarray(part, np.float32) for part in (output.logits, output.features)]
        if sum(part.nbytes for part in parts) > most:
            raise ModelError(f"Its features are {parts[1].shape[1:]} for an image; make them shorter.")
        return {"shapes": [part.shape for part in parts]}, [memoryview(part.data).cast("B") for part in parts]

    facts = {name: getattr(runtime, name) for name in ("name", "device", "precision", "batch_size", "lanes")}
    return facts, run


if __name__ == "__main__":
    serve(make)
