"""`imagemill classify` and `imagemill follow`: begin a job, and watch it to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from producer.cli import EXIT_FAILED, EXIT_INTERRUPTED
from producer.cli.common import print_status, say, shared_options
from producer.cli.progress import job_bar, packing_bar

if TYPE_CHECKING:
    from contract.jobs import Precision, Status
    from producer.client import Client


@click.command()
@click.argument("source")
@click.option(
    "--model", required=True, metavar="NAME", help="`name` or `name@version`; `imagemill models list` shows them."
)
@click.option("--top-k", type=click.IntRange(1, 1000), default=5, show_default=True, help="Labels an image.")
@click.option("--embed", is_flag=True, help="Add the embedding of each image to its row.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the model; auto: the fastest of the worker.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(1, 4096),
    help="Images a shard.  [env: IMAGEMILL_SHARD_SIZE; default: 512]",
)
@click.option(
    "--max-errors",
    default="100%",
    show_default=True,
    help="Fail the job when more images fail: a count or a share.",
)
@click.option("--job", metavar="ID", help="Name the job; the same command again is the same job.")
@click.option("--to", metavar="s3://…", help="Where results go, instead of the default bucket.")
@click.option("--detach", is_flag=True, help="Return when the job is queued.")
@shared_options
def classify(
    source: str,
    model: str,
    top_k: int,
    embed: bool,
    precision: Precision,
    shard_size: int | None,
    max_errors: str,
    job: str | None,
    to: str | None,
    detach: bool,
    as_json: bool,
) -> None:
    """Label every image of SOURCE.

    SOURCE is a local folder, an S3 prefix, a manifest (.jsonl, .csv or .parquet with a column `uri` or
    `source-ref`), or WebDataset tars. Local images are packed and uploaded first. Ctrl-C leaves the
    job running.

    \b
    Examples:
      imagemill classify photos --model efficientnet-lite0
      imagemill classify s3://camera/2026/ --model efficientnet-lite0 --max-errors 1%
      imagemill classify urls.jsonl --model efficientnet-lite0 --job urls-1 --detach
    """
    from producer.client import Client, new_job_id

    client = Client()
    id = job or new_job_id()
    try:
        with packing_bar() as progress:
            status = client.classify(
                source,
                model=model,
                top_k=top_k,
                embed=embed,
                precision=precision,
                shard_size=shard_size,
                max_errors=max_errors,
                job=id,
                to=to,
                progress=progress,
            )
    except KeyboardInterrupt:
        say(f"Interrupted before all of {source} was queued. The same command with --job {id} goes on.")
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    if detach:
        say(f"{id} is {status.state}; follow it with `imagemill follow {id}`.")
        if as_json:
            print_status(status, as_json=True)
        else:
            click.echo(id)
    else:
        _follow(client, id, as_json)


@click.command()
@click.argument("job")
@shared_options
def follow(job: str, as_json: bool) -> None:
    """Follow JOB to its end. Ctrl-C leaves it running.

    \b
    Example:
      imagemill follow classify-20261124-093215-7f3a
    """
    from producer.client import Client

    _follow(Client(), job, as_json)


def _follow(client: Client, job: str, as_json: bool) -> None:
    try:
        status = _watch(client, job)
    except KeyboardInterrupt:
        say(f"{job} goes on. Follow it with `imagemill follow {job}`, stop it with `imagemill cancel {job}`.")
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    print_status(status, as_json=as_json)
    say(_next_step(status))
    if status.state != "succeeded":
        raise click.exceptions.Exit(EXIT_FAILED)


def _watch(client: Client, job: str) -> Status:
    hinted = False
    with job_bar() as show:
        for status in client.follow(job):
            show(status)
            if not hinted and not status.ended and not status.shards.running:
                hinted = True
                _hint(client)
    return status


def _hint(client: Client) -> None:
    """Say once that nobody is there to do the work, rather than wait without a word."""
    from contract.errors import RedisUnavailable
    from contract.keys import QUEUE_CLASSIFY

    try:
        workers = client.workers()
    except RedisUnavailable:
        return
    if not any(QUEUE_CLASSIFY in worker.fields.get("queues", "").split(",") for worker in workers):
        say("No worker is alive yet; start one with `imagemill up` or `imagemill-worker run`. The job waits.")


def _next_step(status: Status) -> str:
    if status.state == "canceled":
        return f"Go on with `imagemill resume {status.id}`; what is labelled: `imagemill results {status.id}`."
    if status.errors:
        return f"Labels: `imagemill results {status.id}`. Failures: `imagemill errors {status.id}`."
    return f"Labels: `imagemill results {status.id}`."
