"""Which precision is computed in, whatever library computes."""

from __future__ import annotations

import pytest

from contract.errors import InvalidSettings
from worker.engine.bf16 import resolve_precision, told_bf16


def test_auto_precision_is_bf16_only_where_it_is_native() -> None:
    assert resolve_precision("auto", native_bf16=True, device="it") == "bf16"
    assert resolve_precision("auto", native_bf16=False, device="it") == "fp32"
    assert resolve_precision("fp32", native_bf16=True, device="it") == "fp32"
    assert resolve_precision("bf16", native_bf16=True, device="it") == "bf16"


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="it does not compute in bf16; use the precision auto or fp32"):
        resolve_precision("bf16", native_bf16=False, device="it")
    with pytest.raises(InvalidSettings, match="no precision 'int8'; use auto, fp32 or bf16"):
        resolve_precision("int8", native_bf16=True, device="it")


@pytest.mark.parametrize(("told", "expected"), [("auto", None), ("on", True), ("off", False)])
def test_the_setting_overrules_the_hardware(told: str, expected: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_NATIVE_BF16", told)
    assert told_bf16() is expected
