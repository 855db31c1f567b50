"""A job has one id and one spec. Asking twice is asking once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contract.errors import InvalidInput, JobConflict
from producer import Client
from tests.fundamentals.conftest import MODEL, Label, Rows
from tests.mill import Mill


def test_the_same_again_is_the_same_job(client: Client, label: Label, rows: Rows, folder: Path) -> None:
    # Given a job that I named,
    first = label(folder, job="holiday-1")

    # if I ask for the same again, by another spelling of the same folder,
    again = client.classify(f"{folder}/../{folder.name}/", model=MODEL, job="holiday-1", max_errors="100%")

    # I expect the job that is there, and nothing labelled twice.
    assert again == first
    assert len(rows(again)) == 4


def test_another_spec_under_the_same_id_is_refused(client: Client, label: Label, folder: Path) -> None:
    label(folder, job="holiday-2")

    with pytest.raises(JobConflict, match=r"'holiday-2' exists with top_k 5, not 3; choose another --job"):
        client.classify(folder, model=MODEL, job="holiday-2", max_errors="100%", top_k=3)
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "koala.jpg").symlink_to(folder / "koala.jpg")
    with pytest.raises(JobConflict, match=r"exists with the source .*photos, not .*elsewhere"):
        client.classify(folder.parent / "elsewhere", model=MODEL, job="holiday-2", max_errors="100%")


def test_two_who_ask_at_the_same_instant(mill: Mill, client: Client, rows: Rows, many: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(client.classify, many, model=MODEL, job="holiday-3", shard_size=32) for _ in range(2)]
        ids = {future.result().id for future in asked}

    job = mill.finished("holiday-3")

    assert ids == {"holiday-3"}
    assert (job.state, len(rows(job))) == ("succeeded", 320)


@pytest.mark.parametrize("id", ["Holiday", "a job", "../up", "-x", "x" * 64, "ä"])
def test_an_id_is_plain(client: Client, folder: Path, id: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be a job id; use up to 63 of a-z, 0-9 and -"):
        client.classify(folder, model=MODEL, job=id)
