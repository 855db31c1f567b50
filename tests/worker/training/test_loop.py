"""The loop of a training, with a learner of a few lines: what it tells, keeps, chooses and survives."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from contract.errors import DeviceOutOfMemory, ObjectDamaged, StoreRefused, TrainingDiverged
from contract.models.recipes import CnnRecipe
from tests.waiting import wait_until
from tests.worker.training.interruptions import AtOnce
from tests.worker.training.toys import images
from worker.training import loop
from worker.training.checkpoint import pack, unpack
from worker.training.data.batches import Batch
from worker.training.learners.protocol import At
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

    def checkpoint(self, images: int, data: bytes) -> None:
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
    """Every checkpoint is written before the next step, unless `beside` says otherwise."""
    return train(learner, DATA, RECIPE, notes, start=start, **{"beside": AtOnce(), **options})  # type: ignore[arg-type]


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
            kept = notes.checkpoints[-1] if notes.checkpoints else kept

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


@dataclass
class Timed:
    """A learner whose steps take a second each, by a clock that nothing else moves."""

    now: float = 0.0
    learner: Counting = field(default_factory=Counting)

    def __post_init__(self) -> None:
        self._step = self.learner.step
        self.learner.step = self._slow  # type: ignore[method-assign]

    def _slow(self, batch: Batch, at: At) -> dict[str, Tensor]:
        self.now += 1.0
        return self._step(batch, at)

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [
        (3.0, [3, 6, 9, 12, 12]),  # before and after its validation
        (5.0, [5, 10, 12]),
        (60.0, [12]),
    ],
)
def test_checkpoints_are_made_in_time_and_at_the_end(seconds: float, steps: list[int]) -> None:
    timed, notes = Timed(), Notes()
    made: list[tuple[float, int, int]] = []

    def note(images: int, data: bytes) -> None:
        made.append((timed.now, unpack(data)[1]["step"], images))

    notes.checkpoint = note  # type: ignore[method-assign]

    run(timed.learner, notes, checkpoint_seconds=seconds, clock=timed.clock)

    assert [step for _, step, _ in made] == steps
    assert all(now == step and images == pytest.approx(22 / 4 * step, abs=1) for now, step, images in made)


@dataclass
class Store(Notes):
    """Hooks whose checkpoints are on their way until `answer` is set."""

    answer: threading.Event = field(default_factory=threading.Event)
    under_way: int = 0
    most: int = 0
    failure: Exception | None = None

    def checkpoint(self, images: int, data: bytes) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.answer.wait(30)
        self.under_way -= 1
        if self.failure is not None:
            raise self.failure
        self.checkpoints.append(data)


def test_steps_go_on_beside_a_checkpoint_and_it_holds_what_was_then() -> None:
    # Given a store that answers only after the tenth step,
    timed, store = Timed(), Store()
    done: list[int] = []
    step = timed.learner.step

    def noted(batch: Batch, at: At) -> dict[str, Tensor]:
        if at.step == 10:
            store.answer.set()
        done.append(at.step)
        return step(batch, at)

    timed.learner.step = noted  # type: ignore[method-assign]

    # and a checkpoint that is due after each second step,
    outcome = run(timed.learner, store, checkpoint_seconds=2.0, clock=timed.clock, beside=None)

    # I expect the training not to wait, one write at a time, the last one in the end,
    assert done == list(range(12)) and store.most == 1
    kept = [unpack(data)[1]["step"] for data in store.checkpoints]
    assert kept[0] == 2 and kept[-1] == 12 and len(kept) <= 4
    # and in the first what was true when it was made.
    again = run(Counting(), Notes(), store.checkpoints[0])
    assert timeless(again.history) == timeless(outcome.history)
    assert torch.equal(again.weights["weight"], outcome.weights["weight"])


class Noted(ThreadPoolExecutor):
    """A thread for checkpoints that keeps the future of each."""

    def __init__(self) -> None:
        super().__init__(1)
        self.given: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given.append(super().submit(fn, *args, **kwargs))
        return self.given[-1]


def test_what_a_write_raises_stops_the_training_at_the_next_step() -> None:
    # Given a store that refuses the checkpoint of the second step while the fifth is done,
    timed, store, beside = Timed(), Store(failure=StoreRefused("no")), Noted()
    step = timed.learner.step

    def noted(batch: Batch, at: At) -> dict[str, Tensor]:
        if at.step == 5:
            store.answer.set()
            wait_until(lambda: beside.given and beside.given[0].done(), 10, "the answer")
        return step(batch, at)

    timed.learner.step = noted  # type: ignore[method-assign]

    with pytest.raises(StoreRefused):
        run(timed.learner, store, checkpoint_seconds=2.0, clock=timed.clock, beside=beside)
    assert timed.learner.steps == [*range(6)]


def test_a_last_checkpoint_that_fails_fails_the_training() -> None:
    store = Store(failure=StoreRefused("no"))
    store.answer.set()
    with pytest.raises(StoreRefused):
        run(Counting(), store, beside=None)


def test_what_stops_a_training_waits_for_the_checkpoint_that_is_on_its_way() -> None:
    # Given a training that is told to stop while a checkpoint is on its way,
    timed, store = Timed(), Store()

    def stop(images: int, losses: Mapping[str, float]) -> None:
        if len(timed.learner.steps) == 4:
            threading.Timer(0.2, store.answer.set).start()
            raise Interrupted

    store.progress = stop  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        run(timed.learner, store, checkpoint_seconds=2.0, clock=timed.clock, beside=None)

    # I expect it to be kept, and no thread to be left.
    assert [unpack(data)[1]["step"] for data in store.checkpoints] == [2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoints")]


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
    assert notes.events == ["epoch"] * 3 + ["checkpoint"]


def test_a_checkpoint_outlives_an_upgrade_that_gave_recipes_a_field() -> None:
    # Given a checkpoint of a version that knew no `deterministic`,
    tensors, meta = unpack(checkpoint())
    del meta["recipe"]["deterministic"]
    older = pack(tensors, meta)
    # I expect a training to go on from it with the default, and not with another choice,
    assert train(Counting(), DATA, RECIPE, Notes(), start=older).history
    loose = RECIPE.model_copy(update={"deterministic": False})
    with pytest.raises(ObjectDamaged, match="of another recipe than"):
        train(Counting(), DATA, loose, Notes(), start=older)
    # nor from one whose recipe is of another family.
    meta["recipe"] = {"family": "vae"}
    with pytest.raises(ObjectDamaged, match="of another recipe than"):
        train(Counting(), DATA, RECIPE, Notes(), start=pack(tensors, meta))


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_recipe_says_whether_sums_may_come_in_any_order(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    @contextmanager
    def queueing(device: torch.device, *, loose: bool = False) -> Iterator[None]:
        asked.append((str(device), loose))
        yield

    monkeypatch.setattr(loop, "queueing", queueing)
    recipe = RECIPE.model_copy(update={"deterministic": deterministic})
    train(Counting(), DATA, recipe, Notes(), start=None, device="cuda")
    assert set(asked) == {("cuda", not deterministic)}


@pytest.mark.parametrize("clock", [lambda: 0.0, ticking(1.0)], ids=["read late", "read at once"])
def test_a_loss_that_is_not_finite_ends_it(clock: Callable[[], float]) -> None:
    # Given a loss that is none from the sixth step on,
    learner, notes = Counting(), Notes()
    learner.loss = lambda at: math.nan if at.step >= 5 else 1.0

    # I expect an error that names step, epoch and what to do, and no checkpoint from then on.
    with pytest.raises(TrainingDiverged, match=r"step 6 of 12, in epoch 2: loss is nan.*--set learning_rate=0\.1"):
        run(learner, notes, checkpoint_seconds=0.0, clock=clock)
    assert max((unpack(data)[1]["step"] for data in notes.checkpoints), default=0) <= 5
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
