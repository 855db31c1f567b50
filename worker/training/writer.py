"""Puts checkpoints away on a thread beside the steps, one at a time. It knows neither their content nor their place.

What a training waits for is a copy of its state in memory; hashing, packing and the store's answer cost it nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

from torch import Tensor

from contract.instruments import STAGE_SECONDS
from worker.training.checkpoint import pack, snapshot


class Writer:
    """Calls `put(images, data)` with each checkpoint, on `thread`; what it raises comes out of the next call here."""

    def __init__(self, put: Callable[[int, bytes], None], thread: Executor) -> None:
        self._put = put
        self._thread = thread
        self._write: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Return whether a checkpoint is still being written."""
        return self._write is not None and not self._write.done()

    def check(self) -> None:
        """Raise what a write that is over has raised; one that is under way is not waited for."""
        if not self.busy:
            self.wait()

    def wait(self) -> None:
        """Wait for the checkpoint that is on its way, and raise what its write raises."""
        write, self._write = self._write, None
        if write is not None:
            write.result()

    def write(self, images: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Begin to put away the tensors as they are now, once the checkpoint before is where it belongs.

        `meta` must not change afterwards.
        """
        self.wait()
        self._write = self._thread.submit(self._pack, images, snapshot(tensors), meta)
        self.check()

    def _pack(self, images: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        with STAGE_SECONDS.seconds("checkpoint"):
            self._put(images, pack(tensors, meta))
