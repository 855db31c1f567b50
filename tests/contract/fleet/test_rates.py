"""Measured rates, on a real Redis."""

from __future__ import annotations

import math
from contextlib import closing

import pytest

from contract.backend.ledger import Ledger
from contract.backend.secret_url import SecretUrl
from contract.errors import RedisUnavailable
from contract.fleet import rates
from contract.fleet.rates import Meter, add_rates, prior, rate_field, read_rates
from contract.settings import Settings

CPU = rate_field("classify", "m@1", "cpu")


def test_a_prior_stands_in_until_something_is_measured(ledger: Ledger) -> None:
    found = read_rates(ledger).of("classify", "m@1", "cpu")
    assert (found.images_per_second, found.measured) == (prior("classify", "cpu"), False)
    assert prior("classify", "cuda") > prior("classify", "cpu")
    assert prior("a kind of tomorrow", "tpu") > 0


def test_a_rate_is_images_by_slot_seconds(ledger: Ledger) -> None:
    add_rates(ledger, [(CPU, 512, 10.0), (rate_field("generate", "m@1", "cpu"), 100, 1.0)])
    add_rates(ledger, [(CPU, 512, 6.0)])
    found = read_rates(ledger)
    assert found.of("classify", "m@1", "cpu").measured
    assert found.of("classify", "m@1", "cpu").images_per_second == pytest.approx(64, rel=0.01)
    assert found.of("generate", "m@1", "cpu").images_per_second == 100
    assert not found.of("classify", "m@1", "cuda").measured


def test_what_was_measured_earlier_counts_less(ledger: Ledger) -> None:
    # Given a rate of 10 that was measured ten half-lives ago, if I measure 100 with as many slot seconds,
    seconds, micros = ledger.redis.time()
    at = seconds + micros / 1e6 - 10 * rates.HALF_LIFE_SECONDS
    ledger.redis.hset(ledger.keys.rates, CPU, f"10 1000 100 {at:.3f}")
    add_rates(ledger, [(CPU, 10_000, 100.0)])
    # I expect about 100.
    assert read_rates(ledger).of("classify", "m@1", "cpu").images_per_second == pytest.approx(100, rel=0.01)


def test_the_hash_is_bounded_and_expires(ledger: Ledger) -> None:
    for n in range(rates.MOST_FIELDS + 5):
        add_rates(ledger, [(rate_field("classify", f"m{n}@1", "cpu"), 100, 1.0)])
    assert ledger.redis.hlen(ledger.keys.rates) == rates.MOST_FIELDS
    stamps = {value.split(" ")[3] for value in ledger.hash(ledger.keys.rates).values()}
    assert len(stamps) == rates.MOST_FIELDS, "none is as old as another, however fast they come"
    assert not read_rates(ledger).of("classify", "m0@1", "cpu").measured, "the oldest made room"
    assert read_rates(ledger).of("classify", f"m{rates.MOST_FIELDS + 4}@1", "cpu").measured
    assert 0 < ledger.redis.ttl(ledger.keys.rates) <= rates.KEEP_SECONDS


def test_values_of_others_are_left_out(ledger: Ledger) -> None:
    ledger.redis.hset(ledger.keys.rates, mapping={CPU: "fast", "x": "nan 1 1 1", "y": "-3 1 1 1"})
    assert read_rates(ledger).measured == {}
    add_rates(ledger, [(CPU, 100, 1.0)])
    assert math.isclose(read_rates(ledger).measured[CPU], 100)


def test_a_meter_leaves_out_what_waited_for_the_model(ledger: Ledger) -> None:
    meter = Meter()
    # Given two shards that began together while the model was loaded, and one after them,
    meter.add("classify", "m@1", "cpu", 64, 20.0)
    meter.add("classify", "m@1", "cpu", 64, 20.0)
    meter.add("classify", "m@1", "cpu", 128, 1e-9)
    meter.publish(ledger)
    # I expect the rate to be that of the last.
    assert ledger.redis.hget(ledger.keys.rates, CPU).split()[1] == "128"  # type: ignore[union-attr]
    assert meter.images_per_second() == pytest.approx(256 / 60, abs=0.1)


def test_trainings_are_not_counted_in_images(ledger: Ledger) -> None:
    meter = Meter()
    for _ in range(2):
        meter.add("train", "m", "cpu", 60_000, 1e-9)
    meter.publish(ledger)
    assert read_rates(ledger).measured == {}


def test_what_could_not_be_published_is_published_next_time(ledger: Ledger, settings: Settings) -> None:
    meter = Meter()
    for _ in range(2):
        meter.add("classify", "m@1", "cpu", 100, 1e-9)
    nowhere = settings.model_copy(update={"redis_url": SecretUrl("redis://127.0.0.1:1/0")})
    with closing(Ledger(nowhere, patience=0.0)) as away, pytest.raises(RedisUnavailable):
        meter.publish(away)
    meter.publish(ledger)
    assert read_rates(ledger).of("classify", "m@1", "cpu").measured
