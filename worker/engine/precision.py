"""Decides which precision torch computes in on a device. It knows no models. Imports torch."""

from __future__ import annotations

import torch

from worker.engine.bf16 import resolve_precision, told_bf16
from worker.engine.types import Precision

_AMPERE = (8, 0)
"""The first compute capability whose tensor cores have bf16 (CUDA C++ Programming Guide, "Compute Capabilities")."""


def native_bf16(device: torch.device) -> bool:
    """Return whether the device has bf16 in hardware; otherwise torch emulates it, slower than fp32."""
    if (told := told_bf16()) is not None:
        return told
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def precision_on(device: torch.device, asked: str) -> Precision:
    """Resolve `asked` (auto, fp32 or bf16) on a device; raise InvalidSettings if the device lacks it."""
    return resolve_precision(asked, native_bf16=native_bf16(device), device=f"The device {device}")


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context in which bf16 means mixed precision (matrix products, convolutions); fp32 changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
