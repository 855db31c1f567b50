"""Whoever follows a job that no live worker can run reads why it stands still."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from contract.backend.heartbeats import Worker
from contract.jobs.status import Status
from producer import Client
from producer.cli.follow import follow_to_end


@dataclass
class Told:
    """A client that has seen these states of a job."""

    states: list[Status] = field(default_factory=list)

    def follow(self, job: str) -> Iterator[Status]:
        yield from self.states

    def workers(self) -> list[Worker]:
        return [Worker("w", {"queues": "classify"})]


def test_what_a_job_waits_for_is_said_once_and_again_when_it_is_another(capfd: pytest.CaptureFixture[str]) -> None:
    lacks = [None, "memory", "memory", None, "torch", "torch", None]
    states = [Status(id="j", kind="classify", state="running", created_at="", waiting_for=what) for what in lacks]
    states.append(Status(id="j", kind="classify", state="succeeded", created_at=""))
    follow_to_end(cast("Client", Told(states)), "j", as_json=True)
    lines = [line for line in capfd.readouterr().err.splitlines() if "waits for" in line]
    assert lines == ["j waits for memory.", "j waits for torch."]
