"""Serves the bench's model by LitServe, with the engine's decode and runtime, to compare the product's serving with.

    python -m worker.bench.litserve_server --port 8123 --weights FILE --precision auto --processes 2

On a CPU it has a process a core, each with one thread, as LitServe advises; batches gain nothing there. A GPU has one
process that takes up to a batch, and waits 2 ms for it. LitServe is no dependency: nothing else may import this module.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, TypeAlias

import click
import litserve
import numpy as np
from numpy.typing import NDArray

from contract import settings as configuration
from contract.records import Precision
from worker.engine.images.decode import Decoded, decode
from worker.engine.pipeline import top_k
from worker.engine.types import PromptRuntime
from worker.execution.model_cache import load_runtime
from worker.zoo import builtin

Row: TypeAlias = dict[str, Any]

_NO_LIMIT = 2**62
_BATCH_SECONDS = 0.002


class Api(litserve.LitAPI):  # type: ignore[misc]
    """Takes an image in base64, and returns a row with its size and its five best labels."""

    def __init__(self, weights: Path, precision: Precision, threads: int, batch: int) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=_BATCH_SECONDS if batch > 1 else 0.0)
        self._weights, self._precision, self._threads = weights, precision, threads

    def setup(self, device: str) -> None:
        """Load the model, with small batches as a served model has them."""
        self._model, _ = builtin.efficientnet_lite0()
        settings = configuration.load().model_copy(update={"threads": self._threads})
        self._runtime = load_runtime(self._model, self._weights, settings, self._precision)
        self._submit = self._runtime.submit
        if isinstance(self._runtime, PromptRuntime):
            self._runtime.prepare()
            self._submit = self._runtime.submit_first

    def decode_request(self, request: dict[str, str]) -> Decoded:
        data, how = base64.b64decode(request["image"]), self._model.preprocess
        return decode(data, how.size, crop=how.crop, interpolation=how.interpolation, max_pixels=_NO_LIMIT)

    def batch(self, inputs: list[Decoded]) -> list[Decoded]:
        return inputs

    def predict(self, x: Decoded | list[Decoded]) -> Row | list[Row]:
        rows = self._rows(x if isinstance(x, list) else [x])
        return rows if isinstance(x, list) else rows[0]

    def unbatch(self, output: list[Row]) -> list[Row]:
        return output

    def _rows(self, images: list[Decoded]) -> list[Row]:
        pixels: NDArray[np.uint8] = np.stack([image.pixels for image in images])
        indices, scores = top_k(self._submit(pixels).result().logits, 5)
        labels = self._model.labels
        return [
            {
                "width": image.width,
                "height": image.height,
                "top_k": [{"label": labels[n], "score": score} for n, score in zip(best, found, strict=True)],
            }
            for image, best, found in zip(images, indices.tolist(), scores.tolist(), strict=True)
        ]


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--weights", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--precision", default="auto")
@click.option("--accelerator", default="cpu")
@click.option("--processes", default=0, help="Processes with a thread each; 0: one with all threads.")
@click.option("--batch", default=1)
def serve(port: int, weights: Path, precision: Precision, accelerator: str, processes: int, batch: int) -> None:
    """Serve until SIGTERM."""
    api = Api(weights, precision, 1 if processes else 0, batch)
    server = litserve.LitServer(
        api, accelerator=accelerator, devices=1, workers_per_device=max(1, processes), timeout=False
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    serve()
