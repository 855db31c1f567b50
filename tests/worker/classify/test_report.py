"""The page of a classify job, made from the bucket: labels, scores, least certain images, errors."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from contract.data.label_rows import schema
from contract.errors import JobConflict
from contract.jobs.ends import read_end
from contract.jobs.lifecycle import Backend, close, reopen
from contract.jobs.specs import Classify
from contract.jobs.status import Retry, ShardCommit
from contract.keys.jobs import JobKeys
from contract.settings import Settings
from producer import Client
from tests.waiting import wait_until
from tests.worker.conftest import FakeEngine, FakeModels, Runners
from tests.worker.pages.test_page import Reader
from worker.classify import report
from worker.classify.sections import sections
from worker.classify.summary import LEAST_CERTAIN, Summary
from worker.control.finalize import finalize
from worker.engine.pipeline import Encoded, Labelled, Result
from worker.sources.fetch import Fetcher

Jobs = Callable[..., Classify]


class ScoringEngine(FakeEngine):
    """Scores an image by the lightness of its first frame, and labels it `odd` or `even` by its level."""

    @staticmethod
    def _label(item: Encoded) -> Result:
        if not isinstance(item, bytes) or item.startswith(b"!"):
            return FakeEngine._label(item)
        level = lightness(item)
        score = level / 255
        return Labelled((level % 2, 1 - level % 2), (score, 1 - score), 8, 8, hashlib.sha256(item).hexdigest())


def lightness(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return round(float(np.asarray(image.convert("L")).mean()))


def picture(level: int) -> bytes:
    sink = io.BytesIO()
    Image.new("L", (8, 8), level).save(sink, "PNG")
    return sink.getvalue()


def animation(*levels: int) -> bytes:
    sink = io.BytesIO()
    frames = [Image.new("L", (8, 8), level) for level in levels]
    frames[0].save(sink, "GIF", save_all=True, append_images=frames[1:])
    return sink.getvalue()


@pytest.fixture
def label(backend: Backend, job: Jobs, runner_of: Runners) -> Callable[..., Classify]:
    """Return a function that labels contents in shards of four, to the end of the job."""

    def run(*contents: bytes) -> Classify:
        spec = job(*contents)
        runner = runner_of("worker", FakeModels(ScoringEngine()))
        for shard in range(-(-len(contents) // 4)):
            runner.run(spec.id, shard)
        finalize(backend, spec.id)
        return spec

    return run


@pytest.fixture
def fetcher(backend: Backend) -> Iterator[Fetcher]:
    with closing(Fetcher(backend.store, 10_000, threads=2)) as made:
        yield made


def page_of(backend: Backend, fetcher: Fetcher, job: str = "job") -> Reader:
    report.write(backend, fetcher, job, max_pixels=1_000_000)
    return Reader(backend.store.get(JobKeys(job).report).decode())


def thumbnails(reader: Reader) -> list[int]:
    """Return the lightness of each thumbnail."""
    photos = [source for source in reader.sources if source.startswith("data:image/jpeg")]
    return [lightness(base64.b64decode(photo.partition(",")[2])) for photo in photos]


def test_it_shows_labels_scores_doubts_errors_and_speed(
    backend: Backend, fetcher: Fetcher, label: Callable[..., Classify]
) -> None:
    # Given images in three shards, two of them broken, and one of them there twice,
    levels = [250, 201, 30, 200, 100, 199, 30, 52, 151]
    label(*[picture(level) for level in levels], b"!", b"! too")

    # if I make its page,
    reader = page_of(backend, fetcher)

    # I expect what was counted,
    facts, errors, rate, workers = ({row[0]: row[1:] for row in table[1:]} for table in reader.tables)
    assert (facts["labelled"], facts["failed"], facts["different labels"]) == (["9"], ["2"], ["2"])
    assert errors == {"not_an_image": ["9", "It is none.", "2"]}
    assert workers["worker"][:3] == ["fake/fp32", "3", "11"]
    assert rate["rate"][0].endswith("images/s")
    # and the images in the order of certainty, least certain first, each once.
    assert thumbnails(reader) == pytest.approx([30, 52, 100, 151, 199, 200, 201, 250], abs=2)
    assert "even, 11.8\xa0%or odd, 88.2\xa0%2" in reader.text
    assert len([source for source in reader.sources if source.startswith("data:image/png")]) == 2


def test_an_image_that_is_gone_or_has_changed_is_a_gray_tile(
    backend: Backend, fetcher: Fetcher, label: Callable[..., Classify]
) -> None:
    label(*[picture(level) for level in (10, 20, 30, 40)])
    backend.store.delete("in/0")
    backend.store.put("in/2", picture(99))

    reader = page_of(backend, fetcher)

    assert thumbnails(reader) == pytest.approx([20, 40], abs=2)
    assert "not_foundeven, 3.9" in reader.text and "changedeven, 11.8" in reader.text


def test_a_sequence_is_shown_by_its_first_frame(
    backend: Backend, fetcher: Fetcher, label: Callable[..., Classify]
) -> None:
    label(animation(10, 200, 250), animation(90, 0))
    assert thumbnails(page_of(backend, fetcher)) == pytest.approx([10, 90], abs=2)


def test_a_job_that_ended_without_rows_has_its_facts(backend: Backend, fetcher: Fetcher, job: Jobs) -> None:
    job(b"\x02")
    close(backend, "job", "failed", "The source is <gone>.")
    reader = page_of(backend, fetcher)
    assert "The source is <gone>." in reader.text
    assert len(reader.tables) == 1


def test_a_resumed_job_has_no_page(backend: Backend, fetcher: Fetcher, label: Callable[..., Classify]) -> None:
    label(picture(10), b"!")
    page_of(backend, fetcher)

    # When it is retried its page goes, and none is made before it has ended again.
    backend.store.put(JobKeys("job").retry(1), Retry(number=1, shards=(0,)).to_json())
    reopen(backend, "job")
    report.write(backend, fetcher, "job", max_pixels=1_000_000)
    assert read_end(backend.store, "job") is None
    assert not backend.store.exists(JobKeys("job").report)


def test_an_outdated_page_is_removed(
    backend: Backend, fetcher: Fetcher, label: Callable[..., Classify], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a retry that begins while the page is drawn,
    label(picture(10), b"!")
    draw = sections

    def late(*args: object) -> object:
        backend.store.put(JobKeys("job").retry(1), Retry(number=1, shards=(0,)).to_json())
        reopen(backend, "job")
        return draw(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(report, "sections", late)
    report.write(backend, fetcher, "job", max_pixels=1_000_000)
    assert not backend.store.exists(JobKeys("job").report)


def test_only_a_classify_job_has_this_page(backend: Backend, fetcher: Fetcher, label: Callable[..., Classify]) -> None:
    label(picture(10))
    spec = backend.store.get(JobKeys("job").spec).decode()
    evaluate = spec.replace('"classify"', '"evaluate"')
    for name in ("top_k", "embed", "frames", "shard_size", "max_errors"):
        evaluate = "\n".join(line for line in evaluate.splitlines() if f'"{name}"' not in line)
    backend.store.put(JobKeys("job").spec, evaluate.encode())
    with pytest.raises(JobConflict, match="its kind is evaluate"):
        report.write(backend, fetcher, "job", max_pixels=1_000_000)


def test_a_client_waits_until_a_worker_has_made_the_page(
    backend: Backend, fetcher: Fetcher, settings: Settings, label: Callable[..., Classify]
) -> None:
    # Given a job that has ended, and a worker that makes its page when asked,
    label(picture(10), picture(20))
    queue = f"{backend.ledger.keys.broker_prefix}generate"

    def work() -> None:
        wait_until(lambda: backend.ledger.redis.llen(queue), 10, "the message")
        report.write(backend, fetcher, "job", max_pixels=1_000_000)

    worker = threading.Thread(target=work)
    worker.start()
    # if a client asks for it twice,
    with closing(Client(settings)) as client:
        first, second = client.report("job", timeout=20), client.report("job", timeout=0)
    worker.join()
    # I expect one page, made only once.
    assert first == second
    assert "Labels of job" in first
    assert backend.ledger.redis.llen(queue) == 1


# Many rows


def table(scores: np.ndarray, shard: int) -> pa.Table:
    n = len(scores)
    names = pa.array([f"{shard}/{at}" for at in range(n)])
    columns = {column.name: pa.nulls(n, column.type) for column in schema()}
    labels = pa.array([f"label {at % 7}" for at in range(n)])
    columns |= {"key": names, "uri": names, "sha256": names, "status": pa.array(["ok"] * n), "label": labels}
    return pa.table(columns | {"score": pa.array(scores.astype(np.float32))}, schema=schema())


def test_the_least_certain_of_all_shards_are_found_in_flat_memory() -> None:
    # Given many shards with scores that fall from shard to shard,
    rng = np.random.default_rng(0)
    scores = [rng.random(2000) - shard / 1000 for shard in range(30)]
    found = Summary()
    held = []
    tracemalloc.start()
    for shard, some in enumerate(scores):
        found.add(ShardCommit(shard=shard, items=len(some), ok=len(some), errors=0, worker="w"), table(some, shard))
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # I expect the lowest of all, and no more memory after the last shard than after the first.
    lowest = np.sort(np.concatenate(scores).astype(np.float32))[:LEAST_CERTAIN]
    assert [doubt.score for doubt in found.doubts] == pytest.approx(lowest.tolist())
    assert found.scores.sum() == found.ok == 60_000
    assert held[-1] - held[0] < 100_000
