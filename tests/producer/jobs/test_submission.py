"""The id of a job to which nobody gave one."""

from __future__ import annotations

import re
import secrets

import pytest

from contract.jobs.kinds import KINDS
from contract.jobs.specs import JOB_ID
from producer.jobs.submission import new_job_id


@pytest.mark.parametrize("command", KINDS)
def test_an_id_sorts_by_time_and_is_one_of_billions_of_its_second(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two jobs of one id would be one job, or a conflict, and an API takes many jobs in a second.
    drawn: list[int | None] = []

    def draw(bytes: int | None = None) -> str:
        drawn.append(bytes)
        return "7f3a09c4"

    monkeypatch.setattr(secrets, "token_hex", draw)
    id = new_job_id(command)
    assert re.fullmatch(rf"{command}-\d{{8}}-\d{{6}}-7f3a09c4", id) and drawn == [4]
    assert re.fullmatch(JOB_ID, id)
