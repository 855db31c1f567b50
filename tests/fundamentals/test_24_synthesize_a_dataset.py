"""Synthesize a dataset: so many images of each class, each of which has passed every test."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from contract.errors import InvalidInput
from contract.jobs.status import Status
from producer import Client
from tests.fundamentals.conftest import Imagemill
from tests.fundamentals.test_23_generate_images import files_of, rows_of
from tests.mill import Mill

LENIENT: dict[str, Any] = {"gate": "critic", "min_score": 0.3, "shard_size": 64}


@pytest.fixture(scope="module")
def made(mill: Mill, client: Client, painter_and_critic: None, crops: Path) -> Status:
    job = client.synthesize(
        "painter", per_class=60, dedup=1e-4, away_from=crops, copy_distance=1e-4, job="made", **LENIENT
    )
    return mill.finished(job.id)


def test_each_class_has_as_many_as_were_asked_for(client: Client, made: Status) -> None:
    # Given a gate that is lenient, if I ask for 60 of each of four classes,
    assert (made.kind, made.state) == ("synthesize", "succeeded"), made.reason
    assert made.labels is not None and set(made.labels.values()) == {60}

    # I expect so many files, and each candidate as a row: accepted, or rejected for a reason.
    rows = rows_of(client, made)
    accepted = [row for row in rows if row["accepted"]]
    assert Counter(row["label"] for row in accepted) == made.labels
    assert files_of(client, made).keys() == {f"{row['key']}{end}" for row in accepted for end in (".png", ".json")}
    assert made.total == made.done == len(rows)
    for row in rows:
        assert (row["reject_reason"] is None) == row["accepted"] == (row["sha256"] is not None)
        if row["accepted"]:
            assert row["predicted"] == row["label"] and row["score"] >= 0.3
            assert row["copy_distance"] >= 1e-4
        if row["reject_reason"] == "class":
            assert row["predicted"] != row["label"]


def test_the_accepted_are_the_first_that_pass(client: Client, made: Status) -> None:
    by_class: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows_of(client, made):
        by_class[row["label"]].append(row)
    for rows in by_class.values():
        rows.sort(key=lambda row: row["index"])
        assert [row["index"] for row in rows] == list(range(len(rows))), "no candidate is left out"
        last = max(n for n, row in enumerate(rows) if row["accepted"])
        assert all(row["reject_reason"] in ("class", "score", "copy", "surplus") for row in rows[last + 1 :])
        assert all(row["reject_reason"] != "surplus" for row in rows[:last])


def test_the_same_again_whatever_the_shards(mill: Mill, client: Client, made: Status, crops: Path) -> None:
    """Shards of another size: another wave structure would change nothing, for candidates are numbered."""
    again = client.synthesize(
        "painter", per_class=60, dedup=1e-4, away_from=crops, copy_distance=1e-4, **(LENIENT | {"shard_size": 128})
    )
    assert accepted(client, mill.finished(again.id)) == accepted(client, made)


def test_its_page_shows_what_was_made_before_it_says_it(client: Client, made: Status) -> None:
    page = client.report(made.id)
    for said in ("giant-panda", "Acceptance", "Distances to real images", "Fréchet"):
        assert said in page, said
    assert page.count('src="data:image/png') >= 4 + 2, "sheets, pairs, scores"
    assert page.index("<img") < page.index("<table")
    assert "http://" not in page and "https://" not in page
    assert made.metrics is not None and made.metrics["accepted"] == 240
    assert made.metrics["frechet_distance"] > 0


def test_near_duplicates_are_rejected(mill: Mill, client: Client, made: Status) -> None:
    # Given how far accepted images lie from each other, which differs from machine to machine,
    all_kept = mill.finished(client.synthesize("painter", per_class=10, dedup=1e-9, max_attempts=4, **LENIENT).id)
    apart = sorted(row["duplicate_distance"] for row in rows_of(client, all_kept) if row["duplicate_distance"])
    dedup = apart[len(apart) // 2]

    # if half of them count as duplicates, I expect each to say of how near an image, and the others to be farther.
    job = mill.finished(client.synthesize("painter", per_class=10, dedup=dedup, max_attempts=4, **LENIENT).id)
    rejected = Counter(row["reject_reason"] for row in rows_of(client, job))
    assert rejected["duplicate"] > 0
    for row in rows_of(client, job):
        if row["reject_reason"] == "duplicate":
            assert row["duplicate_distance"] < dedup
        elif row["accepted"] and row["duplicate_distance"] is not None:
            assert row["duplicate_distance"] >= dedup


def test_a_class_that_falls_short_ends_the_job_with_what_there_is(mill: Mill, client: Client, made: Status) -> None:
    # Given a gate that nothing passes surely enough, if I ask for five of each,
    job = client.synthesize("painter", gate="critic", min_score=1.0, per_class=5, max_attempts=3)
    found = mill.finished(job.id)

    # I expect the end to say by how much each class falls short, and the rejects to be recorded.
    assert found.state == "failed"
    assert "After 60 candidates" in str(found.reason) and "of 5" in str(found.reason)
    assert len(rows_of(client, found)) == 4 * 15


def test_a_synthesis_every_night(mill: Mill, imagemill: Imagemill, client: Client, made: Status) -> None:
    # Given a schedule that names a gate by its alias, as the command line gives it,
    client.set_alias("critic@1", "stable")
    asked = [
        "--model",
        "painter",
        "--gate",
        "critic@stable",
        "--per-class",
        "5",
        "--min-score",
        "0.3",
        "--class",
        "koala",
    ]
    words = ["synthesize", *asked]
    code, added, _ = imagemill("schedule", "add", "nightly", "--cron", "0 2 * * *", "--", *words)
    assert code == 0 and "synthesize painter" in added

    # if a tick comes, I expect a job of the version that this is now, and other images at each tick,
    jobs = [mill.finished(client.run_schedule("nightly").id) for _ in range(2)]
    assert [job.labels for job in jobs] == [{"koala": 5}] * 2
    assert not {sha256 for _, sha256 in accepted(client, jobs[0])} & {sha for _, sha in accepted(client, jobs[1])}
    client.remove_schedule("nightly")

    # or the same, of a seed that is a number.
    assert imagemill("schedule", "add", "same", "--cron", "0 2 * * *", "--", *words, "--seed", "7")[0] == 0
    jobs = [mill.finished(client.run_schedule("same").id) for _ in range(2)]
    assert accepted(client, jobs[0]) == accepted(client, jobs[1])
    client.remove_schedule("same")


def test_what_is_accepted_can_be_learnt_from(mill: Mill, client: Client, made: Status) -> None:
    settings = ["size=16", "batch_size=32", "ema=0.9", "variant=classic", "learning_rate=0.02"]
    job = mill.finished(client.train("cnn", f"job:{made.id}", name="pupil-of-painter", epochs=2, settings=settings).id)
    assert job.state == "succeeded", job.reason
    pupil, painter = client.model("pupil-of-painter"), client.model("painter")
    assert pupil.labels == painter.labels
    assert pupil.data["images"] + pupil.data["held_out"] == 240  # type: ignore[operator]


def test_what_cannot_be_is_told_before_anything_is_queued(client: Client, made: Status) -> None:
    with pytest.raises(InvalidInput, match="classes with --gate"):
        client.synthesize("painter", gate="efficientnet-lite0", per_class=1)
    with pytest.raises(InvalidInput, match="--min-score"):
        client.synthesize("painter", gate="critic", per_class=1, min_score=2)


def accepted(client: Client, job: Status) -> set[tuple[str, str]]:
    """Key and hash of what was accepted."""
    return {(row["key"], row["sha256"]) for row in rows_of(client, job) if row["accepted"]}
