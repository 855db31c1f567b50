"""`imagemill follow`, and how the commands that submit a job follow it to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from producer.cli import EXIT_FAILED, EXIT_INTERRUPTED
from producer.cli.common import echo, print_status, say, shared_options
from producer.cli.progress import job_bar, packing_bar

if TYPE_CHECKING:
    from contract.jobs.status import Status
    from producer.client import Client
    from producer.sources.pack import Progress


@click.command()
@click.argument("job")
@shared_options
def follow(job: str, as_json: bool) -> None:
    """Follow JOB to its end. Ctrl-C leaves it running.

    \b
    Example:
      imagemill follow classify-20261124-093215-7f3a09c4
    """
    from producer.client import Client

    follow_to_end(Client(), job, as_json)


def run_job(
    client: Client,
    id: str,
    submit: Callable[[Callable[[Progress], None]], Status],
    *,
    detach: bool,
    as_json: bool,
) -> None:
    """Submit a job, with a bar for uploads; then follow it to its end or, with `detach`, say that it is queued."""
    try:
        with packing_bar() as progress:
            status = submit(progress)
    except KeyboardInterrupt:
        say(f"Interrupted before everything was queued. The same command with --job {id} continues.")
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    if detach:
        print_queued(status, as_json)
    else:
        follow_to_end(client, id, as_json)


def print_queued(status: Status, as_json: bool) -> None:
    """Print the id alone to stdout, for `$(…)`, or the status as JSON."""
    say(f"{status.id} is {status.state}; follow it with `imagemill follow {status.id}`.")
    if as_json:
        print_status(status, as_json=True)
    else:
        echo(status.id)


def follow_to_end(client: Client, job: str, as_json: bool) -> None:
    """Show the progress of a job until it ends; Ctrl-C leaves it running."""
    from contract.jobs.kinds import kind_of

    try:
        status = _watch(client, job)
    except KeyboardInterrupt:
        say(f"{job} keeps running. Follow it with `imagemill follow {job}`, stop it with `imagemill cancel {job}`.")
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    print_status(status, as_json=as_json)
    say(kind_of(status.kind).next_step(status))
    if status.state != "succeeded":
        raise click.exceptions.Exit(EXIT_FAILED)


def _watch(client: Client, job: str) -> Status:
    from contract.jobs.kinds import kind_of

    hinted, waited = False, ""
    with job_bar() as show:
        for status in client.follow(job):
            show(status)
            if status.waiting_for and status.waiting_for != waited:
                say(f"{job} waits for {status.waiting_for}.")
            waited = status.waiting_for or ""
            if not hinted and not status.ended and not status.shards.running:
                hinted = True
                _hint(client, kind_of(status.kind).queue)
    return status


def _hint(client: Client, queue: str) -> None:
    """Say that no worker is there for the job, so that nobody waits without knowing."""
    from contract.errors import RedisUnavailable

    try:
        workers = client.workers()
    except RedisUnavailable:
        return
    if not any(queue in worker.fields.get("queues", "").split(",") for worker in workers):
        say(
            "No worker is alive for this job yet; start one with `imagemill up` or "
            f"`imagemill-worker run --queues {queue}`. The job waits."
        )
