"""The runtimes on a CPU agree with plain torch, and are chosen by what the machine has."""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from contract.errors import DeviceOutOfMemory, InvalidSettings, ModelError, RuntimeUnsuited
from contract.models.registry import Preprocess
from worker.bench.labelling import decode_only, forward_only, ideal_loop
from worker.engine import select as runtimes
from worker.engine.budget import memory_limit
from worker.engine.images.decode import decode
from worker.engine.programs.graph import build
from worker.engine.runtimes import confined
from worker.engine.runtimes.torch_runtime import CpuLaunch
from worker.engine.select import capabilities, choose
from worker.engine.types import ModelSpec, Runtime

Load = Callable[[str, str], Runtime]
OPENVINO_HAS_BF16 = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
"""Asked of the hardware itself, whatever IMAGEMILL_NATIVE_BF16 says: torch emulates bf16, OpenVINO does not."""


@pytest.fixture(scope="module")
def pixels(photos: dict[str, Path], preprocess: Preprocess) -> NDArray[np.uint8]:
    """The sample photos, uint8 [n, 224, 224, 3]."""
    how = preprocess
    return np.stack(
        [
            decode(path.read_bytes(), how.size, crop=how.crop, interpolation=how.interpolation, max_pixels=10**8).pixels
            for path in photos.values()
        ]
    )


@pytest.fixture(scope="module")
def expected(spec: ModelSpec, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and features of plain float32 torch, in the way a textbook would compute them."""
    graph = build(spec)
    with torch.inference_mode():
        parts = [graph(torch.from_numpy(pixels[i : i + 8])) for i in range(0, len(pixels), 8)]
    logits, features = (torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True))
    return logits, features


def run(runtime: Runtime, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    size = runtime.batch_size
    futures = [runtime.submit(pixels[i : i + size]) for i in range(0, len(pixels), size)]
    return np.concatenate([future.result(60).logits for future in futures])


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_fp32_agrees_with_plain_torch_on_every_photo(
    name: str, loaded: Load, pixels: NDArray[np.uint8], expected: tuple[NDArray[np.float32], ...]
) -> None:
    runtime = loaded(name, "fp32")
    assert (runtime.name, runtime.precision, runtime.device) == (name, "fp32", "cpu")
    logits = run(runtime, pixels)
    assert logits.argmax(1).tolist() == expected[0].argmax(1).tolist()
    np.testing.assert_allclose(logits, expected[0], atol=1e-3)
    features = runtime.submit(pixels[:3]).result(60).features
    assert features.shape == (3, 1280)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected[1][:3], atol=1e-3)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("openvino", marks=pytest.mark.skipif(not OPENVINO_HAS_BF16, reason="this CPU has no bf16")),
        "torch",
    ],
)
def test_bf16_agrees_where_fp32_is_sure(
    name: str,
    loaded: Load,
    pixels: NDArray[np.uint8],
    expected: tuple[NDArray[np.float32], ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMAGEMILL_NATIVE_BF16", "on")
    runtime = loaded(name, "bf16")
    assert runtime.precision == "bf16"
    exact = expected[0][::2]  # half of the photos: a CPU that emulates bf16 takes half a second for each
    logits = run(runtime, pixels[::2])
    assert np.abs(logits - exact).max() > 1e-3, "this is not bf16"
    sure = torch.from_numpy(exact).softmax(1).amax(1).numpy() > 0.5
    assert sure.sum() >= 10
    assert logits.argmax(1)[sure].tolist() == exact.argmax(1)[sure].tolist()


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_an_image_does_not_know_its_neighbours(name: str, loaded: Load, pixels: NDArray[np.uint8]) -> None:
    runtime = loaded(name, "fp32")
    together = runtime.submit(pixels[:8]).result(60).logits
    for n in (0, 5):
        alone = runtime.submit(pixels[n : n + 1]).result(60).logits
        np.testing.assert_allclose(alone[0], together[n], atol=1e-4)


def test_a_second_start_reads_the_compiled_model_without_torch(spec: ModelSpec, cache: Path, loaded: Load) -> None:
    # Given a machine that has run the model before,
    loaded("openvino", "fp32")
    # if another process loads it,
    code = f"""
import sys
from pathlib import Path
from worker.engine.select import load
from worker.engine.types import ModelSpec
spec = ModelSpec(family={spec.family!r}, weights=Path({str(spec.weights)!r}), size=224, mean=127.0, std=128.0,
                 weights_sha256={spec.weights_sha256!r}, classes=1000)
load(spec, device="cpu", runtime="openvino", threads=1, cache_dir=Path({str(cache)!r})).close()
sys.exit("torch" in sys.modules)
"""
    # I expect it to do without torch, and without a call home.
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_broken_compiled_model_is_made_again(spec: ModelSpec, cache: Path, loaded: Load, tmp_path: Path) -> None:
    # Given a compiled model that was cut short,
    loaded("openvino", "fp32")
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    (compiled,) = tmp_path.glob("openvino/*/model.xml")
    compiled.write_text("<net")
    # if a worker starts, I expect it to work, and to leave the next one a whole model.
    runtimes.load(spec, device="cpu", runtime="openvino", threads=1, cache_dir=tmp_path).close()
    assert compiled.stat().st_size > 1000
    assert len(list((tmp_path / "openvino").iterdir())) == 1, "no scratch folder is left"


def test_other_weights_than_the_record_names_are_refused(spec: ModelSpec, tmp_path: Path) -> None:
    other = dataclasses.replace(spec, weights_sha256="0" * 64)
    with pytest.raises(ModelError, match="delete the file"):
        runtimes.load(other, device="cpu", cache_dir=tmp_path)
    missing = dataclasses.replace(spec, weights=tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="cannot be read"):
        runtimes.load(missing, device="cpu", cache_dir=tmp_path)


def test_weights_and_labels_must_fit_the_family(spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="names 999 labels"):
        build(dataclasses.replace(spec, classes=999))
    with pytest.raises(ModelError, match="do not fit"):
        build(dataclasses.replace(spec, config={"classes": 10}))
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="do not fit"):
        build(dataclasses.replace(spec, weights=tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    ("device", "runtime", "has_cuda", "has_openvino", "expected"),
    [
        ("auto", "auto", True, True, "cuda"),
        ("auto", "auto", False, True, "openvino"),
        ("auto", "auto", False, False, "cpu"),
        ("auto", "torch", True, True, "cuda"),
        ("auto", "torch", False, True, "cpu"),
        ("auto", "openvino", True, True, "openvino"),
        ("cpu", "auto", True, True, "openvino"),
        ("cuda:1", "auto", True, True, "cuda:1"),
    ],
)
def test_the_fastest_runtime_present_is_taken(
    device: str, runtime: str, has_cuda: bool, has_openvino: bool, expected: str
) -> None:
    assert choose(device, runtime, cuda_devices=2 * has_cuda, has_openvino=has_openvino) == expected


@pytest.mark.parametrize(
    ("device", "runtime", "says"),
    [
        ("cuda", "auto", "install a CUDA build"),
        ("cuda", "openvino", "does not run on cuda"),
        ("cpu", "openvino", "not installed"),
        ("tpu", "auto", "no device 'tpu'"),
        ("cuda:x", "auto", "no device 'cuda:x'"),
        ("1", "auto", "no device '1'"),
        ("cpu", "onnx", "no runtime 'onnx'"),
    ],
)
def test_what_is_not_here_is_refused(device: str, runtime: str, says: str) -> None:
    with pytest.raises(InvalidSettings, match=says):
        choose(device, runtime, cuda_devices=0, has_openvino=False)


def test_a_device_that_torch_does_not_count_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="cuda:0 to cuda:1"):
        choose("cuda:9", "auto", cuda_devices=2, has_openvino=True)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
@pytest.mark.parametrize(("told", "expected"), [("on", ("fp32", "bf16")), ("off", ("fp32",))])
def test_a_worker_can_be_told_what_its_hardware_has(
    runtime: str, told: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEMILL_NATIVE_BF16", told)
    assert capabilities("cpu", runtime) == ("cpu", expected)


def test_batches_on_a_cpu_are_padded_to_few_sizes() -> None:
    seen: list[int] = []

    def model(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(pixels))
        means = pixels.float().mean(dim=(1, 2))
        return means, means

    launch = CpuLaunch(model, 8)
    for n in range(1, 9):
        parts = [np.full((1, 4, 4, 3), i, np.uint8) for i in range(n)]
        assert launch(parts)().logits[:, 0].tolist() == list(range(n))
    assert sorted(set(seen)) == [1, 2, 4, 8]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("DefaultCPUAllocator: not enough memory: …"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported …"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=lambda error: str(error)[:24],
)
def test_torch_out_of_memory_is_one_error(error: Exception) -> None:
    def model(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise error

    with pytest.raises(DeviceOutOfMemory):
        CpuLaunch(model, 1)([np.zeros((1, 4, 4, 3), np.uint8)])


@pytest.mark.parametrize(
    "said", ["CUDA error: an illegal memory access was encountered", "CUDA error: misaligned address"]
)
def test_an_error_of_the_device_is_not_taken_for_full_memory(said: str) -> None:
    def model(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise RuntimeError(said)

    with pytest.raises(RuntimeError, match=said):
        CpuLaunch(model, 1)([np.zeros((1, 4, 4, 3), np.uint8)])


def test_devices_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose device broke down must fail there, and not load its next model on the CPU."""
    counts = [1]
    monkeypatch.setattr(ctypes, "CDLL", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(counts))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: counts.pop())
    runtimes._cuda_devices.cache_clear()
    try:
        assert runtimes.torch_device("auto") == "cuda"
        assert not torch.cuda.is_available()
        assert runtimes.torch_device("auto") == "cuda"
    finally:
        runtimes._cuda_devices.cache_clear()


@pytest.mark.parametrize(("devices", "told"), [(1, "cuda"), (0, "cpu")])
def test_a_child_is_told_which_device_and_does_not_choose(
    devices: int, told: str, spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(runtimes, "_cuda_devices", lambda: devices)
    monkeypatch.setattr(confined, "ConfinedRuntime", lambda _, *, device, **more: seen.append(device))
    runtimes.load(spec, device="auto", cache_dir=tmp_path, confined_seconds=1)
    assert seen == [told]


def test_the_parts_can_be_measured(loaded: Load, photos: dict[str, Path], preprocess: Preprocess) -> None:
    runtime = loaded("openvino", "fp32")
    paths = list(photos.values())[:10]
    assert decode_only(paths, preprocess, 2) > 1
    assert forward_only(runtime, 16, 224) > 1
    assert ideal_loop(paths, runtime, preprocess) > 1


def test_what_openvino_cannot_run_says_that_another_worker_may(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a model that OpenVINO cannot convert, if nothing else is allowed, I expect an error that names the setting.
    def refuse(*_: object, **__: object) -> None:
        raise ModelError("OpenVINO cannot convert it.")

    monkeypatch.setattr("worker.engine.runtimes.openvino_runtime.OpenVINORuntime.__init__", refuse)
    with pytest.raises(RuntimeUnsuited, match=r"cannot convert it\. IMAGEMILL_RUNTIME=openvino"):
        runtimes.load(spec, device="cpu", runtime="openvino", cache_dir=tmp_path)


def test_a_worker_knows_the_memory_of_its_device_and_what_may_run_there() -> None:
    assert runtimes.device_memory("cpu") == memory_limit()
    assert runtimes.runtimes("cpu", "torch") == ("torch",)
    assert runtimes.runtimes("cpu", "openvino") == ("openvino",)
    assert runtimes.runtimes("cpu", "auto") == ("openvino", "torch")
