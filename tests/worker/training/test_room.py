"""A training that does not fit beside other loaded models takes their place before its job is told."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from contract.errors import DeviceOutOfMemory
from worker.engine.runtimes.out_of_memory import out_of_memory
from worker.training.job import TrainWork
from worker.training.loop import Outcome

DONE = cast("Outcome", object())


class Device:
    """Has room for a training, or for the models that nobody uses."""

    def __init__(self, idle: int, room: bool = True) -> None:
        self.idle, self.room, self.tries = idle, room, 0

    def evict(self) -> int:
        count, self.idle = self.idle, 0
        return count

    def train(self) -> Outcome:
        self.tries += 1
        with out_of_memory():  # as it is around a learner that is made, its steps and its validation
            if self.idle or not self.room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return DONE


def work(device: Device) -> TrainWork:
    others: Any = dict.fromkeys(("backend", "reader", "device", "threads", "checkpoint_seconds", "leaving", "training"))
    return TrainWork(**others, evict=device.evict)


def test_models_that_nobody_uses_make_room() -> None:
    device = Device(idle=2)
    assert work(device)._with_room(device.train) is DONE
    assert (device.idle, device.tries) == (0, 2)


@pytest.mark.parametrize(("idle", "tries"), [(0, 1), (1, 2)])
def test_a_training_that_fits_nowhere_is_told_after_one_more_try_at_most(idle: int, tries: int) -> None:
    device = Device(idle, room=False)
    with pytest.raises(DeviceOutOfMemory, match="CUDA out of memory"):
        work(device)._with_room(device.train)
    assert device.tries == tries
