"""Results may not be written where Imagemill keeps jobs, models and schedules, however the prefix is spelled."""

from __future__ import annotations

import json

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput
from contract.jobs import templates
from contract.jobs.destinations import check_output
from contract.jobs.lifecycle import read_spec
from contract.keys.bucket import RESERVED
from contract.keys.jobs import JobKeys
from tests.synthetic import generate_spec

REFUSED = r"reserved|oddly spelled|no key may have"
ODD = ["a//b/", "./active/", "a/../active/", "%2e/active/", "activ%65/", "/active/", "a\\b/", "a\x00/"]


@pytest.mark.parametrize(
    "prefix", [*RESERVED, *(name.rstrip("/") for name in RESERVED), "active/deep/", "Jobs/x/", *ODD]
)
def test_a_reserved_or_odd_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidInput, match=REFUSED):
        templates.output(JobKeys("mine"), "own", f"s3://own/{prefix}")


@pytest.mark.parametrize(
    "to", ["s3://other/active/", "s3://own/results/", "s3://own/", "s3://own/activeness/", "s3://own/a b/"]
)
def test_any_other_prefix_is_fine(to: str) -> None:
    templates.output(JobKeys("mine"), "own", to)


def test_only_the_own_folder_of_a_job_is_excepted() -> None:
    check_output("s3://own/jobs/mine/out/", "own", id="mine")
    with pytest.raises(InvalidInput, match="reserved"):
        check_output("s3://own/jobs/other/out/", "own", id="mine")


def test_a_spec_that_was_written_by_hand_is_refused_too(store: ObjectStore) -> None:
    spec = generate_spec(store, "mine", output=f"s3://{store.bucket}/active/")
    envelope = {"created_at": "2026-11-26T00:00:00Z", "spec": spec.model_dump()}
    store.put(JobKeys("mine").spec, json.dumps(envelope).encode())
    with pytest.raises(InvalidInput, match="reserved"):
        read_spec(store, "mine")
