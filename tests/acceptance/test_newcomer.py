"""What a newcomer does on the first day, command by command."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.acceptance.conftest import DOCUMENTED, MODEL, Shell, workers_asleep
from tests.conftest import PHOTOS
from tests.gate import Gate
from tests.mill import ROOT
from tests.waiting import wait_until

ANY = ("--max-errors", "100%")
"""Two in five of the mixed files are broken."""


def test_a_second_up_finds_the_first(imagemill: Shell) -> None:
    (first,), (second,) = imagemill.json("up", "--detach"), imagemill.json("up", "--workers", 1)

    assert first == second
    assert (first["state"], first["workers"], first["data"]) == ("running", 2, str(imagemill.data))
    assert "runs already" in imagemill("up").stdout
    # Whoever prints it into a log prints no password.
    assert urllib.parse.urlsplit(first["redis_url"]).password is None


def test_doctor(imagemill: Shell) -> None:
    (found,) = imagemill.json("doctor")

    assert found["ok"] is True
    names = {check["name"] for check in found["checks"]}
    assert {"redis", "store", "bucket", "conditional put", "models", "controller", "workers"} <= names
    workers = next(check["detail"] for check in found["checks"] if check["name"] == "workers")
    assert "worker-1@local" in workers
    assert "worker-2@local" in workers
    assert imagemill("doctor").stdout.count("✓") == len(found["checks"])


def test_models(imagemill: Shell) -> None:
    models = {model["ref"]: model for model in imagemill.json("models", "list")}
    assert {"fashion-cnn@1", "fashion-gan@1", "fashion-vae@1", "motion-rnn@1"} <= set(models)
    listed = models[f"{MODEL}@1"]
    (shown,) = imagemill.json("models", "show", MODEL)

    assert listed["labels"] == 1000
    assert shown["weights"] == listed["weights"]
    assert len(shown["weights"]["sha256"]) == 64
    assert "koala" in shown["labels"]
    assert f"{MODEL}@1" in imagemill("models", "list").stdout


def test_label_a_folder_and_read_the_labels(imagemill: Shell) -> None:
    done = imagemill("classify", PHOTOS, "--model", MODEL, "--job", "first-day")

    # What came of it is on stdout, how it went on stderr.
    assert "succeeded" in done.stdout
    assert "37 of 37 done, 37 ok, 0 failed" in done.stdout
    assert "37 of 37 images uploaded" in done.stderr
    assert "imagemill results first-day" in done.stderr
    lines = imagemill("results", "first-day").stdout.splitlines()
    labels = {row["key"]: row["label"] for row in map(json.loads, lines)}
    assert (len(labels), labels["koala.jpg"], labels["giant-panda.jpg"]) == (37, "koala", "giant panda")


def test_show_has_the_documented_fields(imagemill: Shell) -> None:
    (job,) = imagemill.json("classify", PHOTOS, "--model", MODEL, "--job", "shown")

    (shown,) = imagemill.json("show", "shown")
    assert shown == job
    assert set(shown) >= DOCUMENTED
    # Beside them what explains a job to people, and nothing else.
    explains = {"source", "skipped", "reason", "error_codes", "labels", "metrics", "owner", "waiting_for"}
    assert set(shown) - DOCUMENTED == explains | {"priority", "weight", "max_slots"}
    assert shown["shards"] == {"total": 1, "done": 1, "running": 0, "queued": 0}
    assert (shown["id"], shown["kind"], shown["state"], shown["total"]) == ("shown", "classify", "succeeded", 37)
    assert shown["eta_seconds"] is None
    assert shown["created_at"].endswith("Z")
    assert shown["output"] == "s3://imagemill/jobs/shown/out/"


def test_leave_it_and_come_back(
    imagemill: Shell, gate: Gate, photo_folder: Callable[[int], Path], tmp_path: Path
) -> None:
    # Given images that take a while, in more shards than one worker takes at once,
    many = gate.manifest(tmp_path / "many.jsonl", 300, free=0)

    (job,) = imagemill.json("classify", many, "--model", MODEL, "--shard-size", 4, "--detach")
    assert job["state"] != "succeeded"
    # I expect both workers to have their part in it,
    logs = [imagemill.data / "logs" / f"worker-{n}.log" for n in (1, 2)]
    wait_until(lambda: all(f" of {job['id']} begins" in log.read_text() for log in logs), 60, "both workers")
    gate.open()
    (end,) = imagemill.json("follow", job["id"])

    assert (end["state"], end["ok"], end["shards"]["done"]) == ("succeeded", 300, 75)
    with workers_asleep(imagemill):
        # Without --json the id alone is on stdout, for `$(…)`.
        id = imagemill("classify", photo_folder(40), "--model", MODEL, "--detach").stdout.strip()
        assert imagemill.json("cancel", id)[0]["state"] == "canceled"


def test_ctrl_c_leaves_the_job_running(imagemill: Shell, photo_folder: Callable[[int], Path]) -> None:
    # Given a command that follows its job,
    folder = photo_folder(200)
    with (
        workers_asleep(imagemill),
        imagemill.start("classify", folder, "--model", MODEL, "--job", "left", "--shard-size", 32) as command,
    ):
        assert command.stderr is not None
        said = ""
        while "running: " not in said:
            line = command.stderr.readline()
            assert line, f"it ended early: {said}"
            said += line

        # if I press Ctrl-C,
        command.send_signal(signal.SIGINT)
        out, rest = command.communicate(timeout=60)

        # I expect it to end and say how to go on, and the job to go on by itself.
        assert command.returncode == 130
        assert out == ""
        assert "left keeps running. Follow it with `imagemill follow left`" in rest
        assert "Traceback" not in rest
        assert imagemill.json("show", "left")[0]["state"] == "running"
    assert imagemill.json("follow", "left")[0]["ok"] == 200


def test_jobs_newest_first(imagemill: Shell, mixed: Path) -> None:
    for job in ("older", "newer"):
        imagemill("classify", mixed, "--model", MODEL, "--job", job, *ANY)

    assert [job["id"] for job in imagemill.json("jobs")][:2] == ["newer", "older"]
    heading, first, *_ = imagemill("jobs").stdout.splitlines()
    assert heading.split() == ["JOB", "STATE", "DONE", "TOTAL", "FAILED", "CREATED", "MODEL", "SOURCE"]
    assert first.split()[:5] == ["newer", "succeeded", "5", "5", "2"]


def test_errors_and_retry(imagemill: Shell, mixed: Path) -> None:
    imagemill("classify", mixed, "--model", MODEL, "--job", "broken", *ANY)

    assert {row["key"]: row["error_code"] for row in imagemill.json("errors", "broken")} == {
        "empty.jpg": "empty_file",
        "text.jpg": "not_an_image",
    }
    line = imagemill("errors", "broken").stdout.splitlines()[0].split("\t")
    assert line[:2] == ["empty.jpg", "empty_file"]

    # Nothing was repaired: the same fail again, and the rest is untouched.
    before = imagemill("results", "broken").stdout
    (begun,) = imagemill.json("retry", "broken")
    assert begun["id"] == "broken"
    (end,) = imagemill.json("follow", "broken")
    assert (end["state"], end["ok"], end["errors"]) == ("succeeded", 3, 2)
    assert imagemill("results", "broken").stdout == before


def test_results_in_every_format(imagemill: Shell, mixed: Path) -> None:
    imagemill("classify", mixed, "--model", MODEL, "--job", "formats", "--embed", "--top-k", "2", *ANY)

    rows = imagemill.json("results", "formats")
    assert [len(row["top_k"] or ()) for row in rows].count(2) == 3
    assert [len(row["embedding"] or ()) for row in rows].count(1280) == 3
    text = imagemill("results", "formats", "--format", "csv").stdout
    assert len(list(csv.DictReader(io.StringIO(text)))) == 5
    assert len(json.loads(imagemill("results", "formats", "--format", "labelstudio").stdout)) == 3
    (said,) = imagemill.json("results", "formats", "--format", "parquet", "-o", "labels.parquet")
    assert (said["rows"], pq.read_table(imagemill.folder / "labels.parquet").num_rows) == (5, 5)
    said_too = imagemill("results", "formats", "--format", "imagefolder", "-o", "labelled")
    assert said_too.stdout == ""
    assert "Wrote 3 images to labelled" in said_too.stderr
    assert "Left out 2 that failed" in said_too.stderr
    assert len(list((imagemill.folder / "labelled").glob("*/*.jpg"))) == 3
    # An embedding is no text, but whoever reads half of it must not get a traceback.
    cut = subprocess.run(
        f"{sys.executable} -m producer results formats | head -c 100",
        shell=True,
        cwd=ROOT,
        env=imagemill.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "Traceback" not in cut.stderr


def test_cancel_resume_and_rebuild(imagemill: Shell, gate: Gate, tmp_path: Path) -> None:
    # Given a job that has labelled some of its images, the others of which take a while,
    many = gate.manifest(tmp_path / "many.jsonl", 400, free=16)
    imagemill("classify", many, "--model", MODEL, "--job", "stopped", "--shard-size", 16, "--detach")

    def begun() -> bool:
        (shown,) = imagemill.json("show", "stopped")
        return shown["state"] == "running" and shown["done"] > 0

    wait_until(begun, 20, "the first labels")
    assert imagemill.json("cancel", "stopped")[0]["state"] == "canceled"
    # A job that was canceled did not do what was asked for.
    (canceled,) = imagemill.json("follow", "stopped", code=1)
    assert canceled["done"] < 400

    # The ledger written anew from the bucket says the same,
    (rebuilt,) = imagemill.json("rebuild", "stopped")
    assert (rebuilt["id"], rebuilt["state"]) == ("stopped", "canceled")
    assert "stopped" in {job["id"] for job in imagemill.json("rebuild")}

    # and the rest is done when I want it.
    gate.open()
    assert imagemill.json("resume", "stopped")[0]["state"] in ("running", "finalizing", "succeeded")
    (end,) = imagemill.json("follow", "stopped")
    assert (end["state"], end["ok"], len(imagemill.json("results", "stopped"))) == ("succeeded", 400, 400)


def test_exit_1_the_job_failed(imagemill: Shell, mixed: Path) -> None:
    (job,) = imagemill.json("classify", mixed, "--model", MODEL, "--max-errors", "1%", code=1)

    assert (job["state"], job["errors"]) == ("failed", 2)
    assert "more than --max-errors 1% allows" in job["reason"]
    # Asking about it is no failure; following it to its end is.
    imagemill("show", job["id"])
    imagemill("follow", job["id"], code=1)


@pytest.mark.parametrize(
    "args",
    [
        ("classify", PHOTOS, "--model", "efficientnet-light"),
        ("classify", "nowhere", "--model", MODEL),
        ("classify", "s3://no-such-bucket/", "--model", MODEL),
        ("classify", PHOTOS, "--model", MODEL, "--max-errors", "many"),
        ("show", "nobody"),
        ("results", "nobody"),
        ("retry", "nobody"),
    ],
    ids=lambda args: " ".join(str(arg) for arg in args[:2]),
)
def test_exit_2_a_mistake_is_one_line(imagemill: Shell, args: tuple[object, ...]) -> None:
    done = imagemill(*args, "--json", code=2)

    assert done.stdout == ""
    assert done.stderr.startswith("imagemill: ")
    assert done.stderr.count("\n") == 1


def test_exit_2_usage(imagemill: Shell) -> None:
    for args in (["classify"], ["no-such-command"], ["classify", ".", "--model", MODEL, "--top-k", "0"]):
        assert "Usage: imagemill" in imagemill(*args, code=2).stderr


def test_exit_3_a_service_is_away(imagemill: Shell) -> None:
    away = {"IMAGEMILL_REDIS_URL": "redis://127.0.0.1:1/0"}

    done = imagemill("classify", PHOTOS, "--model", MODEL, code=3, variables=away)
    assert done.stderr.startswith("imagemill: Redis at 127.0.0.1:1/0 cannot be reached")
    checked = imagemill("doctor", code=3, variables=away)
    assert "✗ redis" in checked.stdout
    # What is in the bucket can be read all the same.
    assert "JOB" in imagemill("jobs", variables=away).stdout


def test_no_stack_at_all(tmp_path: Path) -> None:
    nowhere = Shell(tmp_path / "data", tmp_path)

    assert "run `imagemill up --detach`" in nowhere("jobs", code=3).stderr
    assert nowhere("doctor", code=3).stdout.startswith("✗ settings")
    assert nowhere.json("down") == [{"stopped": False, "data": str(tmp_path / "data")}]


def test_a_worker_is_plain_celery(imagemill: Shell) -> None:
    # Given a worker that Celery's own command starts,
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-Q", "classify", "-n", "by-hand@here"]
    with subprocess.Popen(
        command, cwd=ROOT, env=imagemill.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as worker:
        try:
            # I expect it among the others, without a word between them,
            wait_until(lambda: "by-hand@here" in [one["name"] for one in imagemill.json("workers")], 120, "the worker")
        finally:
            worker.terminate()
    # and to leave as they do.
    assert worker.returncode == 0
    assert "by-hand@here" not in [one["name"] for one in imagemill.json("workers")]
