"""What decodes images in a worker follows its settings and its device."""

from __future__ import annotations

import pytest

from contract.settings import Settings
from worker.engine import select
from worker.engine.images.device_decoder import DeviceDecoder
from worker.execution import resources


def made(**asked: object) -> object:
    return resources._device_decoder(Settings(**asked))  # type: ignore[arg-type]


@pytest.mark.parametrize(("device", "number"), [("auto", 0), ("cuda", 0), ("cuda:3", 3)])
def test_the_gpu_of_the_models_decodes_where_it_is_asked_for(
    device: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "capabilities", lambda *_: ("cuda", ("fp32",)))
    assert made(device=device) is None, "Pillow is the default"
    found = made(device=device, decoder="nvimgcodec")
    assert isinstance(found, DeviceDecoder)
    assert found._device == number


def test_beside_models_on_a_cpu_pillow_decodes(caplog: pytest.LogCaptureFixture) -> None:
    assert made(device="cpu", decoder="nvimgcodec") is None
    assert "Images are decoded by Pillow, not by nvImageCodec" in caplog.text
