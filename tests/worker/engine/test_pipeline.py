"""A shard of encoded images in, a result for each out, in order; the model is a few lines of numpy."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from contract.errors import DeviceOutOfMemory, ImageNotFound, TooManyBytes
from contract.models.registry import Preprocess
from tests.waiting import wait_until
from worker.engine.images import decoders
from worker.engine.pipeline import Encoded, Engine, Failed, Labelled, Result, top_k
from worker.engine.types import Output, Precision

PREPROCESS = Preprocess(size=8, crop=1.0, mean=0.0, std=1.0)


class FakeRuntime:
    """Calls the gray level of an image its class. `late` answers from another thread, as a GPU does."""

    name, device, lanes = "fake", "none", 2
    precision: Precision = "fp32"
    batch_size = 4

    def __init__(self, *, late: bool) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.images = 0
        self.batches: list[int] = []
        self.waiting = 0
        self.error: Exception | None = None
        self._late = late
        self._lock = threading.Lock()

    def submit(self, pixels: NDArray[np.uint8], lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        assert pixels.shape[1:] == (8, 8, 3)
        assert len(pixels) <= self.batch_size
        with self._lock:  # lanes submit at once
            self.images += len(pixels)
            self.batches.append(len(pixels))
        future: Future[Output] = Future()
        if self._late:
            with self._lock:
                self.waiting += 1
            threading.Thread(target=self._answer, args=(pixels, future)).start()
        else:
            self._answer(pixels, future)
        return future

    def close(self) -> None: ...

    def _answer(self, pixels: NDArray[np.uint8], future: Future[Output]) -> None:
        assert self.gate.wait(10)
        if self.error:
            future.set_exception(self.error)
            return
        levels = pixels[:, 0, 0, 0]
        logits = np.zeros((len(pixels), 256), np.float32)
        logits[np.arange(len(pixels)), levels] = 5.0
        future.set_result(Output(logits, levels[:, None].astype(np.float32)))


@pytest.fixture(params=[False, True], ids=["inline", "late"])
def runtime(request: pytest.FixtureRequest) -> FakeRuntime:
    return FakeRuntime(late=request.param)


@pytest.fixture
def engine(runtime: FakeRuntime) -> Iterator[Engine]:
    engine = Engine(runtime, preprocess=PREPROCESS, max_pixels=10**6)
    yield engine
    runtime.gate.set()
    engine.close()


def gray(level: int, width: int = 10, height: int = 20) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height), level).save(file, "PNG")
    return file.getvalue()


def labels(results: list[Result]) -> list[int | str]:
    return [r.indices[0] if isinstance(r, Labelled) else r.error.code for r in results]


def test_each_image_gets_its_result_in_order(engine: Engine) -> None:
    assert labels(engine.submit([gray(n) for n in range(50)]).result(10)) == list(range(50))


def test_a_result_tells_all_that_a_row_needs(engine: Engine) -> None:
    data = gray(7, 30, 40)
    (result,) = engine.submit([data], top_k=3, features=True).result(10)
    assert isinstance(result, Labelled)
    assert result.indices == (7, 0, 1)
    assert result.scores[0] == pytest.approx(np.exp(5) / (np.exp(5) + 255))
    assert (result.width, result.height) == (30, 40)
    assert result.sha256 == hashlib.sha256(data).hexdigest()
    assert result.features is not None
    assert result.features.tolist() == [7.0]


def test_features_are_left_out_unless_asked_for(engine: Engine) -> None:
    (result,) = engine.submit([gray(7)]).result(10)
    assert isinstance(result, Labelled)
    assert result.features is None
    assert len(result.indices) == len(result.scores) == 5


def test_a_bad_image_harms_no_other(engine: Engine) -> None:
    # Given a shard with one of each kind of bad image among good ones,
    items: list[Encoded] = [
        gray(1),
        b"",
        gray(2),
        b"text",
        ImageNotFound("gone"),
        gray(3)[:45],
        TooManyBytes("large"),
        gray(9, 2000, 2000),
        gray(4),
    ]
    # if it is run, I expect a code for each bad one and a label for each good one.
    assert labels(engine.submit(items).result(10)) == [
        1,
        "empty_file",
        2,
        "not_an_image",
        "not_found",
        "truncated",
        "too_many_bytes",
        "too_many_pixels",
        4,
    ]


def test_a_failure_knows_the_file_but_does_not_keep_it(engine: Engine) -> None:
    bad, gone = engine.submit([b"text", ImageNotFound("gone")]).result(10)
    assert isinstance(bad, Failed)
    assert isinstance(gone, Failed)
    assert (bad.sha256, gone.sha256) == (hashlib.sha256(b"text").hexdigest(), None)
    assert bad.error.__traceback__ is None
    assert bad.error.__cause__ is None


def test_a_shard_of_bad_images_only_needs_no_device(engine: Engine, runtime: FakeRuntime) -> None:
    assert labels(engine.submit([b""] * 10).result(10)) == ["empty_file"] * 10
    assert runtime.images == 0


def test_an_empty_shard_is_done(engine: Engine) -> None:
    assert engine.submit([]).result(10) == []


def test_a_decoder_that_breaks_its_promise_is_one_bad_row(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes, *args: object, **kwargs: object) -> object:
        raise ZeroDivisionError("by a pixel")

    monkeypatch.setattr(decoders, "open_item", broken)
    assert labels(engine.submit([gray(1)]).result(10)) == ["decode_failed"]


def test_many_threads_share_one_engine(engine: Engine) -> None:
    found: dict[int, list[int | str]] = {}

    def shard(n: int) -> None:
        found[n] = labels(engine.submit([gray((n + i) % 256) for i in range(30)]).result(10))

    threads = [threading.Thread(target=shard, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [(n + i) % 256 for i in range(30)] for n in range(8)}


def test_a_device_failure_fails_the_shard_and_not_the_engine(engine: Engine, runtime: FakeRuntime) -> None:
    runtime.error = DeviceOutOfMemory("full")
    with pytest.raises(DeviceOutOfMemory):
        engine.submit([gray(n) for n in range(20)]).result(10)
    runtime.error = None
    assert labels(engine.submit([gray(3)]).result(10)) == [3]


def test_canceling_a_shard_skips_what_no_lane_has_taken(engine: Engine, runtime: FakeRuntime) -> None:
    # Given a device that is stuck,
    runtime.gate.clear()
    future = engine.submit([gray(1)] * 400)
    # if the shard is canceled before the device goes on,
    assert future.cancel()
    runtime.gate.set()
    with pytest.raises(CancelledError):
        future.result(10)
    # I expect no more than the batches that were under way to have run.
    assert labels(engine.submit([gray(2)]).result(10)) == [2]
    assert runtime.images <= 10 * runtime.batch_size


def test_lanes_do_not_wait_for_a_late_device_but_stay_bounded() -> None:
    # Given two lanes and a device that answers nothing yet,
    runtime = FakeRuntime(late=True)
    runtime.gate.clear()
    engine = Engine(runtime, preprocess=PREPROCESS, max_pixels=10**6)
    future = engine.submit([gray(1)] * 400)
    # I expect them to run ahead of it, but only by so many batches.
    ahead = threading.Event()
    while runtime.waiting < 4:
        ahead.wait(0.01)
    ahead.wait(0.1)
    assert runtime.waiting == 4
    runtime.gate.set()
    assert len(future.result(10)) == 400
    engine.close()


def test_one_chunk_is_decoded_while_every_core_of_the_device_computes() -> None:
    # Given a device that computes on the lanes, two batches at a time, and does not end,
    runtime = FakeRuntime(late=False)
    runtime.gate.clear()
    engine = Engine(runtime, preprocess=PREPROCESS, max_pixels=10**6)
    future = engine.submit([gray(1)] * 40)
    # I expect a third batch to be ready for it, so that no core waits for a decoder.
    wait_until(lambda: runtime.images == 12)
    runtime.gate.set()
    assert len(future.result(10)) == 40
    engine.close()


def test_closing_finishes_what_was_submitted(runtime: FakeRuntime) -> None:
    engine = Engine(runtime, preprocess=PREPROCESS, max_pixels=10**6)
    futures = [engine.submit([gray(n)] * 20) for n in range(5)]
    engine.close()
    assert [labels(future.result(0)) for future in futures] == [[n] * 20 for n in range(5)]
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit([gray(1)])


def test_top_k_is_a_softmax_and_ties_go_to_the_lower_index() -> None:
    logits = np.array([[0, 3, 3, 1], [1000, -1000, 0, 1000]], np.float32)
    indices, scores = top_k(logits, 3)
    assert indices.tolist() == [[1, 2, 3], [0, 3, 2]]
    whole = np.exp(3) * 2 + np.exp(1) + 1
    assert scores[0] == pytest.approx([np.exp(3) / whole, np.exp(3) / whole, np.exp(1) / whole])
    assert scores[1] == pytest.approx([0.5, 0.5, 0.0])


def test_top_k_of_more_classes_than_there_are_gives_all() -> None:
    assert top_k(np.zeros((2, 3), np.float32), 10)[0].shape == (2, 3)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_top_k_is_what_sorting_all_scores_gives(k: int) -> None:
    # Given rows of which some tie at the last place that counts, one in which all tie, and some that hold NaN,
    logits = np.random.default_rng(k).integers(-6, 6, (50, 40)).astype(np.float32)
    logits[0] = 3
    logits[1, ::7], logits[2, 1:], logits[3] = np.nan, np.nan, np.nan

    # I expect the first of a stable sort.
    indices, scores = top_k(logits, k)
    assert indices.tolist() == np.argsort(-logits, axis=1, kind="stable")[:, :k].tolist()
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    all_scores = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert np.array_equal(scores, np.take_along_axis(all_scores, indices, axis=1), equal_nan=True)


def test_what_somebody_waits_for_is_spread_over_lanes_that_nobody_else_waits_for(
    engine: Engine, runtime: FakeRuntime
) -> None:
    # Given four images that were asked for while nobody waited for others, and four more that were asked for then,
    runtime.gate.clear()
    asked = [engine.submit([gray(n) for n in (1, 2, 3, 4)], first=True) for _ in range(2)]
    runtime.gate.set()
    assert [labels(found.result(10)) for found in asked] == [[1, 2, 3, 4]] * 2
    # I expect the first ones to be spread over both lanes, and the others to be one batch,
    assert sorted(runtime.batches) == [2, 2, 4]
    # and, soon after all are answered, the next ones to be spread again.

    def spread() -> bool:
        runtime.batches.clear()
        assert labels(engine.submit([gray(5)] * 4, first=True).result(10)) == [5] * 4
        return runtime.batches == [2, 2]

    wait_until(spread, 20, "two batches")


def test_what_somebody_waits_for_is_decoded_first_and_on_all_lanes(engine: Engine, runtime: FakeRuntime) -> None:
    # Given lanes that are busy, and a long shard that waits,
    runtime.gate.clear()
    shard = engine.submit([gray(1)] * 200)
    # if I ask for four images at once,
    first = engine.submit([gray(n) for n in (1, 2, 3, 4)], first=True)
    order: list[str] = []
    first.add_done_callback(lambda _: order.append("first"))
    shard.add_done_callback(lambda _: order.append("shard"))
    runtime.gate.set()
    # I expect them before the shard is done.
    assert labels(first.result(10)) == [1, 2, 3, 4]
    assert labels(shard.result(30)) == [1] * 200
    assert order[0] == "first"
