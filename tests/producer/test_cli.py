"""The `imagemill` command: light to start, one line for an error, exit codes that scripts can use."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from contract.backend.heartbeats import Worker
from contract.errors import InvalidSource, JobFailed, RedisUnavailable
from contract.jobs.kinds import KINDS
from contract.jobs.status import Shards, Status
from contract.keys.queues import WORKER_QUEUES
from contract.settings import current
from producer.cli import COMMANDS, cli
from producer.cli.common import duration, print_table

HEAVY = {"torch", "PIL", "celery", "minio", "pydantic", "redis", "pyarrow", "rich", "numpy"}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No stack and no addresses: a command that needs servers says so."""
    for name in ("IMAGEMILL_REDIS_URL", "IMAGEMILL_S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IMAGEMILL_DATA", str(tmp_path))
    current.cache_clear()
    yield
    current.cache_clear()


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="imagemill")


def status(state: str, **fields: Any) -> Status:
    return Status.model_validate({"id": "job", "kind": "classify", "state": state, **fields})


def test_starting_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom producer.cli import main\nsys.argv = ['imagemill', '--help']\n"
        "try: main()\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "classify" in done.stdout
    assert not HEAVY & {name.partition(".")[0] for name in done.stderr.split()}


def test_a_command_that_reads_no_rows_and_sends_no_message_loads_neither_arrow_nor_celery() -> None:
    # Given every command, and a client as it makes one, I expect neither to load what only some of them use: each of
    # the two is a fifth of a second of CPU at every start.
    code = (
        "import sys, click\nfrom producer.cli import COMMANDS, cli\n"
        "for name in COMMANDS: assert cli.get_command(click.Context(cli), name)\n"
        "from producer.client import Client\nClient().close()\nprint(*sys.modules)"
    )
    servers = {"IMAGEMILL_REDIS_URL": "redis://127.0.0.1:1/0", "IMAGEMILL_S3_ENDPOINT": "127.0.0.1:1"}
    keys = {"IMAGEMILL_S3_ACCESS_KEY": "key", "IMAGEMILL_S3_SECRET_KEY": "secret"}

    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **servers, **keys}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert not {"celery", "kombu", "pyarrow", "numpy"} & {name.partition(".")[0] for name in done.stdout.split()}


OURS = [name for name, (where, _) in COMMANDS.items() if where.startswith("producer.")]


@pytest.mark.parametrize("name", OURS)
def test_every_command_has_an_example_and_the_shared_options(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    leaves = command.commands.values() if isinstance(command, click.Group) else [command]

    for leaf in leaves:
        assert "Example" in (leaf.help or "")
        assert {"--json", "--data"} <= {option for parameter in leaf.params for option in parameter.opts}


def test_without_servers_a_command_says_what_to_do_in_one_line() -> None:
    result = run("jobs")

    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("imagemill: No stack runs in")
    assert result.stderr.count("\n") == 1


def test_doctor_without_servers_exits_with_3() -> None:
    result = run("doctor", "--json")

    assert result.exit_code == 3
    assert json.loads(result.stdout)["ok"] is False


@pytest.mark.parametrize("args", [["clasify"], ["classify", "photos"], ["show"], ["results", "job", "--format", "xml"]])
def test_a_mistake_in_the_command_line_exits_with_2(args: list[str]) -> None:
    assert run(*args).exit_code == 2


class FakeClient:
    """Answers with what a test put into `answers`."""

    answers: list[Status]
    error: Exception | None

    def __init__(self, answers: list[Status], error: Exception | None = None) -> None:
        self.answers, self.error = answers, error

    def __call__(self) -> FakeClient:
        return self

    def status(self, job: str) -> Status:
        if self.error:
            raise self.error
        return self.answers[-1]

    def follow(self, job: str) -> Iterator[Status]:
        yield from self.answers
        if self.error:
            raise self.error

    def submit(self, options: Any, **_: Any) -> Status:
        if self.error and not self.answers:
            raise self.error
        return self.answers[0]

    def jobs(self, *, limit: int, before: str) -> list[Status]:
        assert (limit, before) == (50, "")
        return self.answers

    def workers(self) -> list[Any]:
        return []


def use(monkeypatch: pytest.MonkeyPatch, *answers: Status, error: BaseException | None = None) -> None:
    monkeypatch.setattr("producer.client.Client", FakeClient(list(answers), error))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "code"), [(InvalidSource("no"), 2), (RedisUnavailable("no"), 3), (JobFailed("no"), 1)]
)
def test_an_error_is_one_line_and_its_exit_code(monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    use(monkeypatch, error=error)

    result = run("show", "job")

    assert (result.exit_code, result.stdout, result.stderr) == (code, "", "imagemill: no\n")


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("canceled", 1)])
def test_following_ends_with_how_the_job_ended(monkeypatch: pytest.MonkeyPatch, state: str, code: int) -> None:
    use(
        monkeypatch,
        status("running"),
        status(state, total=2, done=2, ok=1, errors=1, error_codes={"truncated": 1}),
    )

    result = run("follow", "job")

    assert result.exit_code == code
    assert "failures  truncated 1" in result.stdout
    assert "No worker is alive" in result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_while_a_job_waits_for_a_worker_the_queue_that_it_waits_on_is_named(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # Given a job that waits, and a worker on every queue but the one of its kind,
    queue = KINDS[kind].queue
    others = ",".join(other for other in WORKER_QUEUES if other != queue)
    monkeypatch.setattr(FakeClient, "workers", lambda _: [Worker("w", {"queues": others})])
    use(monkeypatch, status("running", kind=kind), status("succeeded", kind=kind))

    # I expect the queue to be named for which there is none.
    assert f"`imagemill-worker run --queues {queue}`" in run("follow", "job").stderr

    # If there is one, I expect no hint.
    monkeypatch.setattr(FakeClient, "workers", lambda _: [Worker("w", {"queues": queue})])
    use(monkeypatch, status("running", kind=kind), status("succeeded", kind=kind))
    assert "No worker is alive" not in run("follow", "job").stderr


def test_ctrl_c_leaves_the_job_running_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, status("running", shards=Shards(running=1)), error=KeyboardInterrupt())

    result = run("follow", "job")

    assert result.exit_code == 130
    assert "job keeps running" in result.stderr
    assert "imagemill cancel job" in result.stderr


def test_ctrl_c_while_packing_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, error=KeyboardInterrupt())

    result = run("classify", "photos", "--model", "cnn", "--job", "mine")

    assert result.exit_code == 130
    assert "--job mine continues" in result.stderr


def test_detached_the_id_is_all_that_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, status("running"))

    result = run("classify", "photos", "--model", "cnn", "--job", "mine", "--detach")

    assert (result.exit_code, result.stdout) == (0, "job\n")


def test_json_is_one_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, status("running"), status("succeeded"))

    lines = run("jobs", "--json").stdout.splitlines()

    assert [json.loads(line)["state"] for line in lines] == ["running", "succeeded"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


TABLE = (
    ("JOB", "DONE", "SOURCE"),
    [("classify-20261124-093215-7f3a09c4", "1,024", "s3://camera/[red]/" + "day/" * 40)],
)


def test_a_table_in_a_pipe_is_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(*TABLE, right=("DONE",))

    headings, line = capsys.readouterr().out.splitlines()
    assert headings.split() == list(TABLE[0])
    assert line.split() == list(TABLE[1][0])


def test_a_table_on_a_terminal_fits_it_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")

    print_table(*TABLE, right=("DONE",))

    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) > 2
    # The id is whole, so that it can be copied, and the folded source is all there, its brackets too.
    assert TABLE[1][0][0] in lines[1]
    column = lines[0].index("SOURCE")
    assert "".join(line[column:].strip() for line in lines[1:]) == TABLE[1][0][2]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
