"""A job's share of the slots: asked for, changed later, and kept when Redis is wiped."""

from __future__ import annotations

from typing import Any

import pytest

from contract.errors import InvalidInput, JobConflict
from contract.jobs.lifecycle import Backend, close, rebuild, set_share, submit
from contract.jobs.options import Share, check_share
from tests.contract.backend.test_ledger import spec_of


def asked(id: str, bucket: str, **fields: Any) -> object:
    return spec_of(id, output=f"s3://{bucket}/jobs/{id}/out/", **fields)


def test_a_share_that_was_set_and_the_owner_outlive_redis(backend: Backend) -> None:
    # Given a job of somebody, with a share of its own, of which somebody changes a part,
    submit(backend, asked("job", backend.store.bucket, priority="low", weight=2), "ann")  # type: ignore[arg-type]
    before = backend.ledger.status("job")
    assert before is not None
    assert (before.owner, before.priority, before.weight, before.max_slots) == ("ann", "low", 2.0, 0)
    after = set_share(backend, "job", priority="high", max_slots=3)
    assert (after.owner, after.priority, after.weight, after.max_slots) == ("ann", "high", 2.0, 3)

    # if Redis is wiped, I expect all of it to be there again.
    backend.ledger.redis.flushall()
    again = rebuild(backend, "job")
    assert (again.owner, again.priority, again.weight, again.max_slots) == ("ann", "high", 2.0, 3)

    # The same command again, by somebody else, is the same job, and changes nothing of that.
    assert not submit(backend, asked("job", backend.store.bucket, priority="low", weight=2), "bob")  # type: ignore[arg-type]
    assert backend.ledger.status("job") == again


def test_a_share_that_is_set_during_a_rebuild_is_not_lost(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(backend, asked("job", backend.store.bucket))  # type: ignore[arg-type]
    backend.ledger.redis.flushall()
    create = type(backend.ledger).create

    def late(*args: object, **named: object) -> bool:
        # The rebuild has read the bucket; now somebody sets the share, whom the ledger cannot hear.
        monkeypatch.setattr(type(backend.ledger), "create", create)
        from contract.jobs import shares

        shares.write(backend.store, "job", Share(weight=5))
        backend.ledger.share("job", Share(weight=5))
        return create(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(type(backend.ledger), "create", late)
    assert rebuild(backend, "job").weight == 5


def test_what_no_share_can_be_and_a_job_that_has_ended_are_refused(backend: Backend) -> None:
    with pytest.raises(InvalidInput, match=r"--weight 0: should be greater than or equal to 0.01\."):
        check_share({"weight": 0})
    with pytest.raises(InvalidInput, match="Say what to set"):
        check_share({})
    submit(backend, asked("job", backend.store.bucket))  # type: ignore[arg-type]
    close(backend, "job", "canceled")
    with pytest.raises(JobConflict, match="has been canceled"):
        set_share(backend, "job", weight=2)
