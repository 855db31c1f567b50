"""Which precision torch computes in."""

from __future__ import annotations

import pytest
import torch

from contract.errors import InvalidSettings
from worker.engine import precision
from worker.engine.precision import autocast, precision_on

CPU = torch.device("cpu")


@pytest.mark.parametrize(("native", "auto"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_device_has(native: bool, auto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "native_bf16", lambda device: native)
    assert precision_on(CPU, "auto") == auto
    assert precision_on(CPU, "fp32") == "fp32"


def test_what_a_device_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "native_bf16", lambda device: False)
    with pytest.raises(InvalidSettings, match="The device cpu does not compute in bf16"):
        precision_on(CPU, "bf16")


def test_bf16_is_mixed_and_fp32_is_left_alone() -> None:
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    for asked, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with autocast(CPU, asked):  # type: ignore[arg-type]
            assert layer(x).dtype == dtype
    assert layer.weight.dtype == torch.float32
