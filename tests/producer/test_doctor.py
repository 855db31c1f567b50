"""The doctor names what is wrong and what to do."""

from __future__ import annotations

import pytest

from contract.backend.heartbeats import Worker
from contract.backend.objects import ObjectStore
from contract.backend.secret_url import SecretUrl
from contract.online.messages import MOST_WAITING_BYTES
from contract.settings import Settings
from producer.doctor import (
    Check,
    check_clock,
    check_confinement,
    check_metrics,
    check_online,
    check_redis,
    check_workers,
    exit_code,
    run_checks,
)


def test_a_redis_that_is_old_or_forgets_is_named() -> None:
    info = {"redis_version": "5.0.9", "maxmemory_policy": "allkeys-lru", "aof_enabled": 0}

    checks = list(check_redis(info))

    assert [check.ok for check in checks] == [False, False, False]
    assert "install 6.2 or newer" in checks[0].detail
    assert "maxmemory-policy noeviction" in checks[1].detail
    assert "appendonly yes" in checks[2].detail


def test_a_good_redis_passes() -> None:
    info = {"redis_version": "7.0.15", "maxmemory_policy": "noeviction", "aof_enabled": 1}

    assert all(check.ok for check in check_redis(info))


def test_a_redis_of_requests_that_is_set_up_like_that_of_the_ledger_is_named() -> None:
    # Given one that evicts, has no bound and writes to disk, I expect each with its command,
    check = check_online({"maxmemory_policy": "allkeys-lru", "maxmemory": 0, "aof_enabled": 1})
    assert not check.ok
    for advice in ("maxmemory-policy noeviction", "maxmemory 256mb", "appendonly no"):
        assert f"CONFIG SET {advice}" in check.detail
    # one that is too small, and a good one to pass.
    good = {"maxmemory_policy": "noeviction", "maxmemory": 2 * MOST_WAITING_BYTES, "aof_enabled": 0}
    assert "128 MiB are not enough" in check_online({**good, "maxmemory": MOST_WAITING_BYTES}).detail
    assert check_online(good) == Check("online redis", True, "maxmemory 256 MiB, noeviction")


def test_it_asks_the_redis_of_requests_where_one_is_named(
    settings: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given settings without such a Redis, with one, and with one that is away, I expect no line, a verdict, a reason.
    found = []
    for url in ("", str(settings.redis_url.get_secret_value()), "redis://127.0.0.1:1/0"):
        asked = settings.model_copy(update={"online_redis_url": SecretUrl(url)})
        monkeypatch.setattr("producer.doctor.current", lambda asked=asked: asked)
        found.append([check for check in run_checks() if check.name == "online redis"])
    nothing, [asked_it], [away] = found
    assert nothing == [] and not asked_it.unreachable
    assert away.unreachable and "IMAGEMILL_ONLINE_REDIS_URL" in away.detail


def test_a_worker_is_shown_with_its_device_and_a_missing_controller_is_named() -> None:
    worker = Worker("w1", {"queues": "classify", "device": "cpu", "runtime": "openvino/bf16"})

    controller, workers = check_workers([worker])

    assert (controller.ok, workers.ok) == (False, True)
    assert workers.detail == "w1 (cpu, openvino/bf16)"
    assert "no job is planned" in controller.detail


def test_workers_that_are_all_unfit_are_as_bad_as_none() -> None:
    fit = Worker("w1", {"queues": "classify", "device": "cpu", "unfit": ""})
    sick = Worker(
        "w2", {"queues": "classify", "device": "cuda", "unfit": "a known good image fails on it (CUDA error)"}
    )

    assert list(check_workers([fit, sick]))[1].ok
    _, workers = check_workers([sick])
    assert not workers.ok
    assert workers.detail == "w2 (takes no shards: a known good image fails on it (CUDA error))"


def test_exit_codes_tell_what_cannot_be_reached_from_what_is_wrong() -> None:
    fine, wrong, away = Check("a", True, ""), Check("b", False, ""), Check("c", False, "", unreachable=True)

    assert exit_code([fine]) == 0
    assert exit_code([fine, wrong]) == 1
    assert exit_code([wrong, away]) == 3


def test_a_clock_that_stands_still_is_said() -> None:
    assert check_clock(True).ok
    assert "celery -A worker.app beat" in check_clock(False).detail


def test_missing_layers_of_confinement_are_named() -> None:
    whole, lacks = Worker("w1", {"unconfined": ""}), Worker("w2", {"unconfined": "landlock,seccomp"})
    [check] = check_confinement([whole, lacks])
    assert not check.ok and "w2 (landlock, seccomp)" in check.detail and "w1" not in check.detail
    assert list(check_confinement([whole])) == []


def test_it_says_where_metrics_are() -> None:
    # Given a worker that shows metrics and one that does not, I expect the first one's address, and no line without.
    shows, hides = Worker("w1", {"metrics": "127.0.0.1:9464"}), Worker("w2", {"metrics": ""})
    [check] = check_metrics([shows, hides])
    assert check.ok and check.detail == "w1 at 127.0.0.1:9464"
    assert list(check_metrics([hides])) == []
