"""The thread that renews leases: what it learns, what it tells, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from redis.exceptions import ResponseError

from contract.backend.ledger import Held, Ledger, Renewed
from contract.errors import JobStopped, LeaseLost, RedisUnavailable, WorkerLeaving
from contract.settings import Settings
from tests.contract.backend.test_ledger import begin
from tests.taking import take
from tests.waiting import wait_until
from worker.execution.leases import Lease, LeaseRenewer


class CountingLedger(Ledger):
    """A ledger that knows how often it was asked to renew, and may be out of reach."""

    renewals = 0
    away = False

    def renew_all(self, held: list[Held]) -> list[Renewed]:  # type: ignore[override]
        self.renewals += 1
        if self.away:
            raise RedisUnavailable("Redis is away.")
        return super().renew_all(held)


@pytest.fixture
def counting(settings: Settings) -> Iterator[CountingLedger]:
    with closing(CountingLedger(settings.model_copy(update={"lease_seconds": 2.0}))) as made:
        yield made


@pytest.fixture
def renewer(counting: CountingLedger) -> Iterator[LeaseRenewer]:
    with closing(LeaseRenewer(counting, 2.0)) as made:
        yield made


def taken(ledger: Ledger, job: str, shard: int) -> Lease:
    token = f"w:{job}-{shard}"
    assert take(ledger, job, shard, token)[0] == "taken"
    return Lease(job, shard, token)


def test_one_call_renews_all_and_says_which_jobs_were_stopped(counting: CountingLedger, renewer: LeaseRenewer) -> None:
    # Given leases of two jobs,
    begin(counting, "a", 3)
    begin(counting, "b", 1)
    leases = [taken(counting, "a", n) for n in range(3)]
    other = taken(counting, "b", 0)
    with ExitStack() as stack:
        for lease in (*leases, other):
            stack.enter_context(renewer.hold(lease))
        # if one job is canceled, and a shard of the other is taken over,
        counting.end("b", "canceled")
        counting.commit("a", 0, 10, 0)
        before = counting.renewals
        wait_until(lambda: other.over and leases[0].over, 10, "the renewer to notice")
        # I expect the shards at fault to stop, after two calls at most for four leases, and the others to go on.
        assert counting.renewals - before <= 2
        with pytest.raises(JobStopped):
            other.check()
        with pytest.raises(LeaseLost):
            leases[0].check()
        leases[1].check()


def test_who_holds_nothing_asks_nothing(counting: CountingLedger, renewer: LeaseRenewer) -> None:
    begin(counting, "a", 2)
    with renewer.hold(taken(counting, "a", 0)):
        wait_until(lambda: counting.renewals >= 2, 10, "two renewals")
    # Given a renewer that has nothing left, I expect it to sleep without an end in sight,
    wait_until(lambda: renewer._renew_at is None, 10, "it to see that")
    seen = counting.renewals
    # and to begin again with the next lease.
    with renewer.hold(taken(counting, "a", 1)):
        wait_until(lambda: counting.renewals > seen, 10, "a renewal")


def test_a_redis_that_is_away_stops_no_work(counting: CountingLedger, renewer: LeaseRenewer) -> None:
    begin(counting, "a", 1)
    lease = taken(counting, "a", 0)
    with renewer.hold(lease):
        counting.away = True
        seen = counting.renewals
        wait_until(lambda: counting.renewals > seen + 1, 10, "two tries")
        lease.check()
        counting.away = False
        counting.end("a", "canceled")
        wait_until(lambda: lease.over == "stopped", 10, "the news")


def test_a_mistake_does_not_end_the_thread_that_renews(
    counting: CountingLedger, renewer: LeaseRenewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an answer that nobody foresaw, as to a renewal in a Redis in which somebody else writes,
    begin(counting, "a", 1)
    lease = taken(counting, "a", 0)
    raised: list[int] = []

    def unforeseen(held: list[Held]) -> list[Renewed]:
        raised.append(len(held))
        raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")

    with renewer.hold(lease):
        with monkeypatch.context() as patched:
            patched.setattr(counting, "renew_all", unforeseen)
            wait_until(lambda: raised, 10, "a try")
        # I expect the next ones to be made.
        counting.end("a", "canceled")
        wait_until(lambda: lease.over == "stopped", 10, "the news")


def test_a_worker_that_leaves_says_so_at_once_and_gives_back_later(
    counting: CountingLedger, renewer: LeaseRenewer
) -> None:
    begin(counting, "a", 2)
    first, second = taken(counting, "a", 0), taken(counting, "a", 1)
    with renewer.hold(first):
        renewer.notice(0.2)
        wait_until(lambda: first.mode == "notice", 10, "the ledger to know")
        with renewer.hold(second):  # taken just before
            wait_until(lambda: first.over == second.over == "leaving", 10, "both to be given back")
            with pytest.raises(WorkerLeaving):
                second.check()


def test_what_waits_for_the_web_is_told_at_each_change(counting: CountingLedger) -> None:
    told: list[int] = []
    begin(counting, "a", 1)
    with closing(LeaseRenewer(counting, 2.0, told.append)) as renewer:
        lease = taken(counting, "a", 0)
        with renewer.hold(lease):
            lease.gives_way()
            wait_until(lambda: told == [1], 10, "one that waits")
            lease.progress(1, 0)
            wait_until(lambda: told == [1, 0], 10, "none that waits")
            lease.gives_way()
            wait_until(lambda: told == [1, 0, 1], 10, "one again")
        wait_until(lambda: told == [1, 0, 1, 0], 10, "the end of the shard")


def test_a_lease_that_cannot_be_given_back_keeps_no_other(counting: CountingLedger, renewer: LeaseRenewer) -> None:
    # Given two leases that are given back late, of which one cannot be, since somebody wrote over what it needs,
    begin(counting, "a", 1)
    begin(counting, "b", 1)
    first, second = taken(counting, "a", 0), taken(counting, "b", 0)
    counting.redis.set(counting.keys.job("a")[3], "x")
    for lease in (first, second):
        renewer.release_later(lease)

    # I expect the other to be given back,
    queued = counting.keys.job("b")[4]
    wait_until(lambda: counting.redis.exists(queued), 10, "the second lease")
    wait_until(lambda: not renewer._late, 10, "none to be left")
    # and its shard to run again after a pause, not at once.
    status = counting.status("b")
    assert status is not None and status.shards.running == 0
    seconds, micros = counting.redis.time()
    assert float(counting.redis.zscore(queued, "0") or 0) > seconds + micros / 1e6 - 1
    assert take(counting, "b", 0, "w:2")[0] == "later"
