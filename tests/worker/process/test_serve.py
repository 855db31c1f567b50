"""What a worker process does with a message that it cannot serve. No Celery: a message is a call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from contract.backend.broker import make_app
from contract.backend.trouble import Trouble
from contract.jobs.ends import read_end
from contract.jobs.lifecycle import Backend
from contract.settings import Settings
from tests.worker.conftest import Jobs
from worker.process.process import Process


@pytest.fixture
def process(settings: Settings, backend: Backend) -> Iterator[Process]:
    made = Process(make_app(settings), settings)
    yield made
    made.stop()


def test_a_kind_that_only_a_newer_version_knows_ends_with_a_sentence_and_not_as_another_kind(
    backend: Backend, process: Process, settings: Settings, job: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job of a kind that this worker does not know,
    job(b"\x01", b"\x02")
    redis: Any = backend.ledger.redis
    redis.hset(backend.ledger.keys.job("job")[0], "kind", "count")

    # if workers like it try, I expect each to count an attempt, to make nothing of the shard, and to stay.
    monkeypatch.setattr(Trouble, "pause", lambda _: 0.0)
    for attempt in range(settings.max_attempts):
        assert read_end(backend.store, "job") is None, attempt
        process.messages.run("classify")
    end = read_end(backend.store, "job")
    assert end is not None and end.state == "failed"
    assert "jobs of kind count are unknown; upgrade Imagemill there" in str(end.reason)
    assert "`imagemill resume job`" in str(end.reason)
    assert not list(backend.store.list("jobs/job/commit/"))
    assert process.leaving.exit_code == 0


def test_a_ticket_for_which_there_is_nothing_does_nothing(
    backend: Backend, process: Process, job: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    job(b"\x01")
    backend.ledger.redis.flushall()
    process.messages.run("classify")
    assert backend.ledger.state("job") is None
    assert not caplog.records


def test_a_page_that_cannot_be_made_is_no_error_of_the_worker(
    process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    process.messages.finish("nowhere")
    assert "There is no job 'nowhere'" in caplog.text
