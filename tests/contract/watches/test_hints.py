"""Hints in Redis: taken once by whoever is alive, bounded, and missed by nobody when they are gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from contract.backend.ledger import Ledger
from contract.errors import RedisUnavailable
from contract.watches.hints import Hints
from deploy.local.supervisor import Supervisor
from tests.mill import make_servers


def test_a_hint_is_taken_once_and_settled(ledger: Ledger) -> None:
    hints, stream = Hints(ledger), ledger.keys.hints("cam")
    hints.tell({"cam": ["a.jpg", "b.jpg", "a.jpg"], "other": ["c.jpg"]})
    assert hints.take("cam") == ["a.jpg", "b.jpg"]
    assert hints.take("cam") == []
    hints.settle("cam")
    assert ledger.redis.xlen(stream) == 0
    assert hints.take("other") == ["c.jpg"]
    # and all of it to be forgotten by itself
    assert 0 < ledger.redis.ttl(stream) <= 3600


def test_a_watch_without_hints_leaves_nothing_in_redis(ledger: Ledger) -> None:
    hints = Hints(ledger)
    assert hints.take("cam") == []
    hints.settle("cam")
    assert not ledger.redis.exists(ledger.keys.hints("cam"))


def test_what_a_dead_controller_took_is_taken_again(ledger: Ledger) -> None:
    # Given a controller that took hints, and died before it settled them
    dead = Hints(ledger)
    dead.tell({"cam": ["a.jpg", "b.jpg"]})
    assert dead.take("cam") == ["a.jpg", "b.jpg"]
    # I expect another one to leave them alone at first, and to take them once they have waited for long
    assert Hints(ledger).take("cam") == []
    patient = Hints(ledger, idle_seconds=0)
    assert patient.take("cam") == ["a.jpg", "b.jpg"]
    patient.settle("cam")
    assert Hints(ledger, idle_seconds=0).take("cam") == []


def test_what_was_dropped_is_taken_again(ledger: Ledger) -> None:
    hints = Hints(ledger, idle_seconds=0)
    hints.tell({"cam": ["a.jpg"]})
    assert hints.take("cam") == ["a.jpg"]
    hints.drop("cam")
    hints.settle("cam")
    assert hints.take("cam") == ["a.jpg"]


def test_hints_are_bounded(ledger: Ledger) -> None:
    hints = Hints(ledger, most=200)
    for first in range(0, 2000, 100):
        hints.tell({"cam": [f"{number}.jpg" for number in range(first, first + 100)]})
    # Redis trims whole nodes of a hundred entries
    assert 200 <= ledger.redis.xlen(ledger.keys.hints("cam")) <= 300
    assert hints.take("cam")[-1] == "1999.jpg"


def test_taken_hints_that_were_trimmed_are_no_error(ledger: Ledger) -> None:
    hints = Hints(ledger, most=1, idle_seconds=0)
    hints.tell({"cam": ["a.jpg"]})
    assert hints.take("cam") == ["a.jpg"]
    ledger.redis.xtrim(ledger.keys.hints("cam"), maxlen=0, approximate=False)
    assert hints.take("cam") == []
    hints.settle("cam")


@pytest.mark.parametrize("step", ["before", "taken"])
def test_a_redis_that_forgets_all_is_no_error(ledger: Ledger, step: str) -> None:
    hints = Hints(ledger)
    hints.tell({"cam": ["a.jpg"]})
    if step == "taken":
        hints.take("cam")
    ledger.redis.delete(ledger.keys.hints("cam"))
    hints.settle("cam")
    assert hints.take("cam") == []
    hints.tell({"cam": ["b.jpg"]})
    assert hints.take("cam") == ["b.jpg"]


def test_what_stands_in_place_of_a_stream_is_removed(ledger: Ledger) -> None:
    ledger.redis.set(ledger.keys.hints("cam"), "not a stream")
    hints = Hints(ledger)
    assert hints.take("cam") == []
    ledger.redis.lpush(ledger.keys.hints("cam"), "nor this")
    hints.tell({"cam": ["a.jpg"]})
    ledger.redis.xadd(ledger.keys.hints("cam"), {"another": "field"})
    assert hints.take("cam") == ["a.jpg"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Ledger]:
    """A Redis of its own, which may run out of memory."""
    (redis, *_), settings = make_servers(tmp_path)
    with Supervisor([redis], tmp_path / "logs") as supervisor:
        supervisor.start()
        with closing(Ledger(settings, patience=0)) as ledger:
            yield ledger


def test_a_redis_without_room_or_away_says_so(small: Ledger) -> None:
    # Given hints in a Redis that has no room left
    hints = Hints(small)
    hints.tell({"cam": ["a.jpg"]})
    small.redis.config_set("maxmemory", 1)
    # I expect whoever writes to hear of it, and whoever reads to go on
    with pytest.raises(RedisUnavailable, match="out of memory"):
        hints.tell({"cam": ["b.jpg"]})
    assert hints.take("cam") in ([], ["a.jpg"])
    small.redis.config_set("maxmemory", 0)
    hints.tell({"cam": ["c.jpg"]})
    hints.settle("cam")
    # and the same of a Redis that is gone
    small.redis.shutdown(nosave=True)
    assert hints.take("cam") == []
    with pytest.raises(RedisUnavailable):
        hints.tell({"cam": ["d.jpg"]})
