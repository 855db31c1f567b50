"""Redis may be wiped. Whatever is known of a job is in the bucket, and comes back from there.

What happens to a job that runs meanwhile is in `tests/faults`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.jobs.status import Status
from producer import Client
from tests.fundamentals.conftest import Label, Rows
from tests.mill import Mill


@pytest.fixture
def ended(label: Label, folder: Path) -> Status:
    """A job with three labels and a failure."""
    (folder / "koala.jpg").write_bytes(b"no image")
    return label(folder, shard_size=2)


@pytest.fixture
def wiped(mill: Mill, ended: Status) -> Status:
    """The same, after everything in Redis is gone. It is this folder's own Redis."""
    mill.client.backend.ledger.redis.flushall()
    return ended


def test_an_ended_job_is_as_it_was(client: Client, rows: Rows, wiped: Status) -> None:
    assert client.status(wiped.id) == wiped
    assert client.jobs()[0] == wiped
    assert len(rows(wiped)) == 4
    assert [row["key"] for row in client.errors(wiped.id)] == ["koala.jpg"]


def test_rebuild_writes_the_books_anew(client: Client, rows: Rows, wiped: Status) -> None:
    before = client.jobs()

    rebuilt = list(client.rebuild())

    assert {status.id for status in rebuilt} == {status.id for status in before}
    assert wiped in rebuilt
    assert [job for job in client.jobs() if job.ended] == [job for job in before if job.ended]
    # It is as harmless twice as once.
    assert list(client.rebuild([wiped.id])) == [wiped]


def test_a_failed_image_can_be_retried(client: Client, mill: Mill, rows: Rows, wiped: Status) -> None:
    client.retry(wiped.id)

    again = mill.finished(wiped.id)

    assert (again.state, again.ok, again.errors) == ("succeeded", 3, 1)
    assert len(rows(again)) == 4


def test_the_next_job_goes_on_as_if_nothing_had_been(label: Label, rows: Rows, wiped: Status, folder: Path) -> None:
    job = label(folder)

    assert (job.state, len(rows(job))) == ("succeeded", 4)
