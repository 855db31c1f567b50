"""Commits as a stream: what is listed, read, counted and removed."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Generator

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import NewerVersion, ObjectDamaged, ObjectNotFound
from contract.jobs.commits import (
    OTHER,
    Committed,
    Tally,
    add_bounded,
    count_commits,
    in_parallel,
    iter_commits,
    iter_listed,
    read_commit,
    read_retries,
    remove_superseded,
)
from contract.jobs.ends import open_run
from contract.jobs.status import Retry, ShardCommit
from contract.keys.jobs import JobKeys

KEYS = JobKeys("job")


def commit(shard: int, retry: int = 0, ok: int = 4, errors: int = 0, **fields: object) -> ShardCommit:
    made = {"shard": shard, "retry": retry, "items": ok + errors, "ok": ok, "errors": errors, **fields}
    return ShardCommit.model_validate(made)


def write(store: ObjectStore, *commits: ShardCommit) -> None:
    for one in commits:
        store.put(KEYS.commit(one.shard, one.retry), one.to_json())


def test_the_newest_retry_of_a_shard_counts_and_the_earlier_ones_are_known(store: ObjectStore) -> None:
    # Given shards around the places where numbers gain a digit, some of which were retried, up to a tenth time,
    retried = {7: (1, 2, 10), 999_999: (1,), 1_000_000: (2,)}
    for shard in (7, 8, 100_000, 999_999, 1_000_000):
        write(store, commit(shard), *(commit(shard, retry) for retry in retried.get(shard, ())))

    # I expect each shard once.
    found = {one.shard: one for one in iter_listed(store, "job")}
    assert len(found) == len(list(iter_listed(store, "job"))) == 5
    assert found[7] == Committed(7, 10, (0, 1, 2))
    assert found[1_000_000] == Committed(1_000_000, 2, (0,))
    assert {(c.shard, c.retry) for c in iter_commits(store, "job")} == {(s, one.retry) for s, one in found.items()}


def test_few_calls_run_ahead_of_who_reads(store: ObjectStore) -> None:
    # Given a million commits to be read, if I read one,
    called = Counter[str]()
    lock = threading.Lock()

    def call(number: int) -> int:
        with lock:
            called["calls"] += 1
        return number

    results = in_parallel(call, iter(range(1_000_000)))
    assert isinstance(results, Generator)
    assert next(results) == 0

    # I expect dozens of calls, in order, and that the rest is never made.
    results.close()
    assert called["calls"] <= 64
    assert list(in_parallel(call, range(1000))) == list(range(1000))


def test_an_error_of_a_call_comes_to_who_reads() -> None:
    def call(number: int) -> int:
        if number == 3:
            raise ObjectNotFound("gone")
        return number

    results = in_parallel(call, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ObjectNotFound):
        next(results)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"shard": 1, "unknown": 2}', b"\xff\xfe"])
def test_what_is_no_commit_is_named(store: ObjectStore, data: bytes) -> None:
    store.put(KEYS.commit(1), data)
    with pytest.raises(ObjectDamaged, match=r"jobs/job/commit/shard-000001\.json is not a commit"):
        read_commit(store, "job", 1)


def test_a_commit_as_large_as_none_can_be_is_not_read(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contract.jobs.commits._COMMIT_BYTES", 100)
    store.put(KEYS.commit(1), b"x" * 200)
    with pytest.raises(ObjectDamaged, match="larger than a commit can be"):
        read_commit(store, "job", 1)


def tally(*commits: ShardCommit, planned: int, required: dict[int, int] | None = None) -> Tally:
    made = Tally(planned, required or {})
    for one in commits:
        made.add(one)
    return made


def test_a_job_is_complete_once_each_planned_shard_and_each_half_is() -> None:
    split = commit(1, ok=0, split=(4, 5))
    assert tally(commit(0), commit(1), planned=2).complete
    assert not tally(commit(0), planned=2).complete
    assert not tally(commit(0), split, planned=2).complete
    assert not tally(commit(0), split, commit(4), planned=2).complete
    assert tally(commit(0), commit(4), split, commit(5), planned=2).complete, "in any order"


def test_a_shard_that_is_to_be_retried_counts_and_is_missing() -> None:
    found = tally(commit(0, errors=1), commit(1), planned=2, required={0: 1})
    assert (found.complete, found.errors, found.current_errors) == (False, 1, 0)
    found = tally(commit(0, retry=1, errors=1), commit(1), planned=2, required={0: 1})
    assert (found.complete, found.errors, found.current_errors) == (True, 1, 1)


def test_names_beyond_the_bound_count_together() -> None:
    total = Counter({"a": 1})
    for n in range(10):
        add_bounded(total, {"a": 1, f"n{n}": 2}, at_most=4)
    assert total == {"a": 11, "n0": 2, "n1": 2, "n2": 2, OTHER: 14}


def test_counters_of_a_store(store: ObjectStore) -> None:
    write(store, commit(0, labels={"a": 3, "b": 1}), commit(1, errors=2, error_codes={"truncated": 2}))
    found = count_commits(store, "job", planned=2)
    assert (found.ok, found.errors, found.shards, found.complete) == (8, 2, 2, True)
    assert (found.labels, found.error_codes) == ({"a": 3, "b": 1}, {"truncated": 2})


def test_retries_are_read_as_runs_and_as_older_versions_wrote_them(store: ObjectStore) -> None:
    store.put(KEYS.retry(1), Retry(number=1, shards=(0, 3)).to_json())
    assert open_run(store, "job", 1)
    assert open_run(store, "job", 2, Retry(number=2, shards=(3, 4)))
    found = read_retries(store, "job")
    assert (found.number, found.required) == (2, {0: 1, 3: 2, 4: 2})


def test_what_a_retry_replaced_is_removed_wherever_the_last_attempt_stopped(store: ObjectStore) -> None:
    # Given a shard that was retried twice and one that was bisected, with rows whose workers died before the commit,
    commits = [commit(0), commit(0, 2), commit(1, ok=0, split=(4, 5)), commit(4), commit(5)]
    write(store, *commits)
    rows = ["0", "0-r1", "0-r2", "1", "4", "5"]
    for name in rows:
        store.put(f"out/shard-00000{name}.parquet", b"rows")
    found = count_commits(store, "job", planned=2)

    # if it is done, and once more, I expect the rows of the newest commits alone.
    for _ in range(2):
        remove_superseded(store, "job", found, f"s3://{store.bucket}/out/")
        left = [entry.key.removeprefix("out/shard-00000").removesuffix(".parquet") for entry in store.list("out/")]
        assert left == ["0-r2", "4", "5"]
        assert KEYS.commit(0) not in [entry.key for entry in store.list(KEYS.commit_prefix)]


def test_a_commit_of_a_newer_version_is_told_from_a_damaged_one(store: ObjectStore) -> None:
    newer = json.loads(commit(0).to_json()) | {"energy": 1.5}
    store.put(KEYS.commit(0), json.dumps(newer).encode())
    with pytest.raises(NewerVersion, match=r"commit/shard-000000\.json is the commit of a newer version; upgrade"):
        read_commit(store, "job", 0)
    del newer["items"]
    store.put(KEYS.commit(0), json.dumps(newer).encode())
    with pytest.raises(ObjectDamaged, match="is not a commit that this version can read"):
        read_commit(store, "job", 0)
