"""A retry runs the shards that have failed items, and those that were never committed."""

from __future__ import annotations

from contract.jobs.status import ShardCommit
from producer.jobs.status_from_bucket import unfinished


def commit(shard: int, errors: int = 0, split: tuple[int, int] | None = None) -> ShardCommit:
    return ShardCommit(shard=shard, items=4, ok=4 - errors, errors=errors, split=split)


def test_whole_shards_are_left_alone() -> None:
    assert unfinished([commit(0), commit(1)], planned=2) == []


def test_shards_with_failed_items_and_shards_without_commit_are_run() -> None:
    assert unfinished([commit(0), commit(1, errors=2)], planned=3) == [1, 2]


def test_of_a_bisected_shard_its_halves_count() -> None:
    split = ShardCommit(shard=1, items=4, ok=0, errors=0, split=(4, 5))

    assert unfinished([commit(0), split, commit(4), commit(5, errors=1)], planned=2) == [5]
    assert unfinished([commit(0), split, commit(4)], planned=2) == [5]
