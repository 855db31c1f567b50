"""What a pool is asked to be, whatever the fleet looks like."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import InvalidInput
from contract.fleet.rates import Rates
from contract.fleet.snapshot import Fleet, QueueState, WorkerState
from contract.fleet.wanted import Policy, Wanted, wanted
from contract.keys.queues import WORKER_QUEUES

POLICY = Policy(least=0, most=50, target_seconds=300, cold_start_seconds=120, cool_down_seconds=120)


def queue(name: str, seconds: float = 0.0, waiting: int = 0, running: int = 0, messages: int = 0) -> QueueState:
    return QueueState(
        queue=name,
        backlog_images=int(seconds * 50),
        backlog_seconds=seconds,
        runnable_shards=waiting,
        running_shards=running,
        slots=0,
        workers=0,
        oldest_waiting_seconds=0.0,
        messages=messages,
    )


def worker(number: int, *, slots: int = 2, pool: str = "default", draining: bool = False) -> WorkerState:
    return WorkerState(
        name=f"worker-{number}",
        host="h",
        pool=pool,
        queues=WORKER_QUEUES,
        slots=slots,
        busy=0,
        device="cpu",
        precisions=("fp32",),
        models=(),
        rate=0.0,
        since=0.0,
        draining=draining,
        unfit="",
    )


def fleet(at: float = 0.0, live: int = 0, **queues: QueueState) -> Fleet:
    everything = tuple(queues.get(name) or queue(name) for name in WORKER_QUEUES)
    return Fleet(at=at, workers=tuple(worker(n) for n in range(live)), queues=everything, jobs=(), rates=Rates())


def classify(seconds: float, waiting: int, running: int = 0, *, at: float = 0.0, live: int = 0) -> Fleet:
    return fleet(at, live, classify=queue("classify", seconds, waiting, running))


def test_everything_left_is_done_within_the_target() -> None:
    # Given 12,000 slot seconds on live workers of two slots, I expect 6,000 s of one worker in 300 s.
    assert wanted(classify(12_000, 1200, live=20), POLICY).workers == 20
    # Workers that still have to start work 180 s of the 300: 15 live ones do 4,500 s, 9 more the rest.
    assert wanted(classify(12_000, 1200, live=15), POLICY).workers == 15 + 9


def test_more_workers_than_shards_are_of_no_use() -> None:
    assert wanted(classify(12_000, 5, live=1), POLICY).workers == 3
    assert wanted(classify(12_000, 0, 5, live=1), POLICY).workers == 3


def test_a_queue_of_few_long_shards_does_not_speak_for_another() -> None:
    # Given two shards of an hour, and thirty of ten seconds, I expect what these need and no more.
    long, short = queue("generate", 7200, 2), queue("classify", 300, 30)
    assert wanted(fleet(live=1, generate=long, classify=short), POLICY).workers == 2


def test_each_training_has_a_worker_of_its_own() -> None:
    assert wanted(fleet(live=1, train=queue("train", 4 * 600, 4)), POLICY).workers == 4


def test_a_pool_answers_for_its_own_queues_and_workers() -> None:
    policy = replace(POLICY, pool="gpu", queues=("generate",))
    there = replace(classify(12_000, 1200), workers=(worker(1), worker(2, pool="gpu")))
    answer = wanted(there, policy)
    assert (answer.workers, answer.live) == (0, 1) or answer.idle_since is not None
    assert answer.backlog_seconds == 0


def test_a_pool_at_zero_starts_for_whatever_waits_and_stays_there_otherwise() -> None:
    assert wanted(fleet(), POLICY).workers == 0
    assert wanted(classify(0.1, 1), POLICY).workers == 1
    # A page that somebody asked for is a message and no shard.
    assert wanted(fleet(generate=queue("generate", messages=1)), POLICY).workers == 1


def test_workers_go_once_they_have_been_idle_and_not_while_all_are_busy() -> None:
    # Given ten workers that are all busy with the rest of a job, I expect them to stay, though fewer would do in time.
    answer = wanted(classify(600, 60, 20, at=0, live=10), POLICY)
    assert (answer.workers, answer.idle_since) == (10, None)
    # Once six slots have work, I expect three workers after the cool-down, not before.
    answer = wanted(classify(60, 0, 6, at=10, live=10), POLICY, answer)
    assert answer.workers == 10
    answer = wanted(classify(50, 0, 4, at=129, live=10), POLICY, answer)
    assert answer.workers == 10
    answer = wanted(classify(40, 0, 4, at=130, live=10), POLICY, answer)
    assert answer.workers == 3, "the most that had work in the meantime"
    # The next ones have a cool-down of their own.
    answer = wanted(classify(40, 0, 4, at=131, live=3), POLICY, answer)
    assert answer.workers == 3
    assert wanted(classify(40, 0, 4, at=251, live=3), POLICY, answer).workers == 2


def test_work_that_comes_back_ends_the_cool_down() -> None:
    answer = wanted(classify(600, 60, 20, at=0, live=10), POLICY)
    answer = wanted(classify(60, 0, 6, at=10, live=10), POLICY, answer)
    answer = wanted(classify(600, 60, 20, at=100, live=10), POLICY, answer)
    assert answer.idle_since is None
    answer = wanted(classify(60, 0, 6, at=140, live=10), POLICY, answer)
    assert answer.workers == 10


@pytest.mark.parametrize("bad", [{"least": 3, "most": 2}, {"most": 0}, {"target_seconds": 0}, {"queues": ("labels",)}])
def test_a_policy_that_contradicts_itself_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        Policy(**bad)  # type: ignore[arg-type]


# Properties

seconds = st.floats(0, 1e7, allow_nan=False)
shards = st.integers(0, 100_000)
policies = st.builds(
    lambda least, more, target, cold, cool: Policy(
        least=least,
        most=max(1, least + more),
        target_seconds=target,
        cold_start_seconds=cold,
        cool_down_seconds=cool,
    ),
    st.integers(0, 20),
    st.integers(0, 200),
    st.floats(1, 3600),
    st.floats(0, 600),
    st.floats(0, 600),
)
queues = st.builds(lambda s, w, r, m: (s, w, r, m), seconds, shards, st.integers(0, 500), st.integers(0, 50))


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    there = {name: queue(name, *draw(queues)) for name in draw(st.sets(st.sampled_from(WORKER_QUEUES)))}
    workers = tuple(
        worker(n, slots=draw(st.integers(1, 20)), pool=draw(st.sampled_from(("default", "other"))))
        for n in range(draw(st.integers(0, 12)))
    )
    return replace(fleet(draw(st.floats(0, 1000)), 0, **there), workers=workers)


@st.composite
def previous(draw: st.DrawFn, policy: Policy) -> Wanted | None:
    """Anything that the policy may have answered before."""
    if draw(st.booleans()):
        return None
    workers = draw(st.integers(policy.least, policy.most))
    idle = draw(st.one_of(st.none(), st.floats(-1000, 0)))
    return Wanted(
        workers=workers,
        why="",
        live=workers,
        backlog_images=0,
        backlog_seconds=0.0,
        at=0.0,
        slots=draw(st.integers(1, 20)),
        idle_since=idle,
        idle_peak=0 if idle is None else draw(st.integers(0, workers)),
    )


@settings(deadline=None)
@given(st.data(), fleets(), policies)
def test_it_keeps_to_the_range_and_to_one_while_a_shard_is_leased(
    data: st.DataObject, now: Fleet, policy: Policy
) -> None:
    answer = wanted(now, policy, data.draw(previous(policy)))
    assert policy.least <= answer.workers <= policy.most
    if any(one.running_shards for one in now.queues):
        assert answer.workers >= 1


@settings(deadline=None)
@given(st.data(), fleets(), policies, st.sampled_from(WORKER_QUEUES), seconds, shards)
def test_it_never_asks_for_fewer_because_more_is_left(
    data: st.DataObject, now: Fleet, policy: Policy, name: str, more_seconds: float, more_shards: int
) -> None:
    before = data.draw(previous(policy))

    def grown(one: QueueState) -> QueueState:
        if one.queue != name:
            return one
        return replace(
            one,
            backlog_seconds=one.backlog_seconds + more_seconds,
            runnable_shards=one.runnable_shards + more_shards,
        )

    later = replace(now, queues=tuple(grown(one) for one in now.queues))
    assert wanted(later, policy, before).workers >= wanted(now, policy, before).workers


@settings(deadline=None, max_examples=50)
@given(st.data(), fleets(), policies)
def test_under_a_constant_load_it_does_not_flap(data: st.DataObject, now: Fleet, policy: Policy) -> None:
    # Given a load that stays as it is, and a fleet that follows, if it is asked every 15 s for half an hour,
    answer, counts = data.draw(previous(policy)), []
    for look in range(120):
        live = () if answer is None else tuple(worker(n) for n in range(answer.workers))
        answer = wanted(replace(now, at=1000.0 + 15 * look, workers=live), policy, answer)
        counts.append(answer.workers)
    # I expect at most one rise, then one fall to what is of use, and then nothing.
    moves = [b > a for a, b in pairwise(counts) if a != b]
    assert sum(a != b for a, b in pairwise(moves)) <= 1
    assert len(set(counts[60:])) == 1


@settings(deadline=None)
@given(fleets(), policies)
def test_it_is_pure(now: Fleet, policy: Policy) -> None:
    assert wanted(now, policy) == wanted(now, policy)
