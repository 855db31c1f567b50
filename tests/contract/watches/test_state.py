"""What is known of a watch, and how far behind it is."""

from __future__ import annotations

from contract.backend.ledger import Ledger
from contract.watches.state import WatchState, read_states, write_states


def state(**fields: object) -> WatchState:
    known = {"name": "camera", "stamp": "s", "controller": "c", "at": 1000.0, "every": 5.0, "swept_at": 998.0}
    return WatchState.model_validate({**known, **fields})


def test_nothing_that_waits_is_no_lag() -> None:
    assert state().lag(1001.0) == 0.0


def test_the_lag_is_the_age_of_the_oldest_object_that_waits() -> None:
    assert state(oldest=940.0, pending=3).lag(1000.0) == 60.0
    # A clock of the store that is ahead gives none below zero.
    assert state(oldest=1010.0, pending=1).lag(1000.0) == 0.0


def test_if_nobody_looks_for_long_the_lag_is_that_time() -> None:
    assert state().lag(1400.0) == 402.0
    assert state(every=300.0).lag(1400.0) == 0.0


def test_a_paused_watch_has_no_lag() -> None:
    assert state(paused=True).lag(1400.0) == 0.0


def test_states_are_written_read_and_forgotten(ledger: Ledger) -> None:
    write_states(ledger, [state(), state(name="door")])
    ledger.redis.hset(ledger.keys.watches, "future", '{"no": "state"}')
    assert read_states(ledger) == {"camera": state(), "door": state(name="door")}
    write_states(ledger, [], gone=["camera"])
    assert set(read_states(ledger)) == {"door"}
