"""The command `workers`: who is there, what each can do and does, and asking one to leave."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from producer.cli.common import duration, echo, print_json, print_table, say, shared_options

if TYPE_CHECKING:
    from contract.fleet.snapshot import WorkerState


@click.group(invoke_without_command=True)
@shared_options
@click.pass_context
def workers(context: click.Context, as_json: bool) -> None:
    """List the live workers and controllers; the rate is images per second over the last minute.

    \b
    Example:
      imagemill workers
      imagemill workers drain worker-1@host
    """
    if context.invoked_subcommand is not None:
        return
    from producer.client import Client

    fleet = Client().fleet()
    if as_json:
        for worker in fleet.workers:
            print_json({**asdict(worker), "state": state(worker)})
    elif fleet.workers:
        columns = ("NAME", "POOL", "HOST", "DEVICE", "QUEUES", "MODELS", "RATE", "BUSY", "SLOTS", "UP", "STATE")
        print_table(columns, (row(worker, fleet.at) for worker in fleet.workers), right=("RATE", "BUSY", "SLOTS"))
    else:
        say("No worker is alive; `imagemill up` or `imagemill-worker run` starts one.")


@workers.command()
@click.argument("name", default="")
@click.option("--all-of", metavar="HOST|POOL", default="", help="Every worker of a host or a pool, in place of NAME.")
@shared_options
def drain(name: str, all_of: str, as_json: bool) -> None:
    """Have the worker NAME, or the only one whose name begins so, end its shards and exit, as on SIGTERM.

    What restarts it decides whether another takes its place: a Deployment does; systemd with Restart=on-failure does
    not.

    \b
    Example:
      imagemill workers drain worker-1@host
      imagemill workers drain --all-of gpu-node-3
    """
    from producer.client import Client

    asked = Client().drain_workers(name, all_of=all_of)
    if as_json:
        print_json({"draining": asked})
        return
    for one in asked:
        echo(f"{one} drains.")
    say("Each takes nothing new from its next heartbeat on, within seconds; `imagemill workers` shows when it is gone.")


def row(worker: WorkerState, now: float) -> tuple[str, ...]:
    """Return the cells of a worker's line."""
    return (
        worker.name,
        worker.pool,
        worker.host,
        worker.device or "-",
        ",".join(worker.queues),
        ",".join(worker.models) or "-",
        f"{worker.rate:,.1f}",
        str(worker.busy),
        str(worker.slots),
        duration(max(0.0, (now or time.time()) - worker.since)),
        state(worker),
    )


def state(worker: WorkerState) -> str:
    """Return draining, `unfit: why`, busy or ready."""
    if worker.draining:
        return "draining"
    if worker.unfit:
        return f"unfit: {worker.unfit}"
    return "busy" if worker.busy else "ready"
