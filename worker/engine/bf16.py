"""Which precision to compute in: what was asked for, what the settings say, what the hardware has.

It knows no runtime and imports neither torch nor OpenVINO: each runtime asks its own library about the hardware.
"""

from __future__ import annotations

from contract import settings
from contract.errors import InvalidSettings
from worker.engine.types import Precision


def told_bf16() -> bool | None:
    """Return whether to behave as if the hardware had bf16 (`IMAGEMILL_NATIVE_BF16`), or None to ask the hardware."""
    told = settings.load().native_bf16
    return None if told == "auto" else told == "on"


def resolve_precision(asked: str, *, native_bf16: bool, device: str) -> Precision:
    """Return the precision to compute in; `auto` is bf16 if `device` has it in hardware.

    `device` begins the sentence of the error. Raises InvalidSettings if `asked` is bf16 and the device lacks it, or
    is no precision.
    """
    if asked == "auto":
        return "bf16" if native_bf16 else "fp32"
    if asked == "bf16" and not native_bf16:
        raise InvalidSettings(f"{device} does not compute in bf16; use the precision auto or fp32.")
    if asked not in ("fp32", "bf16"):
        raise InvalidSettings(f"There is no precision {asked!r}; use auto, fp32 or bf16.")
    return "bf16" if asked == "bf16" else "fp32"
