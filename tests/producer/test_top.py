"""`imagemill top`: what a frame says, at any width, and the command on a real Redis."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from contract.backend.ledger import Ledger
from contract.errors import RedisUnavailable
from contract.fleet.rates import Rates
from contract.fleet.snapshot import Fleet, JobState, WorkerState, queue_state
from contract.jobs.status import Shards
from contract.keys.queues import WORKER_QUEUES
from contract.settings import Settings, current
from producer.cli import cli
from producer.cli.frame import as_object, frame
from tests.contract.backend.test_ledger import begin

HOSTILE = "[red]a\x1b[2J\n\u202eb"


def worker(name: str, **fields: Any) -> WorkerState:
    known: dict[str, Any] = {
        "host": "node-3",
        "pool": "default",
        "queues": ("classify", "generate"),
        "slots": 3,
        "busy": 2,
        "device": "cpu",
        "precisions": ("fp32",),
        "models": ("efficientnet-lite0@1",),
        "rate": 41.5,
        "since": 0.0,
        "draining": False,
        "unfit": "",
    }
    return WorkerState(name=name, **{**known, **fields})


def job(id: str, **fields: Any) -> JobState:
    known: dict[str, Any] = {
        "owner": "",
        "kind": "classify",
        "queue": "classify",
        "priority": "normal",
        "state": "running",
        "model": "efficientnet-lite0@1",
        "items": 1_000_000,
        "done": 250_000,
        "errors": 12,
        "shards": Shards(total=1000, done=250, running=2, queued=748),
        "max_slots": 0,
        "images_per_second": 1000.0,
        "waiting_seconds": 90.0,
        "backlog_seconds": 3000.0,
    }
    return JobState(id=id, **{**known, **fields})


def fleet(*, workers: tuple[WorkerState, ...] = (), jobs: tuple[JobState, ...] = ()) -> Fleet:
    queues = tuple(queue_state(name, jobs, workers, 0) for name in WORKER_QUEUES)
    return Fleet(at=7200.0, workers=workers, queues=queues, jobs=jobs, rates=Rates())


def drawn(of: Fleet, width: int, max_lines: int | None = None) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(frame(of, width, max_lines))
    return out.getvalue()


BUSY = fleet(workers=(worker("worker-1@node-3"),), jobs=(job("classify-20261124-093215-7f3a09c4"),))


def test_a_wide_terminal_shows_everything_whole() -> None:
    said = drawn(BUSY, 200)
    first = said.splitlines()[0].rstrip()
    assert first == "1 worker, 2 of 3 slots busy, 41.5 images/s, 750,000 images left, about 16 min 40 s"
    for text in ("classify-20261124-093215-7f3a09c4", "250,000/1,000,000", "12 min 30 s", "efficientnet-lite0@1"):
        assert text in said
    assert "classify,generate" in said and "node-3" in said and "…" not in said


def test_a_narrow_terminal_still_tells_one_job_from_another() -> None:
    said = drawn(BUSY, 80)
    assert all(len(line) <= 80 for line in said.splitlines())
    for text in ("-7f3a09c4", "classify", "running", "250,000/1,000,000", "1,000.0", "12 min 30 s", "worker-1@node-3"):
        assert text in said


@pytest.mark.parametrize("width", [80, 200])
def test_hostile_names_stay_text(width: int) -> None:
    one = fleet(workers=(worker(HOSTILE, unfit=HOSTILE),), jobs=(job(HOSTILE, model=HOSTILE, state=HOSTILE),))
    plain = fleet(workers=(worker("w", unfit="no"),), jobs=(job("a"),))
    said = drawn(one, width)
    assert "\x1b" not in said and "\u202e" not in said
    assert "[red]a\\" in said
    assert len(said.splitlines()) == len(drawn(plain, width).splitlines()), "a line feed forges no line"


@pytest.mark.parametrize("width", [100, 160])
def test_a_worker_shows_what_it_takes_at_any_width(width: int) -> None:
    rule = "models fashion-*, digits@3"
    pool = [worker(f"w{n}", memory=15, runtimes=("openvino", "torch"), rule=rule) for n in range(5)]
    said = drawn(fleet(workers=(*pool, worker("any"))), width)
    assert "15 GiB" in said and "openvino+torch" in said
    assert f"w0, w1, w2 and 2 more take {rule}" in said


def test_a_job_that_no_live_worker_can_run_is_named() -> None:
    why = f"a worker that may load resnet@3 ({HOSTILE})"
    said = drawn(fleet(workers=(worker("w"),), jobs=tuple(job(f"j{n}", waiting_for=why) for n in range(5))), 200)
    assert said.count("waits for a worker that may load resnet@3") == 3
    assert "2 more wait for a worker that can run them; see `imagemill jobs`" in said
    assert "\x1b" not in said and "\u202e" not in said
    # Without any worker it is the queue that waits.
    alone = drawn(fleet(jobs=(job("j", waiting_for="a worker of the queue classify"),)), 200)
    assert "waits for" not in alone and "which no worker takes" in alone


def test_an_empty_fleet_says_what_to_do_next() -> None:
    said = drawn(fleet(), 80)
    assert said.startswith("0 workers, 0 of 0 slots busy")
    assert "`imagemill up`" in said and "QUEUE" not in said
    assert "`imagemill classify --help`" in drawn(fleet(workers=(worker("w"),)), 80)


def test_a_queue_that_waits_without_a_worker_is_named() -> None:
    # A worker that drains takes nothing new.
    said = drawn(fleet(workers=(worker("w", draining=True),), jobs=(job("a"),)), 200)
    assert "748 wait on the queue classify, which no worker takes" in said
    assert "imagemill-worker run --queues classify" in said
    assert "no worker" in said


def test_a_low_terminal_shows_fewer_rows_and_says_so() -> None:
    many = fleet(
        workers=tuple(worker(f"w-{n:04d}") for n in range(1000)), jobs=tuple(job(f"job-{n:03d}") for n in range(50))
    )
    said = drawn(many, 80, max_lines=24)
    assert len(said.splitlines()) <= 24
    assert "`imagemill workers` lists all" in said and "`imagemill jobs` lists all" in said
    assert len(drawn(many, 80).splitlines()) > 1050


def test_a_frame_is_one_json_object() -> None:
    found = json.loads(json.dumps(as_object(BUSY)))
    assert found["workers"][0]["state"] == "busy"
    assert found["jobs"][0]["shards"]["queued"] == 748
    assert [one["queue"] for one in found["queues"]] == list(WORKER_QUEUES)


@pytest.fixture
def addressed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("producer.client.current", lambda: settings)
    yield
    current.cache_clear()


def test_the_command_prints_one_frame_where_there_is_no_terminal(addressed: None, ledger: Ledger) -> None:
    begin(ledger, "mine", 5)
    ledger.beat("a@h", 60.0, host="h", queues="classify", slots=3, shards=1, device_kind="cpu")

    done = CliRunner().invoke(cli, ["top"], env={"COLUMNS": "80"})
    assert (done.exit_code, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.startswith("1 worker, 1 of 3 slots busy") and "0/50" in done.stdout and "a@h" in done.stdout

    done = CliRunner().invoke(cli, ["top", "--once", "--json"])
    (line,) = done.stdout.splitlines()
    assert [one["id"] for one in json.loads(line)["jobs"]] == ["mine"]


def test_without_redis_it_fails_once_and_tries_again_otherwise(
    addressed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Fleet | BaseException] = [RedisUnavailable("Redis is away."), BUSY, KeyboardInterrupt()]

    def read(_: object) -> Fleet:
        answer = answers.pop(0)
        if isinstance(answer, Fleet):
            return answer
        raise answer

    monkeypatch.setattr("producer.client.Client.fleet", read)
    done = CliRunner().invoke(cli, ["top", "--json", "--every", "0.2"])
    assert (done.exit_code, done.stderr, len(done.stdout.splitlines())) == (0, "Redis is away. Trying again.\n", 1)

    answers[:] = [RedisUnavailable("Redis is away.")]
    done = CliRunner().invoke(cli, ["top", "--once"])
    assert (done.exit_code, done.stdout, done.stderr) == (3, "", "imagemill: Redis is away.\n")
