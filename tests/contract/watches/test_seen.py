"""The seen-set: what was planned is never planned again, whatever dies in between and whoever else is at work."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from contract.backend.objects import ObjectStore
from contract.errors import ObjectDamaged, ObjectNotFound
from contract.watches.runs import Run, RunName, choose, gaps, merge
from contract.watches.seen import SeenSet
from tests.interleaved import Actor, DictStore, KilledError, Scheduler, Stepped

PREFIX = "watches/w-1/seen/"
STEPS = frozenset({"list", "get", "pieces", "put_if_absent", "delete_all", "delete"})


class Store(DictStore):
    """A store in memory that deletes objects one by one, so that a process can die between two of them."""

    def pieces(self, key: str, **_: Any) -> Iterator[bytes]:
        yield self.get(key)


class Dying:
    """A store whose caller dies at the call number `at`: before what it does, or after it."""

    def __init__(self, inner: Store, at: int, *, after: bool) -> None:
        self._inner, self._at, self._after, self.calls = inner, at, after, 0
        self.bucket = inner.bucket

    def delete_all(self, keys: Any) -> None:
        for key in keys:
            self.delete(key)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self._at and not self._after:
                raise KilledError
            answer = found(*args, **kwargs)
            if self.calls == self._at:
                raise KilledError
            return answer

        return call


def hashed(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def some(*numbers: int) -> list[bytes]:
    return [hashed(number) for number in numbers]


def made(store: Any, **options: Any) -> SeenSet:
    return SeenSet(store, PREFIX, **options)


def names(store: DictStore) -> list[str]:
    return [PurePosixPath(entry.key).name for entry in store.list(PREFIX)]


def filled(store: Store, segments: int = 5, size: int = 20) -> list[bytes]:
    """Close some segments, without compacting them; return what is in them."""
    seen = made(store)
    for segment in range(segments):
        seen.close_segment(segment, some(*range(segment * size, (segment + 1) * size)))
    return some(*range(segments * size))


# Runs


@given(st.lists(st.sets(st.binary(min_size=16, max_size=16)), max_size=5))
def test_runs_merge_to_their_union(sets: list[set[bytes]]) -> None:
    merged = Run(merge([Run.of(one) for one in sets]) if sets else b"")
    assert [merged[number] for number in range(len(merged))] == sorted(set().union(*sets))


@pytest.mark.parametrize("size", [0, 1, 64, 65, 2**14, 2**14 + 1])
def test_a_run_of_any_size_knows_what_it_holds(size: int) -> None:
    # Given runs on both sides of each size at which the index grows
    held, strangers = some(*range(size)), some(*range(-500, 0))
    run = Run.of(held)
    # I expect each hash to be found, and no other
    assert len(run) == size
    assert run.absent(held) == []
    assert run.absent(strangers) == strangers


def test_a_hash_across_two_others_is_not_found() -> None:
    # Given two hashes that contain a third one between them
    left, right = b"\0" * 8 + b"\1" * 8, b"\1" * 8 + b"\2" * 8
    run = Run.of([left, right])
    # I expect it to be absent
    assert run.absent([b"\1" * 16, left, right]) == [b"\1" * 16]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(1, 10**6))
def test_runs_grow_in_steps_and_never_beyond_the_largest(sizes: list[int], at_most: int) -> None:
    runs = [(RunName.of(number, number, b""), size) for number, size in enumerate(sizes)]
    while chosen := choose(runs, at_most):
        parts = [runs[number] for number in chosen]
        assert sum(size for _, size in parts) <= at_most
        runs[chosen.start : chosen.stop] = [
            (RunName.of(parts[0][0].first, parts[-1][0].last, b""), sum(size for _, size in parts))
        ]
    assert [name.first for name, _ in runs] == sorted(name.first for name, _ in runs)


def test_a_few_new_hashes_do_not_rewrite_a_large_run() -> None:
    runs = [(RunName.of(0, 7, b""), 10**6), (RunName.of(8, 8, b""), 10), (RunName.of(9, 9, b""), 10)]
    assert list(choose(runs, 10**7)) == [1, 2]


def test_gaps_are_the_segments_that_no_run_covers() -> None:
    covered = [RunName.of(0, 3, b""), RunName.of(2, 4, b""), RunName.of(7, 7, b"")]
    assert gaps(covered, 10) == [5, 6, 8, 9]


# Against a plain set


class Machine(RuleBasedStateMachine):
    """Two controllers on one bucket, one of which follows what the other does."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.seen = made(self.store, largest=300)
        self.other = made(self.store, largest=300)
        self.model: set[bytes] = set()
        self.segment = 0

    @rule(numbers=st.lists(st.integers(0, 400), max_size=60))
    def plan(self, numbers: list[int]) -> None:
        asked = some(*numbers)
        fresh = self.seen.unseen(asked)
        assert fresh == [hash for hash in dict.fromkeys(asked) if hash not in self.model]
        self.seen.add(fresh)
        self.model.update(fresh)

    @rule()
    def close(self) -> None:
        self.seen.close_segment(self.segment)
        self.segment += 1

    @rule()
    def compact(self) -> None:
        self.seen.compact()

    @rule()
    def compact_elsewhere(self) -> None:
        self.other.compact()

    @rule()
    def follow(self) -> None:
        assert self.other.load(self.segment) == []

    @rule()
    def refresh(self) -> None:
        assert self.seen.load(self.segment) == []

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert self.seen.unseen(self.model) == []


TestAgainstASet = Machine.TestCase
TestAgainstASet.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_restart_finds_what_closed_segments_hold(store: ObjectStore) -> None:
    # Given segments that were closed, and merged, on a real store
    seen = made(store)
    for segment in range(12):
        seen.add(some(*range(segment * 50, segment * 50 + 50)))
        seen.close_segment(segment)
        while seen.compact():
            pass
    # If another controller starts
    again = made(store)
    # I expect it to know all of them, from one run
    assert again.load(12) == []
    assert again.unseen(some(*range(700))) == some(*range(600, 700))
    assert len(list(store.list(PREFIX))) == 1
    # and nothing to be left once the watch is removed
    again.forget()
    assert list(store.list(PREFIX)) == []
    assert again.unseen(some(1)) == some(1)


def test_a_segment_closed_twice_is_one_run() -> None:
    store = Store()
    for _ in range(2):
        made(store).close_segment(0, some(1, 2, 3))
    assert len(names(store)) == 1


def test_a_segment_without_a_run_is_named() -> None:
    # Given a controller that died before it wrote the run of segment 1
    store = Store()
    filled(store, 1)
    seen = made(store)
    # I expect the next one to learn of it, to close the segment again, and to be complete
    assert seen.load(2) == [1]
    seen.close_segment(1, some(20, 21))
    assert made(store).load(2) == []
    # and a run that is lost later to be missed too, although nobody asks for so many segments
    lost = next(entry.key for entry in store.list(PREFIX + "000000"))
    store.delete(lost)
    assert made(store).load(0) == []
    assert made(store).load(2) == [0]


# Damage


def test_a_damaged_run_is_refused() -> None:
    for damage in (lambda data: data[:-1], lambda data: data[:-16], lambda data: b"x" + data[1:], lambda _: b""):
        store = Store()
        filled(store, 1)
        (entry,) = store.list(PREFIX)
        store.put(entry.key, damage(store.get(entry.key)))
        with pytest.raises(ObjectDamaged, match=r"is not what was written there.*delete it"):
            made(store).load(1)


@pytest.mark.parametrize("name", ["readme.txt", "000001-000000-0123456789abcdef.seen", "000000-000000-.seen"])
def test_a_foreign_object_is_refused(name: str) -> None:
    store = Store()
    filled(store, 1)
    store.put(PREFIX + name, b"")
    with pytest.raises(ObjectDamaged, match=rf"{name} is not one of the runs"):
        made(store).load(1)


# Faults


def close_and_compact(store: Any, segment: int, hashes: list[bytes]) -> None:
    seen = made(store)
    seen.load(segment)
    seen.close_segment(segment, hashes)
    while seen.compact():
        pass


@pytest.mark.parametrize("after", [False, True])
def test_a_controller_that_dies_at_any_call_loses_nothing(after: bool) -> None:
    # Given a run of every call to the store, counted
    store = Store()
    filled(store)
    counting = Dying(store, 0, after=after)
    close_and_compact(counting, 5, some(500))
    assert counting.calls > 10
    for at in range(1, counting.calls + 1):
        # If the controller dies at this one
        store = Store()
        held = filled(store)
        with pytest.raises(KilledError):
            close_and_compact(Dying(store, at, after=after), 5, some(500))
        # I expect the next one to know all that was closed, and to end with the runs of an undisturbed one
        again = made(store)
        assert again.load(5) == []
        assert again.unseen(held) == []
        close_and_compact(store, 5, some(500))
        last = made(store)
        assert last.load(6) == []
        assert last.unseen([*held, *some(500, 501)]) == some(501)
        assert len(names(store)) == 1


@pytest.mark.parametrize("seed", range(60))
def test_two_controllers_at_once_lose_nothing(seed: int) -> None:
    # Given two controllers that close segments and compact, step by step in a random order, and one that reads; one of
    # them may die at any step
    store, scheduler = Store(), Scheduler(seed)
    held = filled(store)
    answers: list[list[bytes]] = []

    def reads() -> None:
        seen = made(Stepped(store, scheduler, STEPS))
        if seen.load(5) == []:  # of a listing that misses what moves, it says so
            answers.append(seen.unseen(held))

    def acts(segment: int) -> Callable[[], None]:
        return lambda: close_and_compact(Stepped(store, scheduler, STEPS), segment, some(1000 + segment))

    dies_at = scheduler.random.choice([None, *range(1, 12)])
    actors = [Actor("a", acts(5), dies_at), Actor("b", acts(6)), Actor("c", reads), Actor("d", acts(5))]
    scheduler.play(actors)
    # I expect no error, no reader who missed something, and nothing lost
    assert [actor.error for actor in actors if not isinstance(actor.error, ObjectNotFound | None)] == []
    assert answers in ([], [[]])
    seen = made(store)
    assert seen.load(7) == []
    assert seen.unseen([*held, *some(1005, 1006)]) == []


def test_a_listing_that_misses_what_moves_is_read_again() -> None:
    # Given a store whose first listing shows neither the runs that were merged nor the one that holds them
    class Moving(Store):
        looks = 0

        def list(self, prefix: str, **_: Any) -> Any:
            self.looks += 1
            found = list(super().list(prefix))
            return iter(found if self.looks > 1 else found[:2])

    store = Moving()
    held = filled(store)
    # I expect a controller to notice the gap, and to look again
    seen = made(store)
    assert seen.load(5) == []
    assert store.looks == 2
    assert seen.unseen(held) == []


def test_a_controller_that_stood_still_changes_nothing() -> None:
    # Given a controller that has loaded the runs, and stands still while another merges them
    store = Store()
    held = filled(store)
    still = made(store)
    still.load(5)
    close_and_compact(store, 5, some(500))
    # If it goes on with what it knows
    still.close_segment(5, some(500))
    while still.compact():
        pass
    # I expect nothing to be lost, and one run in the end
    seen = made(store)
    assert seen.load(6) == []
    assert seen.unseen([*held, *some(500)]) == []
    while seen.compact():
        pass
    assert len(names(store)) == 1


def test_batches_in_any_order_come_out_once() -> None:
    store = Store()
    filled(store)
    seen = made(store)
    seen.load(5)
    asked = [hashed(number) for number in (99, 100, 101, 100, 5, 101)]
    random.Random(1).shuffle(asked)
    assert sorted(seen.unseen(asked)) == sorted(some(100, 101))
    assert len(seen.unseen(os.urandom(16) for _ in range(100))) == 100
