"""Runs models with OpenVINO on the CPU, on the caller's thread; the converted model is cached on disk as IR.

It knows no files of images and no lanes. Only the conversion imports torch: later starts read the IR, and a worker is
ready in about a second.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from itertools import accumulate
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from contract.errors import DeviceOutOfMemory, InvalidSettings, ModelError
from worker.engine.bf16 import resolve_precision, told_bf16
from worker.engine.runtimes.batcher import SMALL, buckets, joined
from worker.engine.types import ModelSpec, Output, Precision

_FORMAT = 1  # of the IR on disk; increase it when the output of `_convert` changes


def native_bf16(core: ov.Core | None = None) -> bool:
    """Return whether this CPU has bf16 in hardware, as OpenVINO sees it."""
    if (told := told_bf16()) is not None:
        return told
    return "BF16" in (core or ov.Core()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINORuntime:
    """A Runtime whose `submit` computes before it returns.

    There is one stream with one thread per core: each lane decodes and infers on its own core, which is faster than
    separate threads for decoding and inference (257 images/s on two cores, 220).
    """

    BATCH_SIZE = 8  # 399 images/s on two cores; 32 and 64 are as fast, and delay a cancel

    name = "openvino"
    device = "cpu"

    def __init__(self, spec: ModelSpec, *, precision: str, threads: int, batch_size: int, cache_dir: Path) -> None:
        core = ov.Core()
        self.precision: Precision = resolve_precision(precision, native_bf16=native_bf16(core), device="This CPU")
        self.batch_size = batch_size
        self.lanes = threads
        self._size = spec.size
        self._options = {
            # By default the plugin uses bf16 if the CPU has it.
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[self.precision],
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            # With pinning, two processes share the first core and reach only 184 images/s together.
            "ENABLE_CPU_PINNING": False,
        }
        self._core, self._spec, self._cache_dir = core, spec, cache_dir
        self._compiled = {batch_size: self._compile(_read(core, spec, batch_size, cache_dir))}
        self._local = threading.local()
        self.submit(np.zeros((1, spec.size, spec.size, 3), np.uint8)).result()

    def submit(self, pixels: NDArray[np.uint8], lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        assert lengths is None, "a runtime of images"
        return self._run(pixels, [self.batch_size])

    def prepare(self) -> None:
        """Compile batches of 1, 2 and 4 too: one image in a batch of 8 takes 42 ms, alone 5."""
        sizes = [size for size in buckets(self.batch_size) if size <= SMALL and size not in self._compiled]
        self._compiled |= {size: self._compile(self._reshaped(size)) for size in sizes}
        for size in sizes:
            self._run(np.zeros((size, self._size, self._size, 3), np.uint8), [size]).result()

    def submit_first(self, pixels: NDArray[np.uint8], lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        """Run images at once, as `submit` does, in compiled batches with few empty places."""
        assert lengths is None, "a runtime of images"
        return self._run(pixels, pieces(len(pixels), self._compiled))

    def _reshaped(self, size: int) -> ov.Model:
        """Return the model for another batch; it is converted anew if its graph holds the size of the one on disk."""
        model = _read(self._core, self._spec, self.batch_size, self._cache_dir)
        try:
            model.reshape([size, self._size, self._size, 3])
            if all(output.shape[0] == size for output in model.outputs):
                return model
        except RuntimeError:
            pass
        return _read(self._core, self._spec, size, self._cache_dir)

    def _compile(self, model: ov.Model) -> ov.CompiledModel:
        return self._core.compile_model(model, "CPU", self._options)

    def _run(self, pixels: NDArray[np.uint8], sizes: Sequence[int]) -> Future[Output]:
        """Run images in consecutive batches of these sizes, the last of which may have empty places."""
        future: Future[Output] = Future()
        try:
            starts = accumulate(sizes[:-1], initial=0)
            future.set_result(
                joined([self._infer(pixels[at : at + size], size) for at, size in zip(starts, sizes, strict=True)])
            )
        except Exception as error:
            if isinstance(error, MemoryError) or "bad_alloc" in str(error):
                error = DeviceOutOfMemory("The host has no memory for this batch; lower IMAGEMILL_BATCH_SIZE.")
            future.set_exception(error)
        return future

    def close(self) -> None:
        self._local = threading.local()

    def _infer(self, pixels: NDArray[np.uint8], size: int) -> Output:
        n = len(pixels)
        request = self._request(size)
        # The batch is static, so that nothing recompiles; rows after n hold an older batch and are not read.
        request.get_input_tensor().data[:n] = pixels
        request.infer()
        return Output(
            logits=request.get_output_tensor(0).data[:n].copy(),
            features=request.get_output_tensor(1).data[:n].copy(),
        )

    def _request(self, size: int) -> ov.InferRequest:
        requests: dict[int, ov.InferRequest] = self._local.__dict__.setdefault("requests", {})
        if size not in requests:
            requests[size] = self._compiled[size].create_infer_request()
        return requests[size]


def pieces(count: int, sizes: Collection[int]) -> list[int]:
    """Return the batches, of `sizes`, in which `count` images take the least time, the largest first.

    An empty place takes as long as an image, so only an eighth of a batch may be empty: 5 images take 26 ms of CPU in
    a batch of 8, and 18 in one of 4 and one of 1. The largest size is at least `count`.
    """
    found = []
    while count > 0:
        holds = min(size for size in sizes if size >= count)
        fits = max((size for size in sizes if size < count), default=holds)
        found.append(holds if 8 * (holds - count) <= holds else fits)
        count -= found[-1]
    return found


def _read(core: ov.Core, spec: ModelSpec, batch_size: int, cache_dir: Path) -> ov.Model:
    """Read the model's IR from `cache_dir`; convert the model first if the IR is missing or broken."""
    folder = cache_dir / "openvino" / _key(spec, batch_size)
    try:
        if (folder / "model.xml").is_file():
            try:
                return core.read_model(folder / "model.xml")
            except RuntimeError:  # a full disk or a truncated file
                shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as scratch:
            ov.save_model(_convert(spec, batch_size), Path(scratch, "ir", "model.xml"), compress_to_fp16=False)
            try:
                Path(scratch, "ir").rename(folder)
            except OSError:
                if not (folder / "model.xml").is_file():  # otherwise another worker was first
                    raise
        return core.read_model(folder / "model.xml")
    except OSError as error:
        raise InvalidSettings(
            f"The compiled model cannot be kept in {cache_dir} ({error}); set IMAGEMILL_CACHE_DIR to a writable folder."
        ) from error


def _key(spec: ModelSpec, batch_size: int) -> str:
    """Return a folder name with a digest of everything that the IR depends on, so that a stale one is never read."""
    config = json.dumps(dict(spec.config), sort_keys=True)
    facts = (spec.weights_sha256, spec.family, config, spec.size, spec.channels, spec.mean, spec.std, batch_size)
    digest = hashlib.sha256(repr((*facts, ov.__version__, _FORMAT)).encode()).hexdigest()
    return f"{spec.family}-{digest[:24]}"


def _convert(spec: ModelSpec, batch_size: int) -> ov.Model:
    """Convert the torch module of `spec` to an OpenVINO model with a static batch; takes 4 s, importing torch included.

    It calls the front end directly: `openvino.convert_model` does the same but reports each use to Google Analytics,
    which only a file in the user's home can turn off. Raises ModelError if OpenVINO cannot convert it.
    """
    import torch
    from openvino.frontend import (
        FrontEndManager,
        GeneralFailure,
        NotImplementedFailure,
        OpConversionFailure,
        OpValidationFailure,
    )
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    from worker.engine.programs.graph import build

    shape = (batch_size, spec.size, spec.size, 3)
    with warnings.catch_warnings(), torch.inference_mode():
        # torch.jit.trace is deprecated in favour of torch.export, which OpenVINO 2026.4 reads with warnings.
        warnings.simplefilter("ignore")
        graph = build(spec)
        try:
            decoder = TorchScriptPythonDecoder(graph, example_input=(torch.zeros(shape, dtype=torch.uint8),))
            frontend = FrontEndManager().load_by_framework("pytorch")
            model = frontend.convert(frontend.load(decoder))
            model.reshape(list(shape))
        except (RuntimeError, GeneralFailure, NotImplementedFailure, OpConversionFailure, OpValidationFailure) as error:
            said = " ".join(str(error).split()).rpartition("Summary: -- ")[2][:200]
            raise ModelError(
                f"OpenVINO cannot convert the family {spec.family} ({said}); set IMAGEMILL_RUNTIME=torch."
            ) from error
    return model
