"""Locks that renew themselves, and that only their holder releases, on a real Redis."""

import pytest
import redis

from contract.backend.ledger import Ledger
from contract.errors import RedisUnavailable
from tests.waiting import wait_until


def holder(ledger: Ledger, id: str = "a") -> str | None:
    """What Redis has under the lock's name; each holder writes a token of its own."""
    return ledger.redis.get(ledger.keys.lock("plan", id))  # type: ignore[return-value]


def test_a_lock_that_somebody_holds_is_not_given_to_another(ledger: Ledger) -> None:
    with ledger.lock("plan", "a", 60) as one:
        assert one is not None and one.held
        assert ledger.locked("plan", "a")
        with ledger.lock("plan", "a", 60) as other:
            assert other is None
        assert one.renew(), "who did not get it has not released it"
    assert not ledger.locked("plan", "a")


def test_a_lock_is_released_when_the_work_under_it_fails(ledger: Ledger) -> None:
    with pytest.raises(RedisUnavailable), ledger.lock("plan", "a", 60):
        raise RedisUnavailable("Redis is away.")
    assert not ledger.locked("plan", "a")


def test_a_lock_that_is_held_is_renewed(ledger: Ledger) -> None:
    # Given a lock with a term of four seconds,
    with ledger.lock("plan", "a", 4) as lock:
        token, name = holder(ledger), ledger.keys.lock("plan", "a")

        # I expect its term to begin again, and again: each time that somebody makes it a minute, it is four seconds.
        for _ in range(2):
            ledger.redis.pexpire(name, 60_000)
            wait_until(lambda: ledger.redis.pttl(name) <= 4_000, 10, "a renewal")
        assert lock is not None and lock.held
        assert holder(ledger) == token


def test_who_is_cut_off_from_redis_holds_the_lock_for_its_term_and_no_longer(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a holder whose renewals do not reach Redis,
    def away(*_: object) -> None:
        raise redis.ConnectionError("away")

    with ledger.lock("plan", "a", 2) as cut_off:
        assert cut_off is not None and cut_off.held
        monkeypatch.setattr(cut_off._lock, "reacquire", away)

        # if another gets the lock, I expect the first to know that it does not have it.
        def taken() -> bool:
            with ledger.lock("plan", "a", 60) as other:
                return other is not None

        wait_until(taken, 10, "the term to end")
        assert not cut_off.held


def test_a_lock_that_ran_out_is_not_renewed_against_its_new_holder(ledger: Ledger) -> None:
    # Given a holder that lost its lock, as if it had been cut off for longer than the term,
    with ledger.lock("plan", "a", 60) as lost:
        assert lost is not None
        ledger.redis.delete(ledger.keys.lock("plan", "a"))

        # and another that has it now,
        with ledger.lock("plan", "a", 60) as now:
            assert now is not None
            token = holder(ledger)

            # I expect the first to see that it is gone, and not to take it back.
            assert not lost.renew()
            assert not lost.held
            assert holder(ledger) == token


def test_a_lock_that_ran_out_is_not_released_for_its_new_holder(ledger: Ledger) -> None:
    first = ledger.lock("plan", "a", 60)
    assert first.__enter__() is not None
    ledger.redis.delete(ledger.keys.lock("plan", "a"))
    with ledger.lock("plan", "a", 60) as second:
        assert second is not None

        # If the first ends while the second works, I expect the second to keep the lock.
        first.__exit__(None, None, None)
        assert ledger.locked("plan", "a")
        assert second.renew()


def test_one_caller_in_a_while_is_let_in(ledger: Ledger) -> None:
    assert ledger.once_in(60, "tick")
    assert not ledger.once_in(60, "tick")
    assert ledger.once_in(60, "another")
