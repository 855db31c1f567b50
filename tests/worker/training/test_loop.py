"""The loop of a training, with a learner of a few lines: what it tells, keeps, chooses and survives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from PIL import Image
from torch import Tensor

from contract.errors import DeviceOutOfMemory, ObjectDamaged, TrainingDiverged
from contract.recipes import CnnRecipe
from tests.worker.training.toys import images
from worker.training.batches import Batch
from worker.training.checkpoint import pack, unpack
from worker.training.learner import At
from worker.training.loop import EpochRecord, Outcome, train

DATA = images(n=22)
RECIPE = CnnRecipe(epochs=3, batch_size=6, learning_rate=0.3)  # 4 steps an epoch


class Counting:
    """Its weight follows from every example of every step, in their order; its score is as told."""

    best_by = "score"

    def __init__(self, scores: Sequence[float] = (0.5, 0.7, 0.6), higher: bool = True) -> None:
        self.higher_is_better = higher
        self.weight = torch.zeros((), dtype=torch.float64)
        self.done = torch.zeros((), dtype=torch.int64)
        self.loss: Callable[[At], float] = lambda at: 1.0 / (1 + at.step)
        self.steps: list[int] = []
        self.validated: list[Tensor] = []
        self._scores = scores

    def step(self, batch: Batch, at: At) -> dict[str, Tensor]:
        assert (at.steps, at.epoch) == (12, at.step // 4)
        self.steps.append(at.step)
        self.done += 1
        for one in batch.index:
            self.weight.mul_(0.9).add_(float(one))
        return {"loss": torch.tensor(self.loss(at))}

    def learning_rate(self, at: At) -> float:
        return 100.0 - at.step

    def validate(self) -> dict[str, float]:
        self.validated.append(self.weight.float())
        return {"score": self._scores[int(self.done) // 4 - 1]}

    def state(self) -> dict[str, Tensor]:
        return {"weight": self.weight, "done": self.done}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.weight, self.done = state["weight"].clone(), state["done"].clone()

    def export(self) -> dict[str, Tensor]:
        return {"weight": self.weight.float()}

    def config(self) -> dict[str, int | float | str | bool]:
        return {"classes": 3}

    def picture(self) -> Image.Image | None:
        return Image.new("L", (len(self.validated), 1))


@dataclass
class Notes:
    """Hooks that write down what they are told, and raise at the event of a number."""

    stop: int = -1
    events: list[str] = field(default_factory=list)
    checkpoints: list[bytes] = field(default_factory=list)
    records: list[EpochRecord] = field(default_factory=list)
    told: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        self.told.append((images, dict(losses)))
        self._note("progress")

    def checkpoint(self, data: bytes) -> None:
        self.checkpoints.append(data)
        self._note("checkpoint")

    def epoch(self, record: EpochRecord, picture: Image.Image | None) -> None:
        assert picture is not None and picture.width == len(self.records) + 1
        self.records.append(record)
        self._note("epoch")

    def _note(self, what: str) -> None:
        self.events.append(what)
        if len(self.events) == self.stop:
            raise Interrupted


class Interrupted(Exception): ...


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that is so much later each time it is read."""
    return itertools.count(0.0, seconds).__next__


def run(learner: Counting, notes: Notes, start: bytes | None = None, **options: object) -> Outcome:
    return train(learner, DATA, RECIPE, notes, start=start, **options)  # type: ignore[arg-type]


def timeless(history: Sequence[EpochRecord]) -> list[dict[str, object]]:
    return [record.model_dump(exclude={"seconds"}) for record in history]


def test_the_best_epoch_is_what_comes_out() -> None:
    # Given a learner that was best in its second epoch,
    learner, notes = Counting(), Notes()

    outcome = run(learner, notes)

    # I expect its weights of then, the config that goes with them, and a record of every epoch.
    assert outcome.best.epoch == 2
    assert torch.equal(outcome.weights["weight"], learner.validated[1])
    assert outcome.config == {"classes": 3}
    assert outcome.history == tuple(notes.records) and outcome.best == notes.records[1]
    assert [record.step for record in outcome.history] == [4, 8, 12]
    assert [record.learning_rate for record in outcome.history] == [97.0, 93.0, 89.0]
    assert [record.metrics for record in outcome.history] == [{"score": 0.5}, {"score": 0.7}, {"score": 0.6}]
    assert outcome.history[0].losses["loss"] == pytest.approx((5 / 1 + 6 / 2 + 5 / 3 + 6 / 4) / 22)
    assert outcome.history[1].losses["loss"] == pytest.approx((5 / 5 + 6 / 6 + 5 / 7 + 6 / 8) / 22)


@pytest.mark.parametrize(
    ("scores", "higher", "best"),
    [
        ((0.1, 0.9, 0.9), True, 2),  # of two equals the earlier
        ((0.5, 0.5, 0.5), True, 1),
        ((0.1, 0.2, 0.3), True, 3),
        ((3.0, 1.0, 2.0), False, 2),
        ((3.0, 1.0, 1.0), False, 2),
    ],
)
def test_of_two_equals_the_earlier_is_the_best(scores: Sequence[float], higher: bool, best: int) -> None:
    assert run(Counting(scores, higher), Notes()).best.epoch == best


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 2.0, 1e9])
def test_interrupted_anywhere_it_ends_as_if_undisturbed(checkpoint_seconds: float) -> None:
    # Given a training that nobody disturbed,
    undisturbed = run(Counting(), Notes())

    # if another is killed at its first event, again at the second that follows, and so on, and goes on each time
    # in a fresh learner from the last checkpoint,
    kept: bytes | None = None
    for stop in itertools.count(1):
        notes = Notes(stop)
        try:
            outcome = run(Counting(), notes, kept, checkpoint_seconds=checkpoint_seconds, clock=ticking(0.3))
            break
        except Interrupted:
            kept = (notes.checkpoints or [kept])[-1]

    # I expect the same end, bit for bit.
    assert stop > 3
    assert torch.equal(outcome.weights["weight"], undisturbed.weights["weight"])
    assert timeless(outcome.history) == timeless(undisturbed.history)
    assert timeless([outcome.best]) == timeless([undisturbed.best])


def test_no_step_is_done_twice() -> None:
    # Given a training that checkpoints at each step, stopped right after the checkpoint of its sixth,
    first, notes = Counting(), Notes(stop=2 * 4 + 2 + 2 * 2)
    with pytest.raises(Interrupted):
        run(first, notes, checkpoint_seconds=0.0, clock=ticking(1.0))
    assert notes.events[-4:] == ["progress", "checkpoint"] * 2

    # if it goes on, I expect the seventh step to be its first.
    second = Counting()
    run(second, Notes(), notes.checkpoints[-1])
    assert (first.steps, second.steps) == ([*range(6)], [*range(6, 12)])


def test_a_training_that_had_ended_ends_at_once() -> None:
    notes = Notes()
    outcome = run(Counting(), notes)

    learner, silent = Counting(), Notes()
    again = run(learner, silent, notes.checkpoints[-1])

    assert (learner.steps, learner.validated, silent.events) == ([], [], [])
    assert again.best == outcome.best and again.history == outcome.history
    assert torch.equal(again.weights["weight"], outcome.weights["weight"])


def test_an_epoch_is_told_before_it_is_kept() -> None:
    # Given hooks that fail when they are told of the first epoch,
    notes = Notes(stop=1)
    with pytest.raises(Interrupted):
        run(Counting(), notes)
    assert notes.checkpoints == []

    # if it goes on, I expect to be told of that epoch again.
    again = Notes()
    run(Counting(), again)
    assert timeless(again.records[:1]) == timeless(notes.records)


def test_a_checkpoint_is_made_in_time_and_after_each_epoch() -> None:
    # Given steps of a second, by a clock that only steps move, and a checkpoint every 3 seconds,
    now = 0.0
    learner, notes = Counting(), Notes()
    made: list[tuple[float, int]] = []
    step = learner.step

    def slow(batch: Batch, at: At) -> dict[str, Tensor]:
        nonlocal now
        now += 1.0
        return step(batch, at)

    learner.step = slow  # type: ignore[method-assign]
    notes.checkpoint = lambda data: made.append((now, unpack(data)[1]["step"]))  # type: ignore[assignment,method-assign]

    run(learner, notes, checkpoint_seconds=3.0, clock=lambda: now)

    # I expect one after the third step and one after the epoch, of the step that was done last.
    assert made == [(n, n) for n in (3, 4, 7, 8, 11, 12)]


def test_a_store_that_is_slow_leaves_time_to_learn() -> None:
    # Given steps of a second, and checkpoints every 4 seconds that take 10 to put away,
    now = 0.0
    learner, notes = Counting(), Notes()
    step = learner.step

    def slow(batch: Batch, at: At) -> dict[str, Tensor]:
        nonlocal now
        now += 1.0
        return step(batch, at)

    def put(data: bytes) -> None:
        nonlocal now
        now += 10.0
        notes.checkpoints.append(data)

    learner.step, notes.checkpoint = slow, put  # type: ignore[method-assign]
    run(learner, notes, checkpoint_seconds=4.0, clock=lambda: now)

    # I expect more steps than checkpoints.
    assert [unpack(data)[1]["step"] for data in notes.checkpoints] == [4, 4, 6, 8, 8, 10, 12, 12]


def test_progress_is_told_a_few_times_a_second_at_most() -> None:
    # Given a clock that goes on by 0.1 s each time it is looked at, twice a step,
    notes = Notes()
    run(Counting(), notes, clock=ticking(0.1))

    # I expect progress after every second step, in images, with the losses since the last time.
    counts = [images for images, _ in notes.told]
    assert counts == sorted(counts) and set(counts) < {5, 11, 16, 22, 27, 33, 38, 44, 49, 55, 60, 66}
    assert notes.told[0][1]["loss"] == pytest.approx((5 * 1 + 6 / 2) / 11)
    assert 3 <= len(counts) <= 6


def test_losses_are_read_seldom() -> None:
    # Given a clock that stands still, I expect no loss to be looked at before the epoch ends.
    notes = Notes()
    run(Counting(), notes, clock=lambda: 0.0)
    assert notes.told == []
    assert notes.events == ["epoch", "checkpoint"] * 3


@pytest.mark.parametrize("clock", [lambda: 0.0, ticking(1.0)], ids=["read late", "read at once"])
def test_a_loss_that_is_not_finite_ends_it(clock: Callable[[], float]) -> None:
    # Given a loss that is none from the sixth step on,
    learner, notes = Counting(), Notes()
    learner.loss = lambda at: math.nan if at.step >= 5 else 1.0

    # I expect an error that names step, epoch and what to do, and no checkpoint from then on.
    with pytest.raises(TrainingDiverged, match=r"step 6 of 12, in epoch 2: loss is nan.*--set learning_rate=0\.1"):
        run(learner, notes, checkpoint_seconds=0.0, clock=clock)
    assert max(unpack(data)[1]["step"] for data in notes.checkpoints) <= 5
    assert len(notes.records) == 1


def test_a_metric_that_is_not_finite_ends_it_too() -> None:
    with pytest.raises(TrainingDiverged, match=r"step 8 of 12, in epoch 2: score is inf"):
        run(Counting((0.5, math.inf, 0.5)), Notes())


def test_a_batch_that_does_not_fit_says_what_to_do() -> None:
    learner = Counting()
    learner.step = lambda *_: _raise(torch.OutOfMemoryError("CUDA out of memory"))  # type: ignore[method-assign,assignment]
    with pytest.raises(DeviceOutOfMemory, match=r"A step of 5 examples .* --set batch_size=2\."):
        run(learner, Notes())


def _raise(error: Exception) -> None:
    raise error


def test_seconds_are_those_of_the_epoch_without_what_was_lost() -> None:
    # Given steps of a second and nothing else that takes time,
    def begin(learner: Counting, notes: Notes, start: bytes | None) -> Outcome:
        now = 1000.0
        step = learner.step

        def slow(batch: Batch, at: At) -> dict[str, Tensor]:
            nonlocal now
            now += 1.0
            return step(batch, at)

        learner.step = slow  # type: ignore[method-assign]
        return run(learner, notes, start, checkpoint_seconds=2.0, clock=lambda: now)

    # if it is interrupted right after the checkpoint of its second step,
    notes = Notes(stop=3)
    with pytest.raises(Interrupted):
        begin(Counting(), notes, None)
    outcome = begin(Counting(), Notes(), notes.checkpoints[-1])

    # I expect four seconds of each epoch all the same.
    assert [record.seconds for record in outcome.history] == [4.0, 4.0, 4.0]


def checkpoint() -> bytes:
    notes = Notes()
    run(Counting(), notes)
    return notes.checkpoints[0]


def test_a_checkpoint_of_another_training_is_refused() -> None:
    data = checkpoint()
    other = RECIPE.model_copy(update={"seed": 1})
    with pytest.raises(ObjectDamaged, match="of another recipe than"):
        train(Counting(), DATA, other, Notes(), start=data)
    with pytest.raises(ObjectDamaged, match="of another data than"):
        train(Counting(), images(n=22, seed=1), RECIPE, Notes(), start=data)


@pytest.mark.parametrize("lost", ["step", "history", "learner.weight"])
def test_a_checkpoint_of_another_version_is_refused(lost: str) -> None:
    tensors, meta = unpack(checkpoint())
    tensors.pop(lost, None)
    meta.pop(lost, None)
    with pytest.raises(ObjectDamaged, match="does not fit this version of Imagemill"):
        run(Counting(), Notes(), pack(tensors, meta))
