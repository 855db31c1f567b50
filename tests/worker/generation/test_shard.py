"""How the shards of a worker share its device: encoding does not hold it up, and who waits for it is not stuck."""

from __future__ import annotations

import io
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from contract.errors import JobStopped
from contract.jobs.specs import Generate
from tests.waiting import wait_until
from worker.engine.generators.sampler import GROUP, Sampler
from worker.execution.device_slots import DeviceSlots
from worker.execution.leases import Lease
from worker.generation.archive import Archive
from worker.generation.candidate_plan import CandidateBlock
from worker.generation.reference_features import Reference
from worker.generation.shard import GeneratedWork, _verdicts

CPU = torch.device("cpu")
GROUPS = 6
SPEC = SimpleNamespace(
    id="painted",
    kind="generate",
    model="painter@1",
    weights_sha256="0" * 64,
    precision="fp32",
    seed=0,
    truncation=None,
    size=0,
    image_format="png",
)


class Easel:
    """Stands in for the models of a worker: a generator of gray images that counts the groups it made."""

    def __init__(self) -> None:
        self.groups = 0

    def model(self, ref: str) -> Any:
        return SimpleNamespace(labels=("koala", "panda"))

    def generator(self, ref: str, precision: str) -> Any:
        return SimpleNamespace(sampler=lambda seed, truncation: Sampler(self.decode, 4, seed, CPU, "fp32", truncation))

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        self.groups += 1
        return torch.tanh(z)[:, None, None, :]


def runner(models: Easel, encoders: ThreadPoolExecutor) -> GeneratedWork:
    unused = cast(Any, None)
    return GeneratedWork(
        unused,
        cast(Any, models),
        encoders,
        DeviceSlots(CPU, threads=1),
    )


def test_the_device_goes_on_while_nothing_is_encoded() -> None:
    # Given a worker whose only encoder is busy with something else,
    easel, archive, free = Easel(), Archive("png"), threading.Event()
    block = CandidateBlock(labels=(0, 1), start=0, stop=GROUPS * GROUP // 2)
    with ThreadPoolExecutor(1) as encoders, ThreadPoolExecutor(1) as threads:
        encoders.submit(free.wait)
        made = threads.submit(
            runner(easel, encoders).draw, cast(Generate, SPEC), block, Lease("painted", 0, "token"), archive
        )
        try:
            # I expect its device to make all of these groups,
            wait_until(lambda: easel.groups == GROUPS, 10, "the device to make its images")
        finally:
            free.set()
        made.result()

    # and every image to be in the archive in the end, in order.
    with tarfile.open(fileobj=io.BytesIO(archive.close())) as tar:
        names = [name for name in tar.getnames() if name.endswith(".png")]
    assert names == [f"{row['key']}.png" for row in archive.rows]
    assert [(row["label_index"], row["index"]) for row in archive.rows] == list(block.images())


def test_who_waits_for_the_device_is_alive_and_may_be_stopped() -> None:
    # Given a shard that has the device, and takes it once more, as it may,
    with ThreadPoolExecutor(1) as encoders, ThreadPoolExecutor(1) as threads:
        made = runner(Easel(), encoders)
        waiting = Lease("painted", 1, "token")

        def wait() -> None:
            with made.turn_on_device(waiting):
                pass

        with made.turn_on_device(Lease("painted", 0, "token")), made.turn_on_device(Lease("painted", 0, "token")):
            second = threads.submit(wait)

            # I expect another to show progress while it waits, and to end when its job does.
            wait_until(lambda: waiting.progress_at is not None, 10, "a sign of life")
            waiting.over = "stopped"
            with pytest.raises(JobStopped):
                second.result(10)

        # After that the device is free.
        waiting.over = None
        threads.submit(wait).result(10)


@pytest.mark.parametrize(
    ("logits", "feature", "reason"),
    [([0.0, 9.0], 0.0, None), ([np.nan, np.nan], 0.0, "score"), ([0.0, 9.0], np.nan, "copy")],
)
def test_what_a_gate_answers_with_no_number_is_rejected(
    logits: list[float], feature: float, reason: str | None
) -> None:
    # Given a gate that accepts everything, if its answer for an image is no number, I expect the image to be rejected.
    spec = SimpleNamespace(min_score=0.0, copy_distance=0.0)
    gate = SimpleNamespace(labels=("koala", "panda"))
    label = gate.labels[int(np.argmax(logits))]
    row: dict[str, Any] = {"label": label, "reject_reason": None}
    said, seen = np.array([logits], np.float32), np.array([[1.0, feature]], np.float32)
    reference = Reference(np.array([[1.0, 0.0]], np.float32))
    _verdicts(cast(Any, spec), cast(Any, gate), [row], said, seen, reference)
    assert (row["reject_reason"], row["accepted"]) == (reason, reason is None)
