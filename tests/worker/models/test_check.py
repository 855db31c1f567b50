"""A pushed model is published when a worker has run it, and leaves nothing but its number when that went wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from contract.errors import ModelError, UnknownModel
from contract.jobs.lifecycle import Backend
from contract.keys.models import model_draft, model_file
from contract.models.registry import Model, Preprocess, Registry, make_file
from contract.models.review import Review, Verdict
from contract.models.rules import Rule
from worker.models import check
from worker.models.check import admit

WEIGHTS = b"weights of mine"
Admit = Callable[[], None]


@pytest.fixture
def review(backend: Backend) -> Review:
    """A model that a producer has staged: claim, file, draft."""
    registry = Registry(backend.store)
    review = Review(backend.store, "mine", registry.claim("mine", "producer"))
    backend.store.put(model_file("mine", review.version, "weights.pt2"), WEIGHTS)
    draft = Model(
        name="mine",
        version=review.version,
        family="program",
        labels=("a", "b"),
        preprocess=Preprocess(size=8, mean=127.5, std=127.5),
        weights=make_file("weights.pt2", WEIGHTS),
    )
    review.submit(draft)
    return review


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were run, which all go well; the trial itself has tests of its own."""
    found: list[str] = []

    def try_out(model: Model, weights: Path) -> None:
        assert weights.read_bytes() == WEIGHTS
        found.append(model.ref)

    monkeypatch.setattr(check, "try_out", try_out)
    return found


@pytest.fixture
def admit_it(backend: Backend, tmp_path: Path) -> Admit:
    return lambda: admit(backend, "mine", 1, tmp_path)


def left(review: Review) -> set[str]:
    prefix = model_file(review.name, review.version, "")
    return {entry.key.removeprefix(prefix) for entry in review.store.list(prefix)}


def test_what_runs_is_published(review: Review, tried: list[str], admit_it: Admit) -> None:
    admit_it()

    model = Registry(review.store).get("mine")
    assert (model.ref, model.labels, tried) == ("mine@1", ("a", "b"), ["mine@1"])
    assert left(review) == {"claim", "check.json", "model.json", "weights.pt2"}


def test_what_does_not_run_is_not_listed_and_says_why(
    review: Review, monkeypatch: pytest.MonkeyPatch, admit_it: Admit, tmp_path: Path
) -> None:
    def fails(model: Model, weights: Path) -> None:
        raise ModelError("It does not run.")

    monkeypatch.setattr(check, "try_out", fails)
    admit_it()

    verdict = review.verdict()
    assert verdict is not None
    assert (verdict.ok, verdict.reason) == (False, "It does not run.")
    assert left(review) == {"claim", "check.json"}
    with pytest.raises(UnknownModel):
        Registry(review.store).get("mine@1")
    assert not list(tmp_path.glob("weights/*")), "nor is it kept on the worker"


def test_a_message_that_comes_twice_runs_it_once(review: Review, tried: list[str], admit_it: Admit) -> None:
    admit_it()
    admit_it()

    assert tried == ["mine@1"]
    assert Registry(review.store).exists("mine", 1)


def test_while_one_worker_is_at_it_another_leaves_it_alone(
    backend: Backend, review: Review, tried: list[str], admit_it: Admit
) -> None:
    with backend.ledger.lock("check", "mine@1", 60) as lock:
        assert lock is not None
        admit_it()
        assert tried == []

    admit_it()
    assert tried == ["mine@1"]


def test_a_worker_that_died_behind_its_verdict_is_followed_by_another(
    review: Review, tried: list[str], admit_it: Admit
) -> None:
    # Given a worker that wrote its verdict, and died before the record,
    review.settle(Verdict(ok=True))
    # if the message comes again, I expect the record, and no second trial.
    admit_it()
    assert Registry(review.store).exists("mine", 1)
    assert tried == []


def test_what_the_producer_withdrew_meanwhile_is_not_published(
    review: Review, monkeypatch: pytest.MonkeyPatch, admit_it: Admit
) -> None:
    # Given a producer that gives up while the worker is running the model,
    def gives_up(model: Model, weights: Path) -> None:
        review.settle(Verdict(ok=False, reason="The producer gave up waiting for a worker."))

    monkeypatch.setattr(check, "try_out", gives_up)
    # I expect the first verdict to stand.
    admit_it()
    assert not Registry(review.store).exists("mine", 1)
    assert left(review) == {"claim", "check.json"}


def test_a_file_that_is_not_what_was_pushed_is_refused(review: Review, tried: list[str], admit_it: Admit) -> None:
    review.store.put(model_file("mine", 1, "weights.pt2"), b"cut short")
    admit_it()

    verdict = review.verdict()
    assert verdict is not None and "hashes to" in verdict.reason
    assert tried == []


def test_a_draft_that_cannot_be_read_is_refused(review: Review, tried: list[str], admit_it: Admit) -> None:
    review.store.put(model_draft("mine", 1), b'{"name": "mine", "colour": "blue"}')
    admit_it()

    verdict = review.verdict()
    assert verdict is not None and "Its record cannot be read (" in verdict.reason
    assert tried == []


def test_a_version_that_is_published_keeps_its_model(review: Review, tried: list[str], admit_it: Admit) -> None:
    # Given another model that took the number without a claim of its own, as built-in ones of old did,
    built_in = Model.model_validate_json(review.draft() or b"").model_copy(update={"labels": ("c", "d")})
    assert Registry(review.store).enter(built_in)
    # I expect it to stay as it is.
    admit_it()
    assert Registry(review.store).get("mine@1") == built_in
    verdict = review.verdict()
    assert verdict is not None and "push it again" in verdict.reason


def test_a_worker_that_takes_no_programs_tries_none(
    review: Review, backend: Backend, tried: list[str], tmp_path: Path
) -> None:
    # Given a worker that takes no programs, if it is asked to try one, I expect nothing to be decided,
    admit(backend, "mine", 1, tmp_path, Rule(programs=False))
    assert (tried, review.verdict()) == ([], None)

    # and the next worker to do it, though it serves other names.
    admit(backend, "mine", 1, tmp_path, Rule(models=("others",)))
    assert tried == ["mine@1"]
