"""Producer and worker meet over three objects; the first verdict is final."""

from __future__ import annotations

import pytest

from contract.backend.objects import ObjectStore
from contract.keys.models import model_file
from contract.models.registry import Model, Preprocess, Registry, make_file
from contract.models.review import Review, Verdict

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
def review(store: ObjectStore) -> Review:
    """A model that was claimed, uploaded and submitted."""
    review = Review(store, "birds", Registry(store).claim("birds", "token"))
    store.put(model_file("birds", 1, "weights.pt2"), b"weights")
    review.submit(DRAFT)
    return review


def names(review: Review) -> set[str]:
    prefix = model_file(review.name, review.version, "")
    return {entry.key.removeprefix(prefix) for entry in review.store.list(prefix)}


def test_a_draft_is_not_published(review: Review) -> None:
    assert Registry(review.store).versions() == []
    assert review.verdict() is None
    draft = review.draft()
    assert draft is not None and Model.model_validate_json(draft) == DRAFT


@pytest.mark.parametrize(("first", "second"), [(YES, NO), (NO, YES)])
def test_the_first_verdict_stands(review: Review, first: Verdict, second: Verdict) -> None:
    assert review.settle(first) == first
    assert review.settle(second) == first
    assert review.verdict() == first


def test_yes_makes_the_draft_the_record(review: Review) -> None:
    review.settle(YES)
    review.publish(DRAFT)
    review.publish(DRAFT)  # worker and producer both do

    assert Registry(review.store).get("birds") == DRAFT
    assert names(review) == {"claim", "check.json", "model.json", "weights.pt2"}
    assert review.draft() is None


def test_no_leaves_the_number_and_the_reason(review: Review) -> None:
    review.settle(NO)
    review.discard()
    review.discard()

    assert names(review) == {"claim", "check.json"}
    assert Registry(review.store).claim("birds", "somebody") == 2


def test_what_is_published_is_never_discarded(review: Review) -> None:
    review.publish(DRAFT)
    review.discard()

    Registry(review.store).verify(Registry(review.store).get("birds"))
