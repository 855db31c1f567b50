"""What a process tests itself on: the models that it loaded, and the device that it computes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contract.errors import InvalidSettings, WorkerUnfit
from contract.keys.queues import QUEUE_CLASSIFY, QUEUE_CONTROL, QUEUE_GENERATE
from worker.engine import canary
from worker.execution.health import Health
from worker.process.self_test import SelfTest


class Sick:
    """A process whose device fails from some time on, as CUDA does after a sticky error; notes what was tested."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, loaded: str, queues: list[str], kind: str = "") -> None:
        self.tested: list[str] = []
        self.left: list[str] = []
        self.error: Exception | None = None
        runtimes = {"birds@1": SimpleNamespace(device=loaded)} if loaded else {}
        models = SimpleNamespace(runtimes=lambda: runtimes, check=self.tested.append) if loaded else None
        device = torch.device("cpu")  # there is no other here
        self.kind = kind or loaded.partition(":")[0] or "cpu"
        resources: Any = SimpleNamespace(
            models_made=lambda: models, device=device, device_made=lambda: None, once=lambda _: self.capabilities()
        )
        monkeypatch.setattr(canary, "check_device", self.check)
        test = SelfTest(resources)
        test.queues = queues
        self.health = resources.health = Health(test.run, self.left.append)

    def capabilities(self) -> SimpleNamespace:
        if not self.kind:
            raise InvalidSettings("The device cuda is unavailable.")
        return SimpleNamespace(device=self.kind)

    def check(self, device: torch.device) -> None:
        self.tested.append(device.type)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("loaded", "queues", "tested"),
    [
        ("", [QUEUE_CLASSIFY], []),
        ("cpu", [QUEUE_CLASSIFY], ["efficientnet-lite0@1"]),
        ("cuda:0", [QUEUE_CLASSIFY], ["efficientnet-lite0@1", "cpu"]),
        ("", [QUEUE_GENERATE], ["cpu"]),
        ("", [QUEUE_CONTROL], []),
    ],
)
def test_the_device_is_tested_where_something_computes_on_it(
    loaded: str, queues: list[str], tested: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Sick(monkeypatch, loaded=loaded, queues=queues)
    process.health.check()
    assert process.tested == tested


@pytest.mark.parametrize(("loaded", "queues"), [("cuda", [QUEUE_CLASSIFY]), ("", [QUEUE_GENERATE])])
def test_a_sticky_error_of_the_device_makes_the_process_unfit(
    loaded: str, queues: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Sick(monkeypatch, loaded=loaded, queues=queues)
    process.health.check()
    process.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(WorkerUnfit, match="illegal memory access"):
        process.health.check()
    assert "RuntimeError" in process.health.unfit


def test_a_gpu_is_tested_before_anything_was_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Sick(monkeypatch, loaded="", queues=[QUEUE_CLASSIFY], kind="cuda")
    process.error = RuntimeError("CUDA error: uncorrectable ECC error encountered")
    with pytest.raises(WorkerUnfit, match="uncorrectable ECC"):
        process.health.check()


def test_a_process_whose_gpu_is_gone_is_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that was started again after its driver had broken: no model is loaded, so none can fail."""
    process = Sick(monkeypatch, loaded="", queues=[QUEUE_CLASSIFY])
    process.kind = ""
    with pytest.raises(WorkerUnfit, match="The device cuda is unavailable"):
        process.health.check()
    assert process.tested == []
