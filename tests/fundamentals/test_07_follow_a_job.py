"""How far is it? Ask once, or follow it to its end."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path

import pytest

from contract.errors import UnknownJob
from producer import Client
from tests.fundamentals.conftest import MODEL, Label
from tests.gate import Gate
from tests.mill import Mill

ORDER = ["queued", "planning", "running", "finalizing", "succeeded"]


def test_a_job_can_be_followed_to_its_end(client: Client, gate: Gate, tmp_path: Path) -> None:
    # Given a job that was just begun, most of whose images take longer,
    many = gate.manifest(tmp_path / "many.jsonl", 320, free=32)
    begun = client.classify(many, model=MODEL, shard_size=32)

    # if I follow it,
    seen = []
    for status in client.follow(begun.id):
        seen.append(status)
        if status.state == "running" and status.done:
            gate.open()

    # I expect its states in their order, the last an end, and numbers that only grow,
    states = [ORDER.index(status.state) for status in seen]
    assert states == sorted(states)
    assert [status.ended for status in seen] == [False] * (len(seen) - 1) + [True]
    assert any(status.state == "running" and 0 < status.done < 320 for status in seen)
    done = [status.done for status in seen]
    assert done == sorted(done)

    # a rate and what is left while it runs,
    running = next(status for status in seen if status.state == "running" and status.done)
    assert running.images_per_second is not None
    assert running.images_per_second > 0
    assert running.eta_seconds is not None
    assert running.shards.total == 10

    # and totals and times at the end.
    end = seen[-1]
    assert (end.state, end.total, end.done, end.ok, end.errors) == ("succeeded", 320, 320, 320, 0)
    assert (end.shards.done, end.shards.running, end.shards.queued) == (10, 0, 0)
    assert (end.kind, end.model, end.source) == ("classify", f"{MODEL}@1", str(many))
    assert end.started_at is not None
    assert end.finished_at is not None
    times = [datetime.fromisoformat(t) for t in (end.created_at, end.started_at, end.finished_at)]
    assert times == sorted(times)


def test_following_can_be_left(client: Client, mill: Mill, folder: Path) -> None:
    job = client.classify(folder, model=MODEL)
    stop = threading.Event()

    for _ in client.follow(job.id, stop):
        stop.set()

    assert mill.finished(job.id).state == "succeeded"


def test_jobs_are_listed_newest_first(client: Client, label: Label, folder: Path) -> None:
    first, second = label(folder), label(folder)

    newest = client.jobs()[:2]

    assert [status.id for status in newest] == [second.id, first.id]
    assert newest[0] == client.status(second.id)


def test_a_job_that_is_none(client: Client) -> None:
    for ask in (client.status, client.results, client.errors, client.cancel, client.resume, client.retry):
        with pytest.raises(UnknownJob, match="There is no job 'nobody'; `imagemill jobs` lists them"):
            ask("nobody")
