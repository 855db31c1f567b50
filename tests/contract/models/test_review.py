"""Producer and worker meet over three objects; the first verdict is final."""

from __future__ import annotations

import pytest

from contract import keys
from contract.backend.objects import ObjectStore
from contract.models.registry import Model, Preprocess, Registry, make_file
from contract.models.review import Staging, Verdict

DRAFT = Model(
    name="birds",
    version=1,
    family="program",
    labels=("jay",),
    preprocess=Preprocess(size=28, mean=127.5, std=127.5),
    weights=make_file("weights.pt2", b"weights"),
)
YES, NO = Verdict(ok=True, by="host"), Verdict(ok=False, reason="It does not run.")


@pytest.fixture
def staging(store: ObjectStore) -> Staging:
    """A model that was claimed, uploaded and submitted."""
    staging = Staging(store, "birds", Registry(store).claim("birds", "token"))
    store.put(keys.model_file("birds", 1, "weights.pt2"), b"weights")
    staging.submit(DRAFT)
    return staging


def names(staging: Staging) -> set[str]:
    prefix = keys.model_file(staging.name, staging.version, "")
    return {entry.key.removeprefix(prefix) for entry in staging.store.list(prefix)}


def test_a_draft_is_not_published(staging: Staging) -> None:
    assert Registry(staging.store).versions() == []
    assert staging.verdict() is None
    draft = staging.draft()
    assert draft is not None and Model.model_validate_json(draft) == DRAFT


@pytest.mark.parametrize(("first", "second"), [(YES, NO), (NO, YES)])
def test_the_first_verdict_stands(staging: Staging, first: Verdict, second: Verdict) -> None:
    assert staging.settle(first) == first
    assert staging.settle(second) == first
    assert staging.verdict() == first


def test_yes_makes_the_draft_the_record(staging: Staging) -> None:
    staging.settle(YES)
    staging.publish(DRAFT)
    staging.publish(DRAFT)  # worker and producer both do

    assert Registry(staging.store).get("birds") == DRAFT
    assert names(staging) == {"claim", "check.json", "model.json", "weights.pt2"}
    assert staging.draft() is None


def test_no_leaves_the_number_and_the_reason(staging: Staging) -> None:
    staging.settle(NO)
    staging.discard()
    staging.discard()

    assert names(staging) == {"claim", "check.json"}
    assert Registry(staging.store).claim("birds", "somebody") == 2


def test_what_is_published_is_never_discarded(staging: Staging) -> None:
    staging.publish(DRAFT)
    staging.discard()

    Registry(staging.store).verify(Registry(staging.store).get("birds"))
