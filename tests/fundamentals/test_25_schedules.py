"""Jobs can be made by the clock: say what, and when, and see what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, InvalidInput, InvalidSchedule, InvalidSource, UnknownModel, UnknownSchedule
from contract.jobs.options import ClassifyOptions
from contract.jobs.schedules import Schedules, job_id, to_iso
from producer import Client
from producer.jobs.requests import make_request, make_template
from producer.jobs.schedules import new_schedule
from tests.fundamentals.conftest import MODEL, Imagemill, Rows
from tests.mill import Mill
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def today(camera: ObjectStore, photos: dict[str, Path]) -> str:
    """What the camera saw today."""
    for name in ("koala", "espresso"):
        camera.put(f"today/{name}.jpg", photos[name].read_bytes())
    return "s3://camera/today/"


@pytest.fixture(autouse=True)
def no_schedule_stays(client: Client) -> Iterator[None]:
    yield
    for schedule in client.schedules():
        client.remove_schedule(schedule.name)


def test_a_tick_is_a_job(client: Client, mill: Mill, today: str, rows: Rows) -> None:
    # Given a schedule of every minute that was made just before this one began, so that nobody has to wait,
    store, due = client.backend.store, datetime.now(UTC).replace(second=0, microsecond=0)
    template = make_template(make_request(ClassifyOptions(source=today, model=MODEL), store, mill.settings))
    made_at = due - timedelta(seconds=1)
    made = new_schedule("minutely", template, cron="* * * * *", timezone="UTC", missed="run", now=made_at)
    Schedules(store).add(made)

    # I expect the job of this minute, and its rows, with nobody there to ask for it;
    wait_until(lambda: any(run.job == job_id("minutely", due) for run in client.schedule_history("minutely")), 20)
    job = mill.finished(job_id("minutely", due), timeout=30)
    assert {key: row["label"] for key, row in rows(job).items()} == {
        "today/espresso.jpg": "espresso",
        "today/koala.jpg": "koala",
    }

    # and the history to have it.
    run = client.schedule_history("minutely")[-1]
    assert (run.tick, run.job, run.state, run.manual) == (to_iso(due), job.id, "succeeded", False)


def test_it_says_what_comes_next(client: Client, today: str) -> None:
    # An hour that exists once in each night, also when the clocks change.
    made = client.add_schedule(
        "nightly", "classify", {"source": today, "model": MODEL}, cron="0  4 * * *", timezone="Europe/Paris"
    )

    assert client.schedules() == client.schedules("nightly") == [made]
    assert (made.cron, made.timezone, made.missed, made.paused) == ("0 4 * * *", "Europe/Paris", "run", False)
    assert (made.kind, made.model, made.source, made.last) == ("classify", MODEL, today, None)
    nights = [datetime.fromisoformat(at).astimezone(ZoneInfo("Europe/Paris")) for at in made.next]
    assert [f"{night:%H:%M}" for night in nights] == ["04:00"] * 3
    assert [(b.date() - a.date()).days for a, b in pairwise(nights)] == [1, 1]


def test_it_can_be_run_by_hand_even_while_it_is_paused(client: Client, mill: Mill, today: str, rows: Rows) -> None:
    client.add_schedule("nightly", "classify", {"source": today, "model": MODEL}, cron="0 2 * * *")
    assert client.pause_schedule("nightly").next == ()

    job = client.run_schedule("nightly")

    assert job.id.startswith("nightly-manual-")
    assert len(rows(mill.finished(job.id))) == 2
    (run,) = client.schedule_history("nightly")
    assert (run.job, run.state, run.manual) == (job.id, "succeeded", True)
    assert len(client.unpause_schedule("nightly").next) == 3
    assert client.schedules()[0].last == run

    # When it is removed, its jobs stay.
    client.remove_schedule("nightly")
    assert client.schedules() == []
    assert client.status(job.id).state == "succeeded"


def test_evaluations_and_trainings_can_be_scheduled(
    client: Client, mill: Mill, camera: ObjectStore, photos: dict[str, Path]
) -> None:
    for label in ("koala", "espresso"):
        for n in range(2):
            camera.put(f"classes/{label}/{n}.jpg", photos[label].read_bytes())
    arguments = {"family": "cnn", "source": "s3://camera/classes/", "name": "pets", "settings": ["size=32"]}

    client.add_schedule("training", "train", {**arguments, "labels": ["koala", "espresso"]}, cron="0 4 * * MON")
    client.add_schedule(
        "evaluation", "evaluate", {"model": MODEL, "source": "s3://camera/classes/"}, cron="0 5 * * MON", missed="skip"
    )

    found = {one.name: (one.kind, one.model, one.missed) for one in client.schedules()}
    assert found == {"training": ("train", "pets", "run"), "evaluation": ("evaluate", MODEL, "skip")}
    # What is kept becomes the spec that the command itself would make.
    with mill.paused("worker-0"):
        job = client.run_schedule("training")
        assert (job.kind, job.model) == ("train", "pets")
        client.cancel(job.id)


# Mistakes


def refused(client: Client, error: type[ImagemillError], **changes: Any) -> str:
    """What is said of a schedule that cannot be; nothing of it is there."""
    fields = {"name": "nightly", "command": "classify", "cron": "0 2 * * *", **changes}
    arguments = {"source": "s3://camera/today/", "model": MODEL, **fields.pop("arguments", {})}
    before = client.schedules()
    with pytest.raises(error) as raised:
        client.add_schedule(arguments=arguments, **fields)
    assert client.schedules() == before
    said = str(raised.value)
    assert "\n" not in said and len(said) < 300
    return said


def test_mistakes_are_one_sentence(client: Client, today: str, folder: Path, tmp_path: Path) -> None:
    assert "'61 2 * * *' is not a cron line (bad minute)" in refused(client, InvalidSchedule, cron="61 2 * * *")
    assert "did you mean Europe/Paris" in refused(client, InvalidSchedule, timezone="Europe/Pariss")
    assert "cannot be the name of a schedule" in refused(client, InvalidSchedule, name="Every Night")
    assert "schedule one of classify, train, evaluate" in refused(client, InvalidInput, command="label")
    assert "did you mean" in refused(client, UnknownModel, arguments={"model": "efficientnet-lite"})
    assert "classify has no option 'topk'; did you mean 'top_k'?" in refused(
        client, InvalidInput, arguments={"topk": 3}
    )
    assert "--shard-size" in refused(client, InvalidInput, arguments={"shard_size": 5000})
    assert "--max-errors" in refused(client, InvalidInput, arguments={"max_errors": "a few"})
    assert "There is no bucket 'labls'" in refused(client, InvalidSource, arguments={"to": "s3://labls/"})

    # Images on this machine, whatever lists them, are not there at night.
    (tmp_path / "list.jsonl").write_text('{"uri": "s3://camera/today/koala.jpg"}\n')
    for source in (folder, tmp_path / "list.jsonl"):
        said = refused(client, InvalidSource, arguments={"source": source})
        assert "is on this machine, and a schedule runs without it; copy it to the bucket" in said

    client.add_schedule("nightly", "classify", {"source": today, "model": MODEL}, cron="0 2 * * *")
    assert "There is a schedule 'nightly' already; choose another name" in refused(client, InvalidSchedule)
    for ask in (client.pause_schedule, client.unpause_schedule, client.run_schedule, client.remove_schedule):
        with pytest.raises(UnknownSchedule, match=r"There is no schedule 'nightli'; did you mean nightly\?"):
            ask("nightli")
    with pytest.raises(UnknownSchedule, match=r"There is no schedule '\.\./jobs'; there are: nightly"):
        client.schedule_history("../jobs")


# The same by command


def test_the_same_by_command(imagemill: Imagemill, client: Client, mill: Mill, today: str) -> None:
    assert imagemill("schedule", "list")[1:] == (
        "",
        "There are no schedules yet; `imagemill schedule add --help` shows how to add one.\n",
    )

    # What stands behind `--` is a command as ever.
    job = ("classify", today, "--model", MODEL, "--top-k", "2", "--max-errors", "1%")
    code, out, _ = imagemill(
        "schedule", "add", "nightly", "--cron", "0 4 * * *", "--timezone", "Europe/Paris", "--", *job
    )
    assert code == 0
    shown = dict(line.split(None, 1) for line in out.splitlines())
    assert (shown["schedule"], shown["cron"], shown["missed"]) == ("nightly", "0 4 * * *", "run")
    assert (shown["job"], shown["source"]) == (f"classify {MODEL}", today)
    kept = Schedules(client.backend.store).get("nightly").template.spec
    assert (kept["model"], kept["top_k"], kept["max_errors"]) == (MODEL, 2, "1%")

    code, out, err = imagemill("schedule", "run", "nightly")
    id = out.strip()
    assert (code, id.startswith("nightly-manual-")) == (0, True)
    assert f"imagemill follow {id}" in err
    mill.finished(id)

    headings, line = imagemill("schedule", "list")[1].splitlines()
    assert headings.split() == ["SCHEDULE", "CRON", "TIMEZONE", "NEXT", "LAST", "RESULT", "KIND", "MODEL", "SOURCE"]
    assert line.split()[:7] == ["nightly", "0", "4", "*", "*", "*", "Europe/Paris"]
    assert line.split()[-4:] == ["succeeded", "classify", MODEL, today]
    assert line.count("04:00") >= 3
    listed = json.loads(imagemill("schedule", "list", "--json")[1])
    assert (listed["name"], listed["last"]["job"], len(listed["next"])) == ("nightly", id, 3)

    headings, line = imagemill("schedule", "history", "nightly")[1].splitlines()
    assert headings.split() == ["TICK", "STATE", "JOB", "NOTE"]
    assert line.split()[-4:] == ["succeeded", id, "by", "hand"]
    assert json.loads(imagemill("schedule", "history", "nightly", "--json")[1])["job"] == id

    assert "next      paused\n" in imagemill("schedule", "pause", "nightly")[1]
    assert json.loads(imagemill("schedule", "unpause", "nightly", "--json")[1])["paused"] is False
    assert imagemill("schedule", "remove", "nightly", "--json")[1] == '{"removed": "nightly"}\n'


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("classify", "s3://camera/today/"), "Missing option '--model'"),
        (("classify", "s3://camera/today/", "--model", MODEL, "--topk", "3"), "No such option"),
        (("classify", "s3://camera/today/", "--model", MODEL, "--detach"), "leave --detach out after `--`"),
        (("classify", "s3://camera/today/", "--model", MODEL, "--job", "mine"), "leave --job out after `--`"),
        (("jobs",), "'jobs' makes no job that can be scheduled; schedule one of classify, train, evaluate"),
        ((), "Missing argument 'COMMAND...'"),
    ],
)
def test_mistakes_in_the_command_line(imagemill: Imagemill, words: tuple[str, ...], said: str) -> None:
    code, out, err = imagemill("schedule", "add", "nightly", "--cron", "0 2 * * *", "--", *words)

    assert (code, out) == (2, "")
    assert said in err
