"""Which precision torch computes in on a device. It knows no models. Imports torch."""

from __future__ import annotations

import torch

from worker.engine.bf16 import resolve_precision, told_bf16
from worker.engine.types import Precision


def native_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 in hardware; elsewhere torch emulates it, slower than fp32."""
    if (told := told_bf16()) is not None:
        return told
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def precision_on(device: torch.device, asked: str) -> Precision:
    """What `asked` (auto, fp32 or bf16) means on the device; raises InvalidSettings where it cannot be had."""
    return resolve_precision(asked, native_bf16=native_bf16(device), device=f"The device {device}")


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """A context of mixed precision: in bf16 matrix products and convolutions; nothing changes in fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
