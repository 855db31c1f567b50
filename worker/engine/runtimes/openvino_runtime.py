"""OpenVINO on the CPU: the model is converted once, kept as IR on disk, and run on the caller's thread.

It knows nothing of images or lanes. Only a conversion imports torch: later starts read the IR, and a
worker is ready in about a second.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
import warnings
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from contract.errors import DeviceOutOfMemory, InvalidSettings, ModelError
from worker.engine.bf16 import resolve_precision, told_bf16
from worker.engine.types import ModelSpec, Output, Precision

_FORMAT = 1  # of the IR on disk: raise it when what `_convert` makes changes


def native_bf16(core: ov.Core | None = None) -> bool:
    """Return whether this CPU has bf16 in hardware, as OpenVINO sees it."""
    if (told := told_bf16()) is not None:
        return told
    return "BF16" in (core or ov.Core()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINORuntime:
    """A Runtime whose `submit` computes before it returns.

    One stream of one thread a core: each lane decodes and infers on its own core, which beats a
    hand-over between a decoding and an inferring thread (257 against 220 images/s on two cores).
    """

    BATCH_SIZE = 8  # 399 images/s on two cores; 32 and 64 give the same and keep cancel waiting longer

    name = "openvino"
    device = "cpu"

    def __init__(self, spec: ModelSpec, *, precision: str, threads: int, batch_size: int, cache_dir: Path) -> None:
        core = ov.Core()
        self.precision: Precision = resolve_precision(precision, native_bf16=native_bf16(core), device="This CPU")
        self.batch_size = batch_size
        self.lanes = threads
        self._size = spec.size
        self._compiled = core.compile_model(
            _read(core, spec, batch_size, cache_dir),
            "CPU",
            {
                # Unless told, the plugin takes bf16 wherever the CPU has it.
                "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[self.precision],
                "NUM_STREAMS": threads,
                "INFERENCE_NUM_THREADS": threads,
                # Pinned, two processes share the first core and do 184 images/s together.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._local = threading.local()
        self.submit(np.zeros((1, spec.size, spec.size, 3), np.uint8)).result()

    def submit(self, pixels: NDArray[np.uint8], lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        assert lengths is None, "a runtime of images"
        future: Future[Output] = Future()
        try:
            future.set_result(self._infer(pixels))
        except Exception as error:
            if isinstance(error, MemoryError) or "bad_alloc" in str(error):
                error = DeviceOutOfMemory("The host has no memory for this batch; lower IMAGEMILL_BATCH_SIZE.")
            future.set_exception(error)
        return future

    def close(self) -> None:
        self._local = threading.local()

    def _infer(self, pixels: NDArray[np.uint8]) -> Output:
        n = len(pixels)
        request = self._request()
        # The batch is static, so that nothing recompiles; rows from n on hold an older batch, unread.
        request.get_input_tensor().data[:n] = pixels
        request.infer()
        return Output(
            logits=request.get_output_tensor(0).data[:n].copy(),
            features=request.get_output_tensor(1).data[:n].copy(),
        )

    def _request(self) -> ov.InferRequest:
        request: ov.InferRequest | None = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        return request


def _read(core: ov.Core, spec: ModelSpec, batch_size: int, cache_dir: Path) -> ov.Model:
    """The model as IR from `cache_dir`, converted into it first where it is not there or broken."""
    folder = cache_dir / "openvino" / _key(spec, batch_size)
    try:
        if (folder / "model.xml").is_file():
            try:
                return core.read_model(folder / "model.xml")
            except RuntimeError:  # a disk that was full, a file that was cut
                shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as scratch:
            ov.save_model(_convert(spec, batch_size), Path(scratch, "ir", "model.xml"), compress_to_fp16=False)
            try:
                Path(scratch, "ir").rename(folder)
            except OSError:
                if not (folder / "model.xml").is_file():  # else another worker was first
                    raise
        return core.read_model(folder / "model.xml")
    except OSError as error:
        raise InvalidSettings(
            f"The compiled model cannot be kept in {cache_dir} ({error}); "
            "set IMAGEMILL_CACHE_DIR to a folder that can be written."
        ) from error


def _key(spec: ModelSpec, batch_size: int) -> str:
    """Names all that the IR depends on, so that a stale one is never read."""
    config = json.dumps(dict(spec.config), sort_keys=True)
    facts = (spec.weights_sha256, spec.family, config, spec.size, spec.channels, spec.mean, spec.std, batch_size)
    digest = hashlib.sha256(repr((*facts, ov.__version__, _FORMAT)).encode()).hexdigest()
    return f"{spec.family}-{digest[:24]}"


def _convert(spec: ModelSpec, batch_size: int) -> ov.Model:
    """The torch module of `spec` as an OpenVINO model of a static batch; takes 4 s, torch included.

    By the front end itself: `openvino.convert_model` does the same and reports each use to Google
    Analytics, with no switch but a file in the user's home.
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
        # torch.jit.trace is deprecated for torch.export, which OpenVINO 2026.4 reads with complaints.
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
