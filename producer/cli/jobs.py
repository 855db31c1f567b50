"""The commands for existing jobs: jobs, show, cancel, resume, retry and rebuild."""

from __future__ import annotations

from typing import Any, get_args

import click

from contract.jobs.options import Share
from contract.records import Priority
from producer.cli import EXIT_INTERRUPTED
from producer.cli.common import echo, print_json, print_status, print_table, say, shared_options
from producer.cli.progress import packing_bar


@click.group(invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Jobs on a page.")
@click.option("--before", metavar="JOB", default="", help="Only jobs that ended before this one: the next page.")
@shared_options
@click.pass_context
def jobs(context: click.Context, limit: int, before: str, as_json: bool) -> None:
    """List jobs: those that have not ended first, then the others by their ends, newest first.

    \b
    Example:
      imagemill jobs --json | head -1
      imagemill jobs --before classify-20261124-093215-7f3a09c4
    """
    if context.invoked_subcommand is not None:
        return
    from producer.client import Client

    found = Client().jobs(limit=limit, before=before)
    if as_json:
        for status in found:
            print_json(status.model_dump())
    elif found:
        waits = any(status.waiting_for for status in found)
        print_table(
            ("JOB", "STATE", "DONE", "TOTAL", "FAILED", "CREATED", "MODEL", "SOURCE", *(["WAITING FOR"] * waits)),
            (
                (
                    status.id,
                    status.state,
                    f"{status.done:,}",
                    "?" if status.total is None else f"{status.total:,}",
                    f"{status.errors:,}",
                    status.created_at[:19].replace("T", " "),
                    status.model,
                    status.source,
                    *([status.waiting_for or ""] * waits),
                )
                for status in found
            ),
            right=("DONE", "TOTAL", "FAILED"),
        )
        if len(found) == limit and found[-1].ended:
            say(f"The next page: `imagemill jobs --before {found[-1].id}`.")
    elif before:
        say(f"No job ended before {before}.")
    else:
        say("There are no jobs yet; `imagemill classify --help` shows how to submit one.")


@jobs.command(name="set")
@click.argument("job")
@click.option("--priority", type=click.Choice(get_args(Priority)), help=str(Share.model_fields["priority"].description))
@click.option("--weight", type=float, help=str(Share.model_fields["weight"].description))
@click.option("--max-slots", type=int, help=str(Share.model_fields["max_slots"].description))
@shared_options
def set_(job: str, priority: Priority | None, weight: float | None, max_slots: int | None, as_json: bool) -> None:
    """Change which part of the workers' slots JOB gets from now on. Shards that run already are not stopped.

    \b
    Example:
      imagemill jobs set classify-20261124-093215-7f3a09c4 --priority low
      imagemill jobs set classify-20261124-093215-7f3a09c4 --weight 3 --max-slots 8
    """
    from producer.client import Client

    print_status(Client().set_share(job, priority=priority, weight=weight, max_slots=max_slots), as_json=as_json)


@jobs.command()
@click.argument("job", nargs=-1, required=True)
@shared_options
def rm(job: tuple[str, ...], as_json: bool) -> None:
    """Delete each JOB that has ended, with its inputs, rows and pages; models, and results elsewhere (--to), stay.

    \b
    Example:
      imagemill jobs rm classify-20261124-093215-7f3a09c4
    """
    from producer.cli.clean import print_found
    from producer.client import Client

    print_found(Client().remove_jobs(job), as_json=as_json, done="deleted")


@click.command()
@click.argument("job")
@shared_options
def show(job: str, as_json: bool) -> None:
    """Show the state and progress of JOB; for a training, also the figures of each epoch.

    \b
    Example:
      imagemill show classify-20261124-093215-7f3a09c4 --json
    """
    from contract.jobs.kinds import kind_of
    from producer.client import Client

    client = Client()
    status = client.status(job)
    if kind_of(status.kind).makes != "model":
        print_status(status, as_json=as_json)
        return
    history = client.history(job)
    if as_json:
        print_json({**status.model_dump(), "history": history})
        return
    print_status(status, as_json=False)
    if history:
        echo()
        print_table(*history_table(history), right=history_table(history)[0])


def history_table(history: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return the headings, and one row per epoch with its losses, metrics and seconds."""
    losses, metrics = list(history[0]["losses"]), list(history[0]["metrics"])
    headings = ("EPOCH", *(f"TRAIN {name.upper()}" for name in losses), *map(str.upper, metrics), "SECONDS")
    rows = [
        [
            str(epoch["epoch"]),
            *(f"{epoch['losses'][name]:.4f}" for name in losses),
            *(f"{epoch['metrics'][name]:.4f}" for name in metrics),
            f"{epoch['seconds']:.1f}",
        ]
        for epoch in history
    ]
    return headings, rows


@click.command()
@click.argument("job")
@shared_options
def cancel(job: str, as_json: bool) -> None:
    """Stop JOB within a batch. Committed results stay, and `imagemill resume` continues with the rest.

    \b
    Example:
      imagemill cancel classify-20261124-093215-7f3a09c4
    """
    from producer.client import Client

    print_status(Client().cancel(job), as_json=as_json)


@click.command()
@click.argument("job")
@shared_options
def resume(job: str, as_json: bool) -> None:
    """Continue JOB after it was canceled, failed, or got stuck.

    If a local folder was being packed, run this on the machine that has the folder; the rest is packed.

    \b
    Example:
      imagemill resume classify-20261124-093215-7f3a09c4
    """
    from producer.client import Client

    try:
        with packing_bar() as progress:
            status = Client().resume(job, progress=progress)
    except KeyboardInterrupt:
        say(f"Interrupted. The same command continues: `imagemill resume {job}`.")
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    print_status(status, as_json=as_json)
    say(f"Follow it with `imagemill follow {job}`.")


@click.command()
@click.argument("job")
@shared_options
def retry(job: str, as_json: bool) -> None:
    """Run only the failed images of JOB again. The job must have ended.

    \b
    Example:
      imagemill errors classify-20261124-093215-7f3a09c4
      imagemill retry classify-20261124-093215-7f3a09c4
    """
    from producer.client import Client

    print_status(Client().retry(job), as_json=as_json)
    say(f"Follow it with `imagemill follow {job}`.")


@click.command()
@click.argument("job", nargs=-1)
@shared_options
def rebuild(job: tuple[str, ...], as_json: bool) -> None:
    """Rewrite the ledger entry of each JOB, or of all jobs, from the bucket alone.

    The controller does this by itself when it finds Redis empty. It is safe while workers run.

    \b
    Example:
      imagemill rebuild
    """
    from producer.client import Client

    for status in Client().rebuild(job or None):
        if as_json:
            print_json(status.model_dump())
        else:
            total = "?" if status.total is None else f"{status.total:,}"
            echo(f"{status.id}  {status.state}  {status.done:,} of {total}")
