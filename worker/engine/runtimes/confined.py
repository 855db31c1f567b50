"""Runs a model that somebody pushed in a confined child: no credentials, no network, no files but its own.

It knows no kind of runtime: the child chooses one as `worker.engine.select` does.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from contract.errors import DeviceOutOfMemory, ImagemillError, InvalidSettings, ModelError, RuntimeUnsuited
from worker.confinement.child import Answer, Child, ChildDied, ChildError
from worker.confinement.confine import Limits
from worker.engine.types import ModelSpec, Output, Precision

log = logging.getLogger(__name__)

_MODULE = "worker.engine.runtimes.confined_child"
_LARGEST_BATCH = 256  # the largest default of a runtime
_ANSWER_BYTES = 2**20
"""For each image: logits and features of 262,144 floats together. Memory that nobody writes takes no room."""
_MEMORY, _MEMORY_A_WEIGHT = 4 * 2**30, 8
"""Bytes that a child on a CPU may have, and for each byte of weights: archive, tensors, conversion, compiled model."""
_MAPPED: dict[str, Callable[[str], ImagemillError]] = {
    "ModelError": ModelError,
    "RuntimeUnsuited": RuntimeUnsuited,
    "InvalidSettings": InvalidSettings,
    "DeviceOutOfMemory": DeviceOutOfMemory,
    "MemoryError": lambda said: DeviceOutOfMemory(f"The model has no memory for this batch ({said})."),
}


def memory(weights: int) -> int:
    """Return the bytes that a child on a CPU may have whose model has so many bytes of weights."""
    return _MEMORY + _MEMORY_A_WEIGHT * weights


class ConfinedRuntime:
    """A Runtime in a confined child. Any number of threads may submit; batches travel through shared memory.

    A child that dies or hangs is replaced, and what it had is run again, one batch after the other; a batch that ends
    a second child fails with ModelError, or with DeviceOutOfMemory if the system killed both. So is a child on a GPU
    after an error that nobody foresaw: some errors of CUDA stay with a process, which fails from then on, and the
    tests of this process would not find it.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        device: str,
        runtime: str,
        precision: str,
        threads: int,
        batch_size: int,
        cache_dir: Path,
        seconds: float = 100.0,
    ) -> None:
        # Nobody else reads what a pushed model leaves behind.
        own = cache_dir / "confined" / spec.weights_sha256
        own.mkdir(parents=True, exist_ok=True)
        weights = spec.weights.absolute()
        on_gpu = device != "cpu" and Path("/dev/nvidiactl").exists()
        self._sticks = on_gpu
        size = weights.stat().st_size
        self._limits = Limits(
            memory=0 if on_gpu else memory(size),
            file_bytes=2**28 + 4 * size,
            readable=(str(weights),),
            writable=(str(own.absolute()),),
            devices=on_gpu,
        )
        images = batch_size or _LARGEST_BATCH
        self._greeting: dict[str, Any] = {
            "spec": {**asdict(spec), "weights": str(weights)},
            "options": {
                "device": device,
                "runtime": runtime,
                "precision": precision,
                "threads": threads,
                "batch_size": batch_size,
                "cache_dir": str(own.absolute()),
            },
            "answer_bytes": images * _ANSWER_BYTES,
        }
        self._slot = images * max(3 * spec.size * spec.size, _ANSWER_BYTES)
        self._threads = threads
        self._seconds = seconds
        self._lock = threading.Lock()
        self._repairs = ThreadPoolExecutor(1, "imagemill-repair")
        self._closed = False
        self._child = self._start()
        facts = self._child.facts
        self.name = str(facts["name"])
        self.device = str(facts["device"])
        self.precision = cast("Precision", facts["precision"])
        self.batch_size = int(facts["batch_size"])
        self.lanes = int(facts["lanes"])

    @property
    def enforced(self) -> tuple[str, ...]:
        """The layers that confine the child on this machine."""
        return self._child.enforced

    def submit(self, pixels: NDArray[np.uint8], lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        assert lengths is None, "a runtime of images"
        pixels = np.ascontiguousarray(pixels)
        outer: Future[Output] = Future()
        child = self._child

        def arrived(answer: Future[Answer]) -> None:
            error = answer.exception()
            unforeseen = self._sticks and isinstance(error, ChildError) and error.kind not in _MAPPED
            if isinstance(error, ChildDied) or unforeseen:
                self._repairs.submit(self._again, child, pixels, outer)
            else:
                _settle(outer, answer)

        try:
            self._send(child, pixels).add_done_callback(arrived)
        except ChildDied:
            self._repairs.submit(self._again, child, pixels, outer)
        return outer

    def close(self) -> None:
        self._repairs.shutdown()
        with self._lock:
            self._closed = True
            self._child.close()

    def _send(self, child: Child, pixels: NDArray[np.uint8]) -> Future[Answer]:
        try:
            blob = memoryview(pixels.data).cast("B")
            return child.submit({"shape": pixels.shape}, [blob], seconds=self._seconds)
        except ValueError as error:
            if child.alive:
                raise
            raise ChildDied("it was replaced") from error

    def _again(self, dead: Child, pixels: NDArray[np.uint8], outer: Future[Output]) -> None:
        """Run a batch alone, in a new child if nobody has started one yet."""
        try:
            with self._lock:
                if self._closed:
                    raise ModelError("The model was closed while it ran.")
                if self._child is dead or not self._child.alive:
                    self._child.close()  # also one that lives and failed
                    self._child = self._start()
                child = self._child
            answer = self._send(child, pixels)
            answer.exception()  # wait: one suspect at a time
            _settle(outer, answer)
        except BaseException as error:
            outer.set_exception(error)

    def _start(self) -> Child:
        try:
            return Child(
                _MODULE,
                self._limits,
                greeting=self._greeting,
                slots=2 * max(self._threads, 1) + 1,
                size=self._slot,
                threads=2 * max(self._threads, 1),
            )
        except ChildError as error:
            raise _mapped(error) from error
        except ChildDied as error:
            raise _died(error) from error


def _settle(outer: Future[Output], answer: Future[Answer]) -> None:
    try:
        outer.set_result(_output(*answer.result()))
    except ChildError as error:
        outer.set_exception(_mapped(error))
    except ChildDied as error:
        outer.set_exception(_died(error))
    except (LookupError, TypeError, ValueError) as error:
        outer.set_exception(ModelError(f"It answered what is no output ({error})."))


def _output(header: dict[str, Any], blobs: list[bytes]) -> Output:
    parts = []
    for shape, blob in zip(header["shapes"], blobs, strict=True):
        if len(shape) != 2 or 4 * math.prod(shape) != len(blob):
            raise ValueError(f"{len(blob)} bytes for {shape}")
        parts.append(np.frombuffer(blob, np.float32).reshape(shape))
    logits, features = parts
    return Output(logits, features)


def _mapped(error: ChildError) -> Exception:
    make = _MAPPED.get(error.kind)
    # What nobody foresaw may be a fault of this machine: a RuntimeError is tried elsewhere too.
    return make(str(error)) if make else RuntimeError(f"The pushed model failed ({error.kind}: {error}).")


def _died(error: ChildDied) -> Exception:
    if error.killed:
        return DeviceOutOfMemory(
            "The system killed the process of the model twice; give the machine more memory, or take a smaller model."
        )
    return ModelError(f"The model ended its process, or did not answer ({error}); push one that does not.")
