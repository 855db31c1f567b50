"""A job can be stopped; what is labelled stays, and the rest can be taken up again."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import JobConflict
from producer import Client
from tests.fundamentals.conftest import MODEL, Label, Rows
from tests.gate import Gate
from tests.mill import Mill
from tests.waiting import wait_until


def test_cancel_then_resume(client: Client, mill: Mill, rows: Rows, gate: Gate, tmp_path: Path) -> None:
    # Given a job in the middle of its work, with a shard that is committed,
    many = gate.manifest(tmp_path / "many.jsonl", 320, free=16)
    job = client.classify(many, model=MODEL, shard_size=16).id
    wait_until(lambda: client.status(job).shards.done, 60, "a commit")

    # if I cancel it,
    canceled = client.cancel(job)

    # I expect it to have stopped before its end, and what is committed to stay;
    assert canceled.state == "canceled"
    assert client.status(job).state == "canceled"
    kept = {row["key"]: row for row in client.results(job)}
    assert 0 < len(kept) < 320

    # canceling twice is canceling once;
    assert client.cancel(job).state == "canceled"

    # and if I resume it, I expect the rest, each once, and the rows that were there as they were.
    gate.open()
    client.resume(job)
    end = mill.finished(job)
    assert end.state == "succeeded"
    found = rows(end)
    assert len(found) == 320
    assert {key: found[key] for key in kept} == kept


def test_what_is_over_is_neither_canceled_nor_resumed(client: Client, label: Label, folder: Path) -> None:
    job = label(folder).id

    with pytest.raises(JobConflict, match="has succeeded already; there is nothing to cancel"):
        client.cancel(job)
    with pytest.raises(JobConflict, match="has succeeded; there is nothing to resume"):
        client.resume(job)
    assert client.status(job).state == "succeeded"
