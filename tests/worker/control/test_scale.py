"""What the controller answers at `/scale/<pool>`, on a real Redis."""

from __future__ import annotations

import json

import pytest

from contract.backend.ledger import Ledger
from contract.errors import InvalidInput, InvalidSettings
from contract.fleet.pools import read_pools
from contract.fleet.snapshot import read_fleet
from contract.keys.queues import WORKER_QUEUES
from contract.settings import Settings
from tests.contract.backend.test_ledger import begin
from worker.control.scale import Scale


def pools(settings: Settings, **named: object) -> Settings:
    return settings.model_copy(update={"pools": json.dumps(named)})


def test_without_pools_there_is_one_on_all_queues(ledger: Ledger, settings: Settings) -> None:
    policy = read_pools(settings)["default"]
    assert (policy.queues, policy.least) == (WORKER_QUEUES, 0)
    assert Scale(ledger, settings).answer("default")["wanted"] == 0


def test_a_pool_answers_for_what_it_serves(ledger: Ledger, settings: Settings) -> None:
    own = pools(settings, cpu={"queues": ["classify"], "max": 7, "target_seconds": 60}, gpu={"queues": ["generate"]})
    # Given 5,000 shards of ten images and no worker,
    begin(ledger, "a", 5000)
    found = Scale(ledger, own).answer("cpu")
    # I expect the most workers of the pool that serves them, and none of the other.
    assert (found["pool"], found["wanted"], found["live"], found["max"]) == ("cpu", 7, 0, 7)
    assert (found["backlog_images"], found["backlog_seconds"]) == (50_000, 1000.0)
    assert "7" in found["why"]
    assert Scale(ledger, own).wanted(read_fleet(ledger)) == {"cpu": 7, "gpu": 0}


def test_the_cool_down_goes_on_at_another_controller(ledger: Ledger, settings: Settings) -> None:
    own = pools(settings, default={"cool_down_seconds": 3600})
    begin(ledger, "a", 5000)
    asked = Scale(ledger, own).answer("default")["wanted"]
    assert asked > 1
    ledger.end("a", "canceled")
    # Given workers that nothing waits for any more, if another controller is asked, I expect the same answer.
    assert Scale(ledger, own).answer("default")["wanted"] == asked
    key = ledger.keys.scale("default")
    assert 0 < ledger.redis.ttl(key) <= 3600
    # What it remembers is disposable, and may be another version's.
    ledger.redis.set(key, '{"workers": 3, "of": "tomorrow"}')
    assert Scale(ledger, own).answer("default")["wanted"] == 0


def test_a_pool_that_nobody_named_is_refused(ledger: Ledger, settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="no pool 'gpu'; IMAGEMILL_POOLS names default"):
        Scale(ledger, settings).answer("gpu")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("gpu", "the value: Invalid JSON"),
        ('{"gpu": {"max": "many"}}', r"gpu\.max: Input should be a valid integer"),
        ('{"gpu": {"mx": 3}}', r"gpu\.mx: Extra inputs"),
        ('{"GPU!": {}}', "String should match"),
        ('{"gpu": {"min": 3, "max": 2}}', "At least 3 and at most 2"),
        ('{"gpu": {"queues": ["labels"]}}', "no queue 'labels'"),
    ],
)
def test_pools_that_cannot_be_read_are_said_so(settings: Settings, value: str, said: str) -> None:
    with pytest.raises(InvalidSettings, match=said):
        read_pools(settings.model_copy(update={"pools": value}))
