"""What the device is, and its ceilings: what a copy and a product of matrices reach."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import PIL
import torch

from tests.gpu.acceptance.report import Report
from worker.engine.precision import native_bf16

_STAGE = "ceilings"


def describe(report: Report, device: torch.device) -> None:
    """Note versions, and measure memory and arithmetic."""
    report.about |= {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "numpy": np.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "bf16": native_bf16(device),
    }
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        report.about |= {
            "device": facts.name,
            "memory": f"{facts.total_memory / 2**30:.0f} GiB",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    cuda = device.type == "cuda"
    side, megabytes = (8192, 1024) if cuda else (256, 8)
    data = torch.empty(megabytes * 2**20, dtype=torch.uint8, device=device)
    seconds = timed(lambda: data.clone(), device)
    report.figure(_STAGE, "copy on the device, GB/s read and written", 2 * megabytes / 1024 / seconds)
    host = torch.empty(64 * 2**20, dtype=torch.uint8, pin_memory=cuda)
    seconds = timed(lambda: host.to(device, non_blocking=True), device)
    report.figure(_STAGE, "copy to the device, GB/s", 64 / 1024 / seconds)
    for dtype in (torch.bfloat16, torch.float32):
        a = torch.randn(side, side, device=device).to(dtype)
        seconds = timed(lambda a=a: a @ a, device)
        report.figure(_STAGE, f"matrix product {dtype}, TFLOP/s", 2 * side**3 / seconds / 1e12)
    a = torch.randn(512, 512, device=device)
    wanted = a.cpu().double() @ a.cpu().double()
    apart = float((a @ a - wanted.to(device)).abs().max())
    report.check("a product in fp32 is exact to its last bits", apart < 1e-2, f"largest difference {apart:.2g}")


def timed(work: object, device: torch.device, repeat: int = 5) -> float:
    """Return the median seconds of a call, the device waited for; one call before is not counted."""
    assert callable(work)
    seconds = []
    for _ in range(repeat + 1):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[1:]))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Busy:
    """NVML's utilization of the device, 0 to 1, sampled four times a second."""

    samples: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        return float(np.mean(self.samples[1:])) if len(self.samples) > 1 else float("nan")


@contextmanager
def watched() -> Iterator[Busy]:
    """Sample the device while the block runs; no samples without NVML."""
    busy, stop = Busy(), threading.Event()

    def sample() -> None:
        with suppress(Exception):
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            while not stop.wait(0.25):
                busy.samples.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield busy
    finally:
        stop.set()
        thread.join()
