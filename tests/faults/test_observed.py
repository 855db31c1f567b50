"""A running stack, seen from outside: its figures agree with its rows, and its probes blame nobody for an outage."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.mill import Mill, check_complete
from tests.synthetic import colour
from tests.waiting import wait_until

IMAGES, BAD = 60, 3


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    # A range, because other tests may run on this machine; and a lease that lapses on a busy one would begin its shard
    # again, and count its images twice.
    whole = Mill(
        tmp_path_factory.mktemp("observed"), workers=1, metrics_port="21000-21999", log="json", lease_seconds=30.0
    )
    with whole.running():
        yield whole


def ask(address: str, path: str) -> tuple[int, str]:
    """Status and body; 0 if nobody listens."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (URLError, ConnectionError) as error:
        return 0, str(error)


def address(mill: Mill, role: str) -> str:
    """Where the port of a process is, by its heartbeat, once there is one."""

    def beating() -> list[str]:
        return [worker.fields["metrics"] for worker in mill.client.workers() if worker.name.startswith(role)]

    [found] = wait_until(beating, 60, f"the heartbeat of the {role}")
    assert found, f"{role} has no port"
    return found


def values(mill: Mill, role: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus' parser reads."""
    status, body = ask(address(mill, role), "/metrics")
    assert status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def total(mill: Mill, role: str, name: str, **labels: str) -> float:
    """The sum of the series of a metric that have these labels."""
    wanted = frozenset(labels.items())
    return sum(value for (found, there), value in values(mill, role).items() if found == name and wanted <= there)


def test_counters_agree_with_the_rows(mill: Mill, tmp_path: Path) -> None:
    # Given a job with a few broken files that has ended,
    photos = tmp_path / "photos"
    photos.mkdir()
    names = [f"{n:03d}.png" for n in range(IMAGES)]
    for n, name in enumerate(names):
        colour(n % 10, n).save(photos / name)
    for n in range(BAD):
        (photos / f"bad-{n}.jpg").write_bytes(b"")
        names.append(f"bad-{n}.jpg")
    job = mill.client.classify(photos, model="efficientnet-lite0", shard_size=16).id
    status = mill.finished(job)
    check_complete(mill.client, job, names)

    # if I read the worker's figures, I expect its rows, by status and by code,
    codes = Counter(str(row["error_code"]) for row in mill.client.results(job) if row["status"] == "error")
    assert codes == {"empty_file": BAD}
    exact = [
        ("imagemill_images_total", {"kind": "classify", "status": "ok"}, status.ok),
        ("imagemill_images_total", {"kind": "classify", "status": "error"}, BAD),
        ("imagemill_image_errors_total", {"code": "empty_file"}, BAD),
        ("imagemill_attempts_total", {"outcome": "committed"}, status.shards.total),
        ("imagemill_shard_seconds_count", {}, status.shards.total),
    ]

    def counted() -> bool:
        return all(total(mill, "worker", name, **labels) == number for name, labels, number in exact)

    # A job may end before its worker has counted its last attempt.
    wait_until(counted, 30, "the worker to have counted what it committed")
    for stage in ("fetch", "decode", "forward", "encode", "put"):
        assert total(mill, "worker", "imagemill_stage_seconds_total", stage=stage) > 0, stage
    assert total(mill, "worker", "imagemill_store_seconds_count", operation="put_if_absent") > 0

    # those of the controller in the end,
    def idle() -> bool:
        return not total(mill, "controller", "imagemill_jobs") and total(mill, "controller", "imagemill_slots") > 0

    wait_until(idle, 30, "the controller to see an idle fleet")

    def ended() -> bool:
        return total(mill, "controller", "imagemill_jobs_ended_total", state="succeeded") == 1 and (
            total(mill, "controller", "imagemill_finalize_seconds_count", kind="classify") == 1
        )

    wait_until(ended, 30, "the controller to have counted the end")
    assert total(mill, "controller", "imagemill_workers", state="serving") >= 1
    assert total(mill, "controller", "imagemill_reconcile_seconds_count") > 0
    assert total(mill, "worker", "imagemill_device_busy_seconds_total") > 0
    assert counted() and ended()
    assert ask(address(mill, "controller"), "/scale/nowhere")[0] == 404

    # and neither the job nor the worker in any of them.
    for role in ("worker", "controller"):
        page = ask(address(mill, role), "/metrics")[1]
        assert job not in page and "worker-0@" not in page
        assert mill.settings.s3_secret_key.get_secret_value() not in page


def test_a_generator_and_a_training_show_where_their_time_goes(mill: Mill, tmp_path: Path) -> None:
    # Given a worker that has made images, and then learned from others,
    def busy() -> float:
        return total(mill, "worker", "imagemill_device_busy_seconds_total")

    def stages() -> dict[str, float]:
        return {
            stage: total(mill, "worker", "imagemill_stage_seconds_total", stage=stage)
            for stage in ("sample", "encode", "put", "read", "step", "validate", "checkpoint")
        }

    def passed(before: dict[str, float], *names: str) -> bool:
        now = stages()
        return all(now[name] > before[name] for name in names)

    before, at = busy(), stages()
    job = mill.client.generate("fashion-gan", count=100).id
    assert mill.finished(job).state == "succeeded"

    # if I read its figures, I expect the time of its stages, and the device to have been busy,
    wait_until(lambda: passed(at, "sample", "encode", "put"), 30, "the stages of a generator")
    assert busy() > before
    wait_until(
        lambda: total(mill, "worker", "imagemill_images_total", kind="generate", status="ok") == 100,
        30,
        "the images to be counted",
    )

    # and the same of a training, whose images count as it learns from them.
    for label, number in ((label, number) for label in range(2) for number in range(20)):
        (tmp_path / f"class-{label}").mkdir(exist_ok=True)
        colour(label, number).save(tmp_path / f"class-{label}" / f"{number}.png")
    before, at = busy(), stages()
    settings = ["size=8", "variant=classic", "batch_size=8"]
    job = mill.client.train("cnn", tmp_path, name="colours", epochs=2, settings=settings).id
    trained = mill.finished(job)
    assert trained.state == "succeeded", trained.reason
    wait_until(lambda: passed(at, "read", "step", "validate", "checkpoint"), 30, "the stages of a training")
    assert total(mill, "worker", "imagemill_trained_images_total", task="classify") == trained.total
    assert busy() > before


def test_each_line_of_the_logs_is_an_object_that_says_what_it_is_about(mill: Mill, tmp_path: Path) -> None:
    # Given a job whose images have hostile names,
    photos = tmp_path / "photos"
    photos.mkdir()
    colour(1, 1).save(photos / "good.png")
    (photos / 'bad\n{"level": "CRITICAL"}.jpg').write_bytes(b"")
    job = mill.client.classify(photos, model="efficientnet-lite0").id
    mill.finished(job)

    # if I read the logs of all processes, Celery's own lines and banners among them, I expect an object in each line,
    def lines(name: str) -> list[dict[str, Any]]:
        # A line may just be written.
        whole = mill.log(name).rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    for name in ("worker-0", "controller", "clock"):
        for line in lines(name):
            assert {"time", "level", "logger", "message"} <= set(line), line
            assert line["level"] != "CRITICAL"
    assert any(line["logger"].startswith("celery.") for line in lines("worker-0"))

    # and the lines about a shard say which, of which job, at which attempt, and on which worker.
    [began] = [line for line in lines("worker-0") if line.get("job") == job and "begins" in line["message"]]
    assert (began["shard"], began["attempt"]) == (0, 1)
    assert began["worker"].startswith("worker-0@")


def test_both_live_and_are_ready(mill: Mill) -> None:
    def ready(role: str) -> bool:
        return ask(address(mill, role), "/readyz")[0] == 200

    for role in ("worker", "controller"):
        wait_until(partial(ready, role), 60, f"the {role} to be ready")
        assert ask(address(mill, role), "/livez") == (200, "ok\n")
        assert ask(address(mill, role), "/metrics/..")[0] == 404


def test_a_redis_that_is_away_ends_nobody(mill: Mill) -> None:
    # Given a stack whose processes are ready,
    ports = [address(mill, role) for role in ("worker", "controller")]

    # if Redis is away, I expect both to live,
    mill.supervisor.stop_service("redis")
    for port in ports:
        assert ask(port, "/livez") == (200, "ok\n")
    mill.supervisor.start("redis")
    wait_until(mill.ready, 60, "the worker to be back")
    for port in ports:
        assert ask(port, "/livez") == (200, "ok\n")

    # and if the worker is told to leave, that nobody answers at its port once it has gone.
    mill.supervisor.stop_service("worker-0")
    assert ask(ports[0], "/readyz")[0] == 0
    for line in mill.log("worker-0").splitlines():
        json.loads(line)
