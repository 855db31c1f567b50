"""How many candidates are made at a time."""

from __future__ import annotations

from contract.jobs.specs import Generate, Synthesize
from worker.generation.candidate_plan import CandidateBlock, initial_plan, next_candidates, whole_plan

COMMON = {"id": "a", "model": "g@1", "weights_sha256": "0" * 64, "output": "s3://b/a/", "shard_size": 100}


def synthesis(**more: object) -> Synthesize:
    return Synthesize.model_validate({**COMMON, "classes": (0, 2), "gate": "c@1", "gate_sha256": "0" * 64, **more})


def images(blocks: list[CandidateBlock]) -> list[tuple[int, int]]:
    return [image for block in blocks for image in block.images()]


def test_a_generation_makes_as_many_of_each_class_and_of_the_first_the_rest() -> None:
    spec = Generate.model_validate({**COMMON, "classes": (1, 4, 5), "count": 200})
    made = images(whole_plan(spec))
    assert len(made) == len(set(made)) == 200
    assert [sum(label == one for label, _ in made) for one in (1, 4, 5)] == [67, 67, 66]
    assert all(len(block) <= 100 for block in whole_plan(spec))
    few = Generate.model_validate({**COMMON, "classes": (1, 4, 5), "count": 2})
    assert images(whole_plan(few)) == [(1, 0), (4, 0)]


def test_a_synthesis_begins_with_a_guess_and_goes_on_as_its_acceptance_asks() -> None:
    spec = synthesis(per_class=100)
    first = initial_plan(spec)
    assert {block.labels for block in first} == {(0,), (2,)}
    made = len(images(first)) // 2
    assert 100 < made < 200

    # One class has enough, the other a quarter of what it made.
    more = images(next_candidates(spec, first, {0: 100, 2: made // 4}))
    assert {label for label, _ in more} == {2}
    assert [index for _, index in more] == list(range(made, made + len(more))), "on from where it was"
    assert 4 * (100 - made // 4) < len(more) < 6 * (100 - made // 4)


def test_no_more_candidates_are_made_than_were_allowed() -> None:
    spec = synthesis(per_class=100, max_attempts=2)
    first = initial_plan(spec)
    second = next_candidates(spec, first, {0: 0, 2: 0})
    assert max(index for _, index in images([*first, *second])) == 199
    assert next_candidates(spec, [*first, *second], {0: 0, 2: 99}) == []


def test_each_class_may_have_a_number_of_its_own() -> None:
    spec = synthesis(per_class=400, counts=(400, 1))
    first = initial_plan(spec)
    made = {label: sum(one == label for one, _ in images(first)) for label in (0, 2)}
    assert made == {0: 550, 2: 20}, "a fifth and a tenth more, and no more than its attempts"
    assert next_candidates(spec, first, {0: 400, 2: 1}) == []
    assert {label for label, _ in images(next_candidates(spec, first, {0: 399, 2: 0}))} == {0}
