"""The registry of job kinds: complete, and every path in it leads somewhere."""

from __future__ import annotations

from typing import get_args

import pytest

from contract.errors import InvalidInput
from contract.import_paths import load
from contract.jobs.kinds import KINDS, JobKind, kind_of
from contract.jobs.specs import AnySpec
from contract.jobs.status import Status
from contract.keys.queues import WORKER_QUEUES

EVERY = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def test_every_spec_has_a_record() -> None:
    assert {kind.spec for kind in KINDS.values()} == set(get_args(AnySpec))
    for name, kind in KINDS.items():
        assert name == kind.name
        assert kind_of(name) is kind


def test_an_unknown_kind_is_an_error_and_never_another_kind() -> None:
    with pytest.raises(InvalidInput, match=r"There is no job kind 'count' in this version .*classify, train"):
        kind_of("count")


@EVERY
def test_every_path_leads_to_a_function(kind: JobKind) -> None:
    for path in (kind.plan, kind.run, kind.finalize, kind.finish, kind.provenance, kind.report):
        if path is not None:
            assert callable(load(path))


@EVERY
def test_a_record_is_consistent(kind: JobKind) -> None:
    assert kind.queue in WORKER_QUEUES
    assert kind.judge is None or kind.judge in kind.spec.model_fields
    assert not kind.model_tasks or {"model", "weights_sha256"} <= kind.spec.model_fields.keys()
    assert (kind.makes == "images") == (kind.provenance is not None) == (kind.report is not None)
    assert kind.page != "when asked for" or kind.finish is not None


@EVERY
def test_a_job_that_ended_says_what_to_do_next(kind: JobKind) -> None:
    done = kind.next_step(Status(id="mine", kind=kind.name, state="succeeded", model="m@1"))
    assert done.count("`imagemill") >= 1 and done.endswith(".") and "{" not in done

    canceled = kind.next_step(Status(id="mine", kind=kind.name, state="canceled"))
    assert "`imagemill resume mine`" in canceled
    assert ("results" in canceled) == (kind.makes == "labels")

    failed = kind.next_step(Status(id="mine", kind=kind.name, state="failed", errors=2))
    again = "retry" if kind.makes == "labels" else "resume"
    assert f"`imagemill {again} mine`" in failed
    assert ("errors" in failed) == (kind.makes == "labels")


def test_a_path_that_leads_nowhere_is_an_import_error() -> None:
    with pytest.raises(ImportError, match=r"contract\.keys has no nothing"):
        load("contract.keys:nothing")
