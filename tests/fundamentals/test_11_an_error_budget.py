"""Some failures are life; too many mean that something is wrong. `max_errors` says how many."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput
from producer import Client
from tests.fundamentals.conftest import MODEL, Label, Rows
from tests.mill import Mill


@pytest.mark.parametrize(
    ("budget", "state"),
    [("100%", "succeeded"), ("50%", "succeeded"), ("2", "succeeded"), ("49%", "failed"), ("1", "failed")],
)
def test_a_share_or_a_count(label: Label, folder: Path, budget: str, state: str) -> None:
    # Given four photos, two of them broken,
    (folder / "koala.jpg").write_bytes(b"")
    (folder / "espresso.jpg").write_bytes(b"no image")

    # if half of them may fail, or two, I expect success, and with less a failure.
    job = label(folder, max_errors=budget)

    assert (job.state, job.errors) == (state, 2)


def test_a_job_over_its_budget_is_repaired_and_retried(
    client: Client, mill: Mill, label: Label, rows: Rows, camera: ObjectStore, photos: dict[str, Path]
) -> None:
    names = ["alpaca", "camels", "cheetah", "crab", "dam", "koala"]
    for name in names:
        camera.put(f"budget/{name}.jpg", photos[name].read_bytes())
    camera.put("budget/alpaca.jpg", b"broken")

    # Given a job that failed because more than 1 % of its images did,
    failed = label("s3://camera/budget/", max_errors="1%", shard_size=2)
    assert failed.state == "failed"
    assert failed.reason == "1 of 6 images failed, more than --max-errors 1% allows."

    # if I resume it as it is, I expect the same answer,
    client.resume(failed.id)
    again = mill.finished(failed.id)
    assert (again.state, again.reason) == (failed.state, failed.reason)

    # and if I repair what is broken and retry, all of it, each image once.
    camera.put("budget/alpaca.jpg", photos["alpaca"].read_bytes())
    client.retry(failed.id)
    end = mill.finished(failed.id)
    assert (end.state, end.ok, end.errors, end.reason) == ("succeeded", 6, 0, None)
    assert set(rows(end)) == {f"budget/{name}.jpg" for name in names}


def test_five_percent_unless_told_otherwise(
    client: Client, mill: Mill, tmp_path: Path, photos: dict[str, Path]
) -> None:
    # Given twenty photos, one of them broken, that is 5 %, if I name no budget, I expect success,
    for n in range(20):
        (tmp_path / f"{n:02d}.jpg").write_bytes(photos["koala"].read_bytes() if n else b"no image")
    first = mill.finished(client.classify(tmp_path, model=MODEL).id)
    assert (first.state, first.errors) == ("succeeded", 1)

    # and with one photo less a failure that names the budget.
    (tmp_path / "19.jpg").unlink()
    second = mill.finished(client.classify(tmp_path, model=MODEL).id)
    assert second.state == "failed"
    assert second.reason == "1 of 19 images failed, more than --max-errors 5% allows."


@pytest.mark.parametrize("budget", ["many", "-1", "101%", "1.5", ""])
def test_a_budget_that_is_none(client: Client, folder: Path, budget: str) -> None:
    with pytest.raises(InvalidInput, match=r"^--max-errors: .* is neither a count such as 50 nor a share"):
        client.classify(folder, model=MODEL, max_errors=budget)
