"""Memory is shared first come, first served; a request larger than the pool waits until it is alone."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from worker.engine.budget import Budget, Pool, default_total, memory_limit

MIB = 2**20


def test_small_requests_do_not_overtake_a_large_one() -> None:
    # Given a pool that is half taken,
    pool = Pool(100)
    first = pool.ask(50)
    # if a large request waits, I expect a small one that would fit to wait behind it.
    large, small = pool.ask(80), pool.ask(10)
    assert (first.granted.is_set(), large.granted.is_set(), small.granted.is_set()) == (True, False, False)
    first.release()
    assert large.granted.is_set() and small.granted.is_set()
    assert pool.held == 90


def test_a_request_for_more_than_everything_is_granted_alone() -> None:
    pool = Pool(100)
    first = pool.ask(1)
    huge, next_one = pool.ask(1000), pool.ask(1)
    assert not huge.granted.is_set()
    first.release()
    assert huge.granted.is_set() and not next_one.granted.is_set()
    huge.release()
    assert next_one.granted.is_set()


def test_what_turns_out_smaller_makes_room() -> None:
    pool = Pool(100)
    first, second = pool.ask(100), pool.ask(60)
    first.shrink(40)
    assert second.granted.is_set() and pool.held == 100
    # a request that grows must not wait while it holds, so it is refused,
    assert not first.grow(41)
    second.release()
    assert first.grow(90) and pool.held == 90
    # and nothing is given back twice.
    first.release()
    first.release()
    second.release()
    assert pool.held == 0


def test_parts_are_given_back_one_by_one_or_together() -> None:
    pool = Pool(100)
    whole = pool.ask(60)
    parts = [whole.split(10), whole.split(20), whole.split(99)]
    assert [part.count for part in parts] == [10, 20, 30] and pool.held == 60
    joined = pool.joined(parts[:2])
    parts[0].release()
    assert pool.held == 60
    joined.release()
    assert pool.held == 30
    parts[2].release()
    whole.release()
    assert pool.held == 0


def test_a_withdrawn_request_lets_others_pass() -> None:
    pool = Pool(100)
    first, large, small = pool.ask(50), pool.ask(80), pool.ask(10)
    large.release()
    assert small.granted.is_set() and pool.held == 60
    first.release()
    assert not large.granted.is_set()


@pytest.mark.parametrize("seed", range(5))
def test_many_threads_all_get_theirs(seed: int) -> None:
    # Given threads that hold an encoded file while they ask for its pixels, some more than there is,
    budget = Budget(3000)
    random_ = random.Random(seed)
    sizes = [(random_.randint(1, 1500), random_.choice([1, 100, 1999, 9000])) for _ in range(400)]
    above = threading.Event()

    def work(size: tuple[int, int]) -> None:
        with budget.encoded.hold(size[0]), budget.pixels.hold(size[1]):
            for pool, count in ((budget.encoded, size[0]), (budget.pixels, size[1])):
                if pool.held > max(pool.total, count):
                    above.set()

    # if all run at once, I expect each to finish, nothing to be exceeded by two, and all of it to come back.
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, sizes))
    assert not above.is_set()
    assert budget.encoded.held == budget.pixels.held == 0 and not budget.busy


def test_a_budget_is_busy_while_somebody_waits() -> None:
    budget = Budget(300)
    held = budget.pixels.ask(200)
    assert not budget.busy
    waiting = budget.pixels.ask(10)
    assert budget.busy
    held.release()
    assert not budget.busy and waiting.granted.is_set()


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/a/b\n", {"memory.max": "max", "a/memory.max": str(300 * MIB), "a/b/memory.max": "max"}, 300),
        ("0::/\n", {"memory.max": str(200 * MIB)}, 200),
        # A container of version 1 sees the path of its host, and only its own folder mounted.
        ("5:cpu,memory:/docker/x\n", {"memory/memory.limit_in_bytes": str(100 * MIB)}, 100),
        ("5:memory:/\n1:cpu:/x\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_the_limit_of_a_container_is_found(
    tmp_path: Path, groups: str, limits: dict[str, str], expected: int | None
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, value in limits.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value)
    without = memory_limit(tmp_path / "nowhere")
    assert memory_limit(tmp_path) == (min(without, expected * MIB) if expected else without)


def test_the_default_leaves_most_to_the_model() -> None:
    assert 64 * MIB <= default_total() <= max(64 * MIB, memory_limit() // 4)
