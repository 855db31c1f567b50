"""Second copies of shards that take too long, on a real Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from contract.backend.dispatch import Grant, next_shard, set_slots
from contract.backend.ledger import Held, Ledger
from contract.jobs.kinds import KINDS
from contract.settings import Settings
from tests.contract.backend.test_dispatch import CPU, QUEUE
from tests.contract.backend.test_ledger import begin, spec_of

JOB = "a"
USUAL = 10.0
"""Seconds that a shard takes."""


def ask(
    ledger: Ledger, worker: str, *, speculative: bool = True, owner_slots: int = 0, number: int = 0
) -> Grant | None:
    """Ask for a shard as a worker with a ticket does."""
    return next_shard(
        ledger,
        QUEUE,
        f"{worker}:{number}",
        CPU,
        process=worker,
        lease_seconds=30.0,
        owner_slots=owner_slots,
        speculative=speculative,
    )


def runs_for(ledger: Ledger, seconds: float, shard: int) -> None:
    """Let a shard have begun so long ago."""
    leases = ledger.keys.job(JOB)[2]
    *rest, since = str(ledger.redis.hget(leases, str(shard))).split(" ")
    ledger.redis.hset(leases, str(shard), " ".join([*rest, f"{float(since) - seconds:.3f}"]))


def now(ledger: Ledger) -> float:
    seconds, micros = ledger.redis.time()
    return float(seconds + micros / 1e6)


@pytest.fixture
def hasty(settings: Settings) -> Iterator[Ledger]:
    """A ledger that takes leases for short, so that one which lapses was renewed since Redis started."""
    with closing(Ledger(settings.model_copy(update={"lease_seconds": 0.05}))) as made:
        yield made


def lapses(ledger: Ledger, where: int, shard: int) -> None:
    """Let a lease lapse now; `where` is its place among the keys of a job."""
    key = ledger.keys.job(JOB)[where]
    token, _, *rest = str(ledger.redis.hget(key, str(shard))).split(" ")
    ledger.redis.hset(key, str(shard), " ".join([token, f"{now(ledger) - 0.002:.3f}", *rest]))


LEASES, COPIES = 2, 5


def tail(ledger: Ledger, held: int = 2, done: int = 3) -> list[Grant]:
    """A job with nothing left to hand out: `done` shards took ten seconds each, workers `slow-n` hold the others."""
    begin(ledger, JOB, held + done)
    for _ in range(done):
        grant = ask(ledger, "fast")
        assert grant is not None
        ledger.commit(JOB, grant.shard, 10, 0, seconds=USUAL)
    found = [ask(ledger, f"slow-{n}") for n in range(held)]
    assert all(grant is not None and ledger.begin(JOB, grant.shard, grant.token) for grant in found)
    return [grant for grant in found if grant is not None]


def copies(ledger: Ledger) -> int:
    status = ledger.status(JOB)
    assert status is not None
    assert ledger.redis.hlen(ledger.keys.job(JOB)[COPIES]) == int(
        ledger.redis.hget(ledger.keys.job(JOB)[0], "copies") or 0
    )
    return int(ledger.redis.hlen(ledger.keys.job(JOB)[COPIES]))


def slots(ledger: Ledger) -> int:
    """The slots that the owner of the job holds."""
    return sum(map(int, ledger.hash(f"{ledger.keys.dispatch[1]}{QUEUE}:slots").values()))


def test_the_oldest_shard_is_copied_once_and_not_by_its_holder(ledger: Ledger) -> None:
    # Given two shards that run for more than twice as long as others took,
    first, second = tail(ledger)
    runs_for(ledger, 3 * USUAL, second.shard)
    runs_for(ledger, 2.5 * USUAL, first.shard)
    assert ledger.lapsed(JOB).step.tickets == 2

    # if workers ask, I expect copies for those that do not hold the shard, of the oldest first, each once,
    copy = ask(ledger, "fast")
    assert copy is not None and (copy.shard, copy.copy) == (second.shard, True)
    assert not copy.trouble.suspect and copy.trouble.attempts == 1
    assert ask(ledger, "fast") == copy, "the same token gets the same copy"
    assert ask(ledger, "slow-0", number=9) is None
    other = ask(ledger, "slow-1", number=9)
    assert other is not None and other.shard == first.shard
    assert ask(ledger, "third") is None

    # and the slots to be counted.
    status = ledger.status(JOB)
    assert status is not None
    assert (status.shards.running, status.shards.queued, copies(ledger), slots(ledger)) == (2, 0, 2, 4)
    assert ledger.lapsed(JOB).step.tickets == 0


def test_a_short_shard_is_not_copied_before_five_seconds(ledger: Ledger) -> None:
    begin(ledger, JOB, 2)
    done, grant = ask(ledger, "fast"), ask(ledger, "slow-0")
    assert done is not None and grant is not None
    ledger.commit(JOB, done.shard, 10, 0, seconds=0.1)
    runs_for(ledger, 1.0, grant.shard)
    assert ledger.lapsed(JOB).step.tickets == 0
    runs_for(ledger, 5.0, grant.shard)
    assert ledger.lapsed(JOB).step.tickets == 1


@pytest.mark.parametrize("why", ["in time", "nothing done", "queued", "planning", "off", "leaving", "troubled"])
def test_no_copy_is_made(ledger: Ledger, why: str) -> None:
    if why == "planning":
        ledger.create(spec_of(JOB))
        for shard in range(2):
            ledger.planned(JOB, shard, 10)
        done = ask(ledger, "fast")
        assert done is not None
        ledger.commit(JOB, done.shard, 10, 0, seconds=USUAL)
        grant = ask(ledger, "slow-0")
        assert grant is not None
    else:
        grant, *_ = tail(ledger, held=1, done=0 if why == "nothing done" else 3)
    runs_for(ledger, (1.5 if why == "in time" else 5) * USUAL, grant.shard)
    if why == "queued":  # later: a service must answer first
        begin(ledger, "b", 1)
        ledger.redis.zadd(ledger.keys.job(JOB)[4], {"0": time.time() + 60})
    if why == "leaving":
        ledger.notice(JOB, grant.shard, grant.token)
    if why == "troubled":
        ledger.fault(JOB, grant.shard, grant.token, 0.0, process="other")
        grant = ask(ledger, "slow-0", number=1) or grant
        runs_for(ledger, 5 * USUAL, grant.shard)
    assert ledger.lapsed(JOB).step.tickets == 0 or why == "off"
    found = ask(ledger, "idle", speculative=why != "off")
    assert found is None or not found.copy


def test_a_training_is_never_copied(ledger: Ledger) -> None:
    assert {name for name, kind in KINDS.items() if kind.speculative}.isdisjoint({"train", "evaluate", "verify"})
    assert KINDS["classify"].speculative and KINDS["generate"].speculative


def test_a_copy_keeps_to_the_slots_that_a_job_and_its_owner_may_have(ledger: Ledger) -> None:
    grant, *_ = tail(ledger, held=1)
    runs_for(ledger, 5 * USUAL, grant.shard)
    ledger.redis.hset(ledger.keys.job(JOB)[0], "max_slots", "1")
    assert ledger.lapsed(JOB).step.tickets == 0
    assert ask(ledger, "idle") is None
    ledger.redis.hset(ledger.keys.job(JOB)[0], "max_slots", "2")
    assert ledger.lapsed(JOB).step.tickets == 1
    assert ask(ledger, "idle", owner_slots=1) is None
    copy = ask(ledger, "idle", owner_slots=2)
    assert copy is not None and copy.copy


def test_other_work_goes_first(ledger: Ledger) -> None:
    grant, *_ = tail(ledger, held=1)
    runs_for(ledger, 5 * USUAL, grant.shard)
    ledger.lapsed(JOB)
    begin(ledger, "b", 1)
    found = ask(ledger, "idle")
    assert found is not None and (found.job, found.copy) == ("b", False)
    assert (found := ask(ledger, "idle", number=1)) is not None and found.copy


@pytest.mark.parametrize("first", ["holder", "copy"])
def test_whoever_commits_first_counts_and_the_other_is_told(ledger: Ledger, first: str) -> None:
    # Given a shard and its copy,
    grant, copy = copied(ledger)
    winner, loser = (grant, copy) if first == "holder" else (copy, grant)
    assert ledger.renew(JOB, loser.shard, loser.token, 3, 0) == "renewed"

    # if one commits, I expect the other to be told at its next renewal, alone or among others,
    assert ledger.commit(JOB, winner.shard, 10, 0, seconds=25.0).state == "finalizing"
    assert ledger.renew_all([Held(JOB, loser.shard, loser.token)]) == ["done"]
    assert ledger.renew(JOB, loser.shard, loser.token, 9, 0) == "done"

    # and what it says afterwards to change nothing.
    assert ledger.fault(JOB, loser.shard, loser.token, 0.0, process="p").state == "lost"
    ledger.commit(JOB, loser.shard, 10, 0, seconds=99.0)
    ledger.lapsed(JOB)
    status = ledger.status(JOB)
    assert status is not None
    assert (status.done, status.shards.done, status.shards.running, copies(ledger), slots(ledger)) == (40, 4, 0, 0, 0)
    assert not ledger.redis.exists(ledger.keys.job(JOB)[3])


def copied(ledger: Ledger) -> tuple[Grant, Grant]:
    """The last shard of a job, as its slow holder got it and as another worker did."""
    grant, *_ = tail(ledger, held=1)
    runs_for(ledger, 5 * USUAL, grant.shard)
    ledger.lapsed(JOB)
    copy = ask(ledger, "idle")
    assert copy is not None and copy.copy and copy.shard == grant.shard
    assert ledger.begin(JOB, copy.shard, copy.token)
    return grant, copy


def test_a_copy_whose_worker_dies_counts_against_nothing(ledger: Ledger) -> None:
    grant, _ = copied(ledger)
    lapses(ledger, COPIES, grant.shard)
    assert ledger.lapsed(JOB).shards == ()
    assert (copies(ledger), slots(ledger)) == (0, 1)
    assert ledger.hash(ledger.keys.job(JOB)[3])[str(grant.shard)] == '{"copied":true}'

    # Once for each shard: no second worker is put at risk.
    runs_for(ledger, 50 * USUAL, grant.shard)
    assert ledger.lapsed(JOB).step.tickets == 0
    assert ask(ledger, "third") is None
    assert ledger.renew(JOB, grant.shard, grant.token, 5, 0) == "renewed"


def test_a_copy_takes_the_place_of_a_holder_that_dies(ledger: Ledger, hasty: Ledger) -> None:
    # Given a shard and its copy, if the holder's lease lapses, I expect one death, and the copy to go on in its place,
    grant, copy = copied(ledger)
    lapses(ledger, LEASES, grant.shard)
    look = hasty.lapsed(JOB)
    assert (look.shards, look.ready, look.running, copies(ledger), slots(ledger)) == ((), 0, 1, 0, 1)
    assert ledger.hash(ledger.keys.job(JOB)[3])[str(grant.shard)].count("shared") == 1
    assert ask(ledger, "third") is None, "it is not handed out a third time"
    assert ledger.renew_all([Held(JOB, copy.shard, copy.token, ok=4)]) == ["renewed"]

    # the holder that comes back to be turned away, and its death to be forgotten,
    assert ledger.renew(JOB, grant.shard, grant.token, 5, 0) == "lost"
    assert ledger.hash(ledger.keys.job(JOB)[3])[str(grant.shard)] == '{"copied":true}'
    assert ledger.release(JOB, grant.shard, grant.token).state == "lost"

    # and the shard to be handed out again if the copy dies too.
    lapses(ledger, LEASES, copy.shard)
    assert hasty.lapsed(JOB).shards == (copy.shard,)
    third = ask(ledger, "third")
    assert third is not None and not third.copy and third.trouble.deaths == 1


@pytest.mark.parametrize("who", ["holder", "copy"])
def test_either_may_give_the_shard_back_and_the_other_goes_on(ledger: Ledger, who: str) -> None:
    grant, copy = copied(ledger)
    leaver, stayer = (grant, copy) if who == "holder" else (copy, grant)
    assert ledger.release(JOB, leaver.shard, leaver.token).tickets == 0
    assert (copies(ledger), slots(ledger), ask(ledger, "third")) == (0, 1, None)
    assert ledger.renew(JOB, stayer.shard, stayer.token, 5, 0) == "renewed"
    assert ledger.release(JOB, stayer.shard, stayer.token).tickets == 1
    third = ask(ledger, "third")
    assert third is not None and not third.copy and third.trouble.attempts == 1


def test_a_wiped_redis_leaves_one_of_the_two(ledger: Ledger) -> None:
    # Given a shard and its copy, if Redis is wiped and the entry rebuilt,
    grant, copy = copied(ledger)
    ledger.redis.flushall()
    assert ledger.renew_all([Held(JOB, grant.shard, grant.token)]) == ["unknown"]
    ledger.create(spec_of(JOB), rebuild=True)
    ledger.complete(JOB, shards=4, items=40, error_limit=40, skipped=0)

    # I expect whoever speaks first to hold the shard, and the other to leave it.
    assert ledger.renew(JOB, copy.shard, copy.token, 5, 0) == "renewed"
    assert ledger.renew(JOB, grant.shard, grant.token, 5, 0) == "lost"
    ledger.open(JOB)
    assert (copies(ledger), slots(ledger)) == (0, 1)


def test_the_end_of_a_job_leaves_no_copy(ledger: Ledger) -> None:
    set_slots(ledger, {QUEUE: 4})
    grant, copy = copied(ledger)
    ledger.end(JOB, "canceled")
    assert (copies(ledger), slots(ledger)) == (0, 0)
    assert ledger.renew(JOB, copy.shard, copy.token, 5, 0) == "stopped"
    assert ledger.renew(JOB, grant.shard, grant.token, 5, 0) == "stopped"
    assert not ledger.redis.exists(f"{ledger.keys.dispatch[1]}{QUEUE}:tails")
