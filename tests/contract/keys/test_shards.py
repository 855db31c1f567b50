"""Names that must not change, and numbers that must not meet."""

from contract.keys.jobs import JobKeys
from contract.keys.shards import child_shards, parse_shard, shard_stem


def test_a_shard_is_found_in_each_of_its_keys() -> None:
    keys = JobKeys("a")
    assert parse_shard(keys.manifest(42)) == (42, 0)
    assert parse_shard(keys.commit(42)) == (42, 0)
    assert parse_shard(keys.commit(42, 3)) == (42, 3)
    assert parse_shard(keys.plan) is None


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
