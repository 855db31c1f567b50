"""A pushed program that has taken its process over reaches no worker: a death or a hang is a fault of the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.errors import DeviceOutOfMemory, ModelError
from contract.models.registry import Model, Preprocess, make_file
from contract.settings import Settings
from tests.attacks.hostile_program import CRASH, FAIL, FINE, HANG, KILLED, NO_MEMORY, NONSENSE, STICKS
from tests.programs import Redness, export
from worker.confinement.confine import Limits
from worker.engine import select
from worker.engine.runtimes import confined
from worker.engine.runtimes.confined import ConfinedRuntime
from worker.engine.types import ModelSpec
from worker.execution.model_cache import load_runtime, trusted

TESTS = str(Path(__file__).parent.parent)


def batch(does: int, n: int = 2) -> NDArray[np.uint8]:
    return np.full((n, 8, 8, 3), does, np.uint8)


def record(path: Path, name: str = "mine") -> Model:
    return Model(
        name=name,
        version=2,
        family="program",
        labels=("red", "other"),
        preprocess=Preprocess(size=8, mean=127.5, std=127.5),
        weights=make_file("weights.pt2", path.read_bytes()),
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(Redness().eval(), tmp_path_factory.mktemp("program") / "redness.pt2")


@pytest.fixture
def hostile(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConfinedRuntime]:
    """A runtime whose child does what its pixels say."""

    def with_tests(**given: Any) -> Limits:
        return Limits(**{**given, "readable": (*given["readable"], TESTS)})

    monkeypatch.setattr(confined, "_MODULE", "tests.attacks.hostile_program")
    monkeypatch.setattr(confined, "Limits", with_tests)
    spec = ModelSpec.of(record(program), program)
    runtime = ConfinedRuntime(
        spec,
        device="cpu",
        runtime="torch",
        precision="fp32",
        threads=1,
        batch_size=8,
        cache_dir=tmp_path,
    )
    yield runtime
    runtime.close()


@pytest.mark.parametrize(
    ("does", "error", "match"),
    [
        (CRASH, ModelError, "ended its process, or did not answer"),
        (HANG, ModelError, "did not answer in time"),
        (NONSENSE, ModelError, "answered what is no output"),
        (NO_MEMORY, DeviceOutOfMemory, "no room"),
        (KILLED, DeviceOutOfMemory, "killed the process of the model twice"),
        (FAIL, RuntimeError, "a kernel failed"),
    ],
)
def test_what_a_model_does_to_its_process_is_an_error_of_the_model(
    hostile: ConfinedRuntime, does: int, error: type[Exception], match: str
) -> None:
    patience = hostile._seconds
    if does == HANG:  # the others, and the batch after it, have time to answer
        hostile._seconds = 2.0
    with pytest.raises(error, match=match):
        hostile.submit(batch(does)).result(120)
    hostile._seconds = patience

    # And I expect the next batch to be served, by a new child where the old one died.
    assert hostile.submit(batch(FINE, 3)).result(120).logits.shape == (3, 2)


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_child_on_a_gpu_that_fails_is_replaced_before_its_batch_is_told(
    hostile: ConfinedRuntime, on_gpu: bool
) -> None:
    # Given a child in which everything fails from some batch on,
    hostile._sticks = on_gpu
    first = hostile._child
    hostile.submit(batch(STICKS)).result(120)
    # I expect another child to answer what comes next, and a batch that fails in each to be told;
    if on_gpu:
        for answer in [hostile.submit(batch(FINE, 3)) for _ in range(3)]:
            assert answer.result(120).logits.shape == (3, 2)
        assert hostile._child is not first
        with pytest.raises(RuntimeError, match="a kernel failed"):
            hostile.submit(batch(FAIL)).result(120)
        assert hostile.submit(batch(FINE)).result(120).logits.shape == (2, 2)
    else:  # on a CPU no error stays with a process.
        with pytest.raises(RuntimeError, match="a kernel failed"):
            hostile.submit(batch(FINE)).result(120)
        assert hostile._child is first


def test_a_child_that_the_system_kills_once_costs_nothing(hostile: ConfinedRuntime) -> None:
    hostile._child._process.running.kill()

    assert hostile.submit(batch(FINE)).result(120).features.shape == (2, 2)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_a_pushed_program_runs_in_a_confined_child_and_answers_as_it_does_here(
    program: Path, tmp_path: Path, runtime: str
) -> None:
    # Given a program that nobody trusts,
    settings = Settings(device="cpu", runtime=runtime, threads=1, cache_dir=tmp_path)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), np.uint8)

    # if it is loaded, I expect a child, and the bits that it gives in this process.
    outside = load_runtime(record(program), program, settings, "fp32")
    assert isinstance(outside, ConfinedRuntime)
    assert outside.name == runtime
    spec = ModelSpec.of(record(program), program)
    inside = select.load(spec, device="cpu", runtime=runtime, precision="fp32", threads=1, cache_dir=tmp_path)
    try:
        found, wanted = outside.submit(pixels).result(120), inside.submit(pixels).result(120)
        np.testing.assert_array_equal(found.logits, wanted.logits)
        np.testing.assert_array_equal(found.features, wanted.features)
    finally:
        outside.close()
        inside.close()


@pytest.mark.parametrize(
    ("patterns", "answer"),
    [("", False), ("other", False), ("mine", True), ("mine@1", False), ("x, mine@2", True), ("m*", True), ("*", True)],
)
def test_the_operator_trusts_by_name(program: Path, patterns: str, answer: bool) -> None:
    assert trusted(record(program), patterns) is answer


def test_code_of_ours_with_weights_needs_no_child(program: Path) -> None:
    assert trusted(record(program).model_copy(update={"family": "cnn"}), "")
