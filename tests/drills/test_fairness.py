"""Large jobs share the workers alike, one image does not wait behind them, and to choose who is next costs little."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.backend.dispatch import Can, next_shard
from contract.backend.ledger import Ledger
from contract.fleet.snapshot import read_fleet
from contract.keys.queues import QUEUE_CLASSIFY
from tests.contract.backend.test_ledger import spec_of
from tests.fleet.commands import Meter
from tests.fleet.sleeper import SECONDS
from tests.fleet.sleeping_job import begin
from tests.mill import Mill
from tests.waiting import wait_until

LARGE = ("large-0", "large-1", "large-2")


def given(ledger: Ledger) -> Counter[str]:
    """How many shards of each job were handed out."""
    return Counter({job.id: job.shards.done + job.shards.running for job in read_fleet(ledger).jobs})


@pytest.mark.timeout(7200)
def test_three_large_jobs_and_one_image(
    tmp_path: Path, long: bool, figures: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two workers whose engine sleeps, and three jobs of one owner under way, of 1,000,000 items each,
    shards, items, seconds, span = (2000, 500, 5.0, 300) if long else (400, 4, 0.4, 90)
    monkeypatch.setenv(SECONDS, str(seconds))
    # They load no model, so that none shows in their heartbeats.
    monkeypatch.setattr(Mill, "ready", lambda mill: sum("slots" in w.fields for w in mill.client.workers()) >= 3)
    with Mill(tmp_path, 2, app="tests.fleet.sleeper", lease_seconds=30.0).running() as mill:
        client, ledger = mill.client, mill.client.backend.ledger
        for job in LARGE:
            begin(client.backend, job, shards, items, owner=client.settings.owns_as)

        def served(number: int) -> dict[str, int]:
            """What each large job is given of the next shards."""
            before = given(ledger)
            wait_until(lambda: sum((given(ledger) - before)[job] for job in LARGE) >= number, 1200, "shards")
            after = given(ledger)
            return {job: after[job] - before[job] for job in LARGE}

        served(2 * len(LARGE))
        equal = served(span)

        # if one image is submitted by the same owner, and then one of the jobs gets three times the weight,
        began = time.monotonic()
        begin(client.backend, "one", 1, owner=client.settings.owns_as)
        wait_until(lambda: client.status("one").done, 60, "the first row")
        first_row = time.monotonic() - began
        client.set_share(LARGE[0], weight=3)
        weighed = served(span)
        left = {job: client.status(job) for job in LARGE}
    share = weighed[LARGE[0]] / (sum(weighed.values()) - weighed[LARGE[0]]) * 2
    figures(
        items=3 * shards * items,
        shard_seconds=seconds,
        equal=list(equal.values()),
        spread=round(max(equal.values()) / min(equal.values()) - 1, 3),
        first_row_seconds=round(first_row, 2),
        weighed=list(weighed.values()),
        share_of_weight_3=round(share, 2),
    )
    # I expect the jobs to have been served alike, all of them to be under way,
    assert not any(status.ended for status in left.values())
    assert max(equal.values()) <= 1.1 * min(equal.values())
    # the image to have a row within two shards of its own and of the one that it waits for, and their share.
    assert not long or first_row <= 10
    assert 2.7 <= share <= 3.3


@pytest.mark.timeout(3600)
def test_who_is_next_costs_the_same_however_many_jobs_there_are(
    ledger: Ledger, long: bool, figures: Callable[..., None]
) -> None:
    """Counted in commands inside the step, none of which takes more time than grows with the logarithm of the jobs."""
    commands, micros = {}, {}
    begun = 0
    for many in (10, 100, 1000, 10_000) if long else (10, 1000):
        # Given so many jobs of ten owners, all of them with shards to run,
        for number in range(begun, many):
            ledger.create(spec_of(f"job-{number:05d}"), owner=f"owner-{number % 10}")
            ledger.complete(f"job-{number:05d}", shards=100, items=1000, error_limit=1000, skipped=0)
        begun = many
        # if a hundred shards are asked for,
        meter, before = Meter(ledger.redis), ledger.redis.info("commandstats")["cmdstat_evalsha"]
        for turn in range(100):
            token = f"w:{many}-{turn}"
            assert next_shard(ledger, QUEUE_CLASSIFY, token, Can("cpu", ("fp32",)), process="w", lease_seconds=600)
        after = ledger.redis.info("commandstats")["cmdstat_evalsha"]
        cost = meter.read()
        commands[many] = (sum(cost.commands.values()) - cost.commands["evalsha"]) / 100
        micros[many] = (after["usec"] - before["usec"]) / 100
    figures(commands_a_step=commands, microseconds_a_step=micros)
    # I expect a step to take as many commands as it did for ten jobs.
    assert max(commands.values()) <= 1.1 * min(commands.values())
