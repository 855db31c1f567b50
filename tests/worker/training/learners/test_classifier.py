"""The classifiers: they learn, they are chosen by what they were not shown, and no interruption changes them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from contract.errors import InvalidSource
from contract.models.recipes import CnnRecipe, RnnRecipe
from tests.worker.training.interruptions import CPU, Notes, assert_same, killed, learner, undisturbed
from tests.worker.training.toys import CLASSES, images, sequences
from worker import zoo
from worker.datasets.dataset import Dataset, split
from worker.engine import precision
from worker.training.data.batches import Batch, normalized, take, thinned
from worker.training.learners.classifier import ClassifierLearner
from worker.training.learners.protocol import At
from worker.training.loop import train

CNN = CnnRecipe(variant="classic", epochs=3, batch_size=16, learning_rate=0.02, ema=0.9, precision="fp32", crop=1)
RNN = RnnRecipe(epochs=12, batch_size=16, learning_rate=0.01, hidden=16, ema=0.8, precision="fp32")


@pytest.mark.parametrize(
    ("recipe", "data"),
    [
        (CNN.model_copy(update={"erase": 0.3}), images()),
        (CNN.model_copy(update={"precision": "bf16"}), images()),
        (CNN.model_copy(update={"variant": "residual", "epochs": 2}), images(channels=3)),
        (CNN.model_copy(update={"variant": "residual", "epochs": 2, "precision": "bf16"}), images()),
        (RNN.model_copy(update={"epochs": 2, "cell": "lstm", "frames": 4}), sequences()),
        (RNN.model_copy(update={"epochs": 2, "precision": "bf16"}), sequences()),
    ],
    ids=["classic", "classic bf16", "residual", "residual bf16", "lstm", "gru bf16"],
)
def test_interrupted_it_ends_with_the_same_weights(
    recipe: CnnRecipe | RnnRecipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # If, with a checkpoint after each of three steps an epoch, it is killed after its first step, then before its
    # first validation, then in the middle of its second epoch (bf16 works on every CPU, if slowly),
    monkeypatch.setattr(precision, "native_bf16", lambda device: True)
    interrupted = killed(recipe, data, stops=(1, 2, 3))

    # I expect what comes of a training that nobody disturbed.
    assert_same(interrupted, undisturbed(recipe, data))


@pytest.mark.parametrize(
    ("recipe", "data"),
    [(CNN.model_copy(update={"flip": False, "epochs": 8}), images(n=90)), (RNN, sequences(n=90))],
    ids=["cnn", "rnn"],
)
def test_it_learns_what_it_publishes(recipe: CnnRecipe | RnnRecipe, data: Dataset) -> None:
    notes = Notes()
    fresh, shown = learner(recipe, data)
    outcome = train(fresh, shown, recipe, notes, start=None)

    # I expect all that was held out to be told apart in the best epoch,
    assert outcome.best.metrics["accuracy"] == 1.0
    assert outcome.history[-1].losses["loss"] < outcome.history[0].losses["loss"]

    # by exactly what the outcome holds: weights in float32 that the zoo's module takes,
    module = zoo.create(recipe.family, **outcome.config).eval()
    module.load_state_dict(outcome.weights)
    _, held_out = split(data, 0.25, recipe.seed)
    batch = take(held_out, np.arange(len(held_out)))
    pixels = (batch.pixels.float() - 127.5) / 127.5
    with torch.inference_mode():
        logits, _ = module(pixels) if batch.lengths is None else module(pixels, batch.lengths)
    assert torch.equal(logits.argmax(1), batch.labels)
    found = torch.nn.functional.cross_entropy(logits, batch.labels)
    assert outcome.best.metrics["loss"] == pytest.approx(float(found), rel=1e-4)

    # and a picture of each epoch.
    assert len(notes.pictures) == recipe.epochs and None not in notes.pictures


def test_the_seed_decides() -> None:
    recipe = CNN.model_copy(update={"epochs": 1})
    one, same, other = (undisturbed(recipe.model_copy(update={"seed": seed}), images()) for seed in (0, 0, 1))
    assert all(torch.equal(one.weights[name], tensor) for name, tensor in same.weights.items())
    assert not torch.equal(one.weights["head.weight"], other.weights["head.weight"])


def stepped(recipe: CnnRecipe | RnnRecipe, data: Dataset, at: At) -> tuple[ClassifierLearner, torch.nn.Module]:
    """A learner after one step, and its module as it was before."""
    made = ClassifierLearner(recipe, data, data, CPU)
    before = copy.deepcopy(made.module)
    made.step(take(data, np.arange(8)), at)
    return made, before


@pytest.mark.parametrize(
    ("recipe", "data", "factor"),
    [(CNN, images(), 0.02 * 0.5 / 0.1), (RNN, sequences(), 0.01 * 0.5)],
    ids=["SGD", "AdamW"],
)
def test_weights_decay_and_biases_do_not(recipe: CnnRecipe | RnnRecipe, data: Dataset, factor: float) -> None:
    # Given a step at the peak of the schedule without weight decay, and one with,
    at = At(step=2, steps=20, epoch=0)
    plain, before = stepped(recipe.model_copy(update={"weight_decay": 0.0}), data, at)
    decayed, _ = stepped(recipe.model_copy(update={"weight_decay": 0.5}), data, at)

    # I expect them to differ by rate × decay × weight, as much as plain SGD's momentum would make of it.
    names = [name for name, _ in before.named_parameters()]
    for name in names:
        was, one, other = (dict(m.named_parameters())[name] for m in (before, plain.module, decayed.module))
        expected = one - factor * was if was.ndim > 1 else one
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-6)
    assert {"head.weight", "head.bias"} < set(names)


def test_it_learns_at_the_rate_that_it_tells() -> None:
    made = ClassifierLearner(CNN, images(), images(), CPU)
    rates = []
    for step in range(0, 20, 5):
        made.step(take(images(), np.arange(8)), At(step, 20, 0))
        rates.append(made.optimizer.param_groups[0]["lr"])
    assert rates == [made.learning_rate(At(step, 20, 0)) for step in range(0, 20, 5)]
    assert rates[0] < rates[1] > rates[2] > rates[3] > 0


def test_labels_are_smoothed_in_training_and_not_in_validation() -> None:
    # Given a learner that is sure of the first class,
    data = images(n=6)
    recipe = CNN.model_copy(update={"label_smoothing": 0.3, "dropout": 0.0})
    made = ClassifierLearner(recipe, data, data, CPU)
    modules: tuple[Any, ...] = (made.module, made.average.module)
    for module in modules:
        torch.nn.init.zeros_(module.head.weight)
        module.head.bias.data = torch.tensor([30.0, 0.0, 0.0])

    # if it is validated on two images of each of three classes, I expect a third to cost nothing, the others 30, and
    # a confusion matrix whose rows are the true classes.
    assert made.validate() == pytest.approx({"accuracy": 1 / 3, "loss": 20.0})
    assert made.confusion is not None
    assert made.confusion.tolist() == [[2, 0, 0], [2, 0, 0], [2, 0, 0]]

    # If it learns from images of that class, I expect a loss of two thirds of 0.3, times 30.
    sure = replace(take(data, np.array([0, 3])), labels=torch.tensor([0, 0]))
    assert float(made.step(sure, At(0, 10, 0))["loss"]) == pytest.approx(0.3 * 2 / 3 * 30)


def test_norms_are_measured_for_the_averaged_weights() -> None:
    # Given averaged weights whose norms remember something else,
    data = images(n=30)
    recipe = CNN.model_copy(update={"variant": "residual", "batch_size": 30})
    made = ClassifierLearner(recipe, data, data, CPU)
    made.step(take(data, np.arange(30)), At(0, 10, 0))
    averaged = made.average.module
    first = averaged.body[0][1]
    first.running_mean.fill_(100.0)

    # if they are validated, I expect the statistics of what their first convolution makes of the images.
    made.validate()
    with torch.inference_mode():
        seen = averaged.body[0][0](normalized(take(data, np.arange(30)).pixels))
    torch.testing.assert_close(first.running_mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.export()["body.0.1.running_mean"], first.running_mean)


def test_the_optimizers_are_those_of_the_recipes() -> None:
    sgd = ClassifierLearner(CNN, images(), images(), CPU).optimizer
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"], sgd.defaults["weight_decay"]) == (0.9, True, 0)
    assert isinstance(ClassifierLearner(RNN, sequences(), sequences(), CPU).optimizer, torch.optim.AdamW)


def test_long_sequences_are_thinned_out() -> None:
    data = sequences()
    batch = take(data, np.arange(8))

    def loss(frames: int, batch: Batch) -> float:
        recipe = RNN.model_copy(update={"frames": frames})
        return float(ClassifierLearner(recipe, data, data, CPU).step(batch, At(0, 10, 0))["loss"])

    assert loss(3, batch) == loss(64, thinned(batch, 3)) != loss(64, batch)


def test_dropout_and_augmentation_are_of_the_step() -> None:
    data = images()
    batch = take(data, np.arange(8))

    def loss(recipe: CnnRecipe, step: int, seed: int) -> float:
        torch.manual_seed(seed)
        return float(ClassifierLearner(recipe, data, data, CPU).step(batch, At(step, 10, 0))["loss"])

    plain = CNN.model_copy(update={"dropout": 0.0, "flip": False, "crop": 0})
    assert loss(plain, 1, seed=0) == loss(plain, 2, seed=0)
    for change in ({"dropout": 0.5}, {"flip": True}, {"crop": 2}, {"erase": 0.9}):
        changed = plain.model_copy(update=change)
        assert loss(changed, 1, seed=0) == loss(changed, 1, seed=1) != loss(changed, 2, seed=0), change


def test_data_that_it_cannot_learn_from_is_refused() -> None:
    one = Dataset(images().images, np.zeros(48, np.int64), CLASSES[:1])
    with pytest.raises(InvalidSource, match="has 1 class, and a classifier needs two"):
        ClassifierLearner(CNN, one, one, CPU)
    with pytest.raises(InvalidSource, match="holds sequences, and the family cnn learns from images"):
        ClassifierLearner(CNN, sequences(), sequences(), CPU)
    with pytest.raises(InvalidSource, match="holds images, and the family rnn learns from sequences"):
        ClassifierLearner(RNN, images(), images(), CPU)


def test_there_is_no_picture_before_a_validation() -> None:
    assert ClassifierLearner(CNN, images(), images(), CPU).picture() is None
