"""What a process tests itself on: the models that it loaded, and the device that it computes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contract.errors import WorkerUnfit
from contract.keys.queues import QUEUE_CLASSIFY, QUEUE_GENERATE
from worker.engine import canary
from worker.execution.health import Health
from worker.process.self_test import SelfTest


class Sick:
    """A process whose device fails from some time on, as CUDA does after a sticky error; notes what was tested."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, loaded: str, queues: list[str], made: bool = False) -> None:
        self.tested: list[str] = []
        self.left: list[str] = []
        self.error: Exception | None = None
        runtimes = {"birds@1": SimpleNamespace(device=loaded)} if loaded else {}
        models = SimpleNamespace(runtimes=lambda: runtimes, check=self.tested.append) if loaded else None
        device = torch.device("cpu")  # there is no other here
        resources: Any = SimpleNamespace(
            models_made=lambda: models, device=device, device_made=lambda: device if made else None
        )
        monkeypatch.setattr(canary, "check_device", self.check)
        test = SelfTest(resources)
        test.queues = queues
        self.health = resources.health = Health(test.run, self.left.append)

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
