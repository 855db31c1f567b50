"""An unforeseen error while a job of images is ended: the next process tries, and only the last ends the job."""

from __future__ import annotations

from typing import Any, cast

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import StoreRefused
from contract.jobs.ends import Standing, read_end, read_standing
from contract.jobs.lifecycle import Backend, cancel, reopen
from contract.jobs.specs import Generate
from contract.keys.jobs import JobKeys
from tests.attacks.test_fencing import JOB, NamedModels, run, spec
from worker.generation.finalize_images import ImagesFinalizer

__all__ = ["run", "spec"]  # fixtures


def finalizer(backend: Backend, process: str, *, broken: bool, fault_seconds: float = 0.0) -> ImagesFinalizer:
    """The finalizer of a process; a broken one raises what nobody foresaw."""

    def page(spec: Any, stats: Any) -> dict[str, float]:
        if broken:
            raise OSError(5, "Input/output error")
        return {}

    return ImagesFinalizer(
        backend,
        cast("Any", NamedModels()),
        lambda spec: page,
        lock_seconds=30,
        process=process,
        max_attempts=3,
        fault_seconds=fault_seconds,
    )


@pytest.fixture
def made(spec: Generate, run: Any, store: ObjectStore) -> Generate:
    """A job whose shards are all committed."""
    run(0)
    run(1)
    return spec


def test_a_fault_of_one_machine_is_another_attempt(backend: Backend, made: Generate) -> None:
    # Given a machine whose disk fails while it ends a job,
    finalizer(backend, "bad", broken=True).run(JOB)
    assert read_end(backend.store, JOB) is None
    assert backend.ledger.state(JOB) == "finalizing"

    # if the message comes to the same process again, I expect that it leaves the job to others,
    finalizer(backend, "bad", broken=False).run(JOB)
    assert read_end(backend.store, JOB) is None

    # and that another process ends it as if nothing had happened.
    finalizer(backend, "good", broken=False).run(JOB)
    end = read_end(backend.store, JOB)
    assert end is not None and (end.state, end.total) == ("succeeded", 20)


def test_only_the_last_attempt_ends_the_job(backend: Backend, made: Generate) -> None:
    # Given an error that every process meets, I expect an end with a reason after the third, not before.
    for process in ("first", "second"):
        finalizer(backend, process, broken=True).run(JOB)
        assert read_end(backend.store, JOB) is None
    finalizer(backend, "third", broken=True).run(JOB)
    end = read_end(backend.store, JOB)
    assert end is not None and end.state == "failed"
    assert "3 attempts in 3 processes" in str(end.reason) and "Input/output error" in str(end.reason)

    # If it is resumed once the cause is mended, I expect that the old faults count no more.
    reopen(backend, JOB)
    finalizer(backend, "third", broken=True).run(JOB)
    assert backend.ledger.state(JOB) == "finalizing"
    finalizer(backend, "fourth", broken=False).run(JOB)
    end = read_end(backend.store, JOB)
    assert end is not None and end.state == "succeeded"


def test_a_job_that_was_canceled_and_resumed_meanwhile_goes_on(backend: Backend, made: Generate) -> None:
    # Given a job that somebody cancels and resumes while it is ended, which then fails,
    def page(spec: Any, stats: Any) -> dict[str, float]:
        cancel(backend, JOB)
        reopen(backend, JOB)
        raise StoreRefused("The page cannot be written.")

    ImagesFinalizer(backend, cast("Any", NamedModels()), lambda spec: page, lock_seconds=30).run(JOB)

    # I expect the run that was opened to be open, and the next attempt to end it.
    assert read_standing(backend.store, JOB) == Standing(1, None)
    finalizer(backend, "good", broken=False).run(JOB)
    end = read_end(backend.store, JOB)
    assert end is not None and end.state == "succeeded"


def test_attempts_in_quick_succession_end_nothing(backend: Backend, made: Generate) -> None:
    # Given a fault that all processes share for a moment, such as a full disk, I expect no end before its time.
    for process in range(5):
        finalizer(backend, str(process), broken=True, fault_seconds=120).run(JOB)
    assert read_end(backend.store, JOB) is None

    # Damaged counts are no counts.
    backend.store.put(JobKeys(JOB).finishing, b"{")
    finalizer(backend, "4", broken=False).run(JOB)
    end = read_end(backend.store, JOB)
    assert end is not None and end.state == "succeeded"
