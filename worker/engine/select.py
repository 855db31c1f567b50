"""Chooses and loads the fastest runtime that this machine has for a model.

It knows neither images nor jobs, and imports torch or OpenVINO only when one of them is chosen.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from contract.errors import InvalidSettings, ModelError, RuntimeUnsuited
from worker.engine.budget import memory_limit
from worker.engine.cores import cores
from worker.engine.memory import calm_openmp, tune_allocator
from worker.engine.types import ModelSpec, Precision, Runtime

log = logging.getLogger(__name__)


def load(
    spec: ModelSpec,
    *,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    batch_size: int = 0,
    resize: str = "cpu",
    cache_dir: Path,
    confined_seconds: float = 0.0,
) -> Runtime:
    """Load a model on the fastest runtime that this machine has, and warm it up.

    `threads` 0 means all cores that the process may use; `batch_size` 0, the runtime's default. `resize` says where
    images are resized, as `worker.engine.runtimes.resize.resize_for` takes it; torch alone does so on a device. With
    `confined_seconds` the model runs in a confined child, and a batch may take that long. Raises ModelError if the
    weights do not match the record, and InvalidSettings if the device, runtime or precision is unavailable.
    """
    verify(spec)
    threads = threads or cores()
    if confined_seconds:
        from worker.engine.runtimes.confined import ConfinedRuntime

        kind = _chosen(device, runtime)
        return ConfinedRuntime(
            spec,
            # Decided here: a child that `auto` let choose would take the CPU where it cannot reach the GPU.
            device=kind if kind.startswith("cuda") else "cpu",
            runtime=runtime,
            precision=precision,
            threads=threads,
            batch_size=batch_size,
            cache_dir=cache_dir.expanduser(),
            seconds=confined_seconds,
        )
    if spec.sequences:
        from worker.engine.runtimes.sequence_runtime import SequenceRuntime

        place = torch_device(device)
        return SequenceRuntime(spec, device=place, precision=precision, threads=threads, batch_size=batch_size)
    kind = _chosen(device, runtime)
    if kind == "openvino":
        from worker.engine.runtimes.openvino_runtime import OpenVINORuntime

        try:
            return OpenVINORuntime(
                spec,
                precision=precision,
                threads=threads,
                batch_size=batch_size or OpenVINORuntime.BATCH_SIZE,
                cache_dir=cache_dir.expanduser(),
            )
        except ModelError as error:
            if runtime == "openvino":
                raise RuntimeUnsuited(f"{error} IMAGEMILL_RUNTIME=openvino leaves no other; use auto.") from error
            log.warning("Falling back from OpenVINO to torch: %s", error)
            kind = "cpu"
    if kind == "cpu":
        tune_allocator()
        calm_openmp()
    from worker.engine.runtimes.torch_runtime import TorchRuntime

    return TorchRuntime(spec, device=kind, precision=precision, threads=threads, batch_size=batch_size, resize=resize)


def choose(device: str, runtime: str, *, cuda_devices: int, has_openvino: bool) -> str:
    """Return the runtime to use: "openvino", or the name of the device that torch runs on.

    CUDA comes first, then OpenVINO (EfficientNet-Lite0 in bf16 on two cores: 368 images/s, torch 198), then torch.
    Raises InvalidSettings for an unknown name, and if what was asked for is unavailable.
    """
    index = device.removeprefix("cuda:")
    if device not in ("auto", "cpu", "cuda") and (index == device or not index.isdecimal()):
        raise InvalidSettings(f"There is no device {device!r}; use auto, cpu, cuda or cuda:N.")
    if runtime not in ("auto", "openvino", "torch"):
        raise InvalidSettings(f"There is no runtime {runtime!r}; use auto, openvino or torch.")
    if device.startswith("cuda"):
        if runtime == "openvino":
            raise InvalidSettings(f"OpenVINO does not run on {device}; use the runtime auto or torch.")
        if not cuda_devices:
            raise InvalidSettings(
                f"The device {device} is unavailable: torch finds no CUDA device; install a CUDA build of torch "
                "and the driver, or use the device cpu."
            )
        if index.isdecimal() and int(index) >= cuda_devices:
            raise InvalidSettings(
                f"The device {device} is unavailable: torch finds cuda:0 to cuda:{cuda_devices - 1}; use one of them, "
                "or let CUDA_VISIBLE_DEVICES show more."
            )
        return device
    if device == "auto" and cuda_devices and runtime != "openvino":
        return "cuda"
    if runtime == "openvino" and not has_openvino:
        raise InvalidSettings("OpenVINO is not installed; `pip install openvino`, or use the runtime torch.")
    return "openvino" if has_openvino and runtime != "torch" else "cpu"


def _chosen(device: str, runtime: str) -> str:
    """Return what `choose` says of this machine."""
    cuda_devices = 0 if device == "cpu" or runtime == "openvino" else _cuda_devices()
    return choose(device, runtime, cuda_devices=cuda_devices, has_openvino=find_spec("openvino") is not None)


def torch_device(device: str) -> str:
    """Return the device that torch runs on, CUDA before the CPU; raise InvalidSettings if it is unavailable."""
    return choose(device, "torch", cuda_devices=0 if device == "cpu" else _cuda_devices(), has_openvino=False)


def capabilities(device: str = "auto", runtime: str = "auto") -> tuple[str, tuple[Precision, ...]]:
    """Return the kind of device that models run on here, `cpu` or `cuda`, and the precisions its hardware has.

    Raises InvalidSettings if the device is unavailable. Imports torch only if OpenVINO is not what runs classifiers.
    """
    kind = _chosen(device, runtime)
    if kind == "openvino":
        from worker.engine.runtimes.openvino_runtime import native_bf16 as on_openvino

        bf16 = on_openvino()
    else:
        import torch

        from worker.engine.precision import native_bf16 as on_torch

        bf16 = on_torch(torch.device(kind))
    return "cuda" if kind.startswith("cuda") else "cpu", ("fp32", "bf16") if bf16 else ("fp32",)


def device_memory(device: str = "auto", runtime: str = "auto") -> int:
    """Return the bytes of the device that models run on: those of the GPU, or what this process may use of the host."""
    kind, _ = capabilities(device, runtime)
    if kind == "cpu":
        return memory_limit()
    import torch

    place = torch.device(torch_device(device))
    return int(torch.cuda.get_device_properties(place).total_memory)


def runtimes(device: str = "auto", runtime: str = "auto") -> tuple[str, ...]:
    """Return the runtimes that may run a classifier here, the fastest first."""
    kind, _ = capabilities(device, runtime)
    if kind == "cuda" or runtime == "torch":
        return ("torch",)
    if runtime == "openvino":
        return ("openvino",)
    return ("openvino", "torch") if find_spec("openvino") is not None else ("torch",)


def give_back() -> None:
    """Give the memory that torch holds and does not use back to the device, for another process such as a child."""
    if "torch" in sys.modules:
        from worker.engine.runtimes.out_of_memory import free

        free()


@lru_cache(maxsize=1)
def _cuda_devices() -> int:
    """Return how many CUDA devices there are, the same as long as this process lives.

    After some errors torch finds none any more, and models would be loaded on the CPU without a word.
    """
    try:
        ctypes.CDLL("libcuda.so.1")  # importing torch takes 1 s, which a machine without a driver need not pay
    except OSError:
        return 0
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    if torch.version.cuda is not None:
        log.warning("There is a driver of CUDA, and torch finds no device; `nvidia-smi` may say why.")
    return 0


def verify(spec: ModelSpec) -> None:
    """Raise ModelError if the SHA-256 of the weights file is not the one in the record."""
    try:
        with spec.weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"The weights {spec.weights} cannot be read ({error}); fetch them again.") from error
    if found != spec.weights_sha256:
        raise ModelError(
            f"The weights {spec.weights} have the SHA-256 {found[:12]}…, but their record says "
            f"{spec.weights_sha256[:12]}…; delete the file and fetch it again."
        )
