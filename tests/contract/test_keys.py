"""Names that must not change, and numbers that must not meet."""

import pytest

from contract import keys as names
from contract.keys import JobKeys, child_shards, parse_shard, shard_stem


def test_a_shard_is_found_in_each_of_its_keys() -> None:
    keys = JobKeys("a")
    assert parse_shard(keys.manifest(42)) == (42, 0)
    assert parse_shard(keys.commit(42)) == (42, 0)
    assert parse_shard(keys.commit(42, 3)) == (42, 3)
    assert parse_shard(keys.plan) is None


@pytest.mark.parametrize("number", [0, 42, 999_999, 1_000_000, 12_345_678])
def test_a_segment_is_found_in_each_of_its_keys_after_the_millionth_too(number: int) -> None:
    root = names.watch_state("photos", "20261126t000000000")
    assert names.parse_segment(names.watch_segment(root, number)) == number
    assert names.parse_then(names.watch_then(root, number)) == (number, False)
    assert names.parse_then(names.watch_then_begun(root, number)) == (number, True)
    assert names.parse_archive(names.watch_archive(root, number)) == number
    job = names.segment_job("photos", "20261126t000000000", number)
    assert names.parse_segment_job(job) == ("photos", "20261126t000000000", number)


def test_stems_hold_no_dots() -> None:
    assert "." not in shard_stem(7, 2)


def test_halves_of_halves_never_share_a_number() -> None:
    planned = 5
    seen = set(range(planned))
    generation = list(range(planned))
    for _ in range(8):
        generation = [child for shard in generation for child in child_shards(shard, planned)]
        assert not seen & set(generation)
        assert len(set(generation)) == len(generation)
        seen |= set(generation)
