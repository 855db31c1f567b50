"""The command `workers`: who is there, what each can do and does, and asking one to leave."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
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
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print_table(*table(fleet.workers, fleet.at, width), right=NUMBERS)
        for rule in [] if width is None else rules(fleet.workers):
            echo(f"{rule}.")
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


_NAMES = "NAME POOL HOST DEVICE MEMORY RUNTIME QUEUES MODELS RATE BUSY SLOTS UP STATE TAKES"
NUMBERS = ("MEMORY", "RATE", "BUSY", "SLOTS")
"""Columns that are flush right."""
_WIDE = 120
"""Columns of a terminal from which on a worker's line has host, queues and loaded models."""


def table(workers: Sequence[WorkerState], now: float, width: int | None) -> tuple[list[str], list[list[str]]]:
    """Return the headings, and a line for each worker, for a terminal of `width` columns or for a program.

    On a terminal, which models it takes has no room in a line: `rules` says that.
    """
    less = () if width is None else ("TAKES",) if width >= _WIDE else ("HOST", "QUEUES", "MODELS", "TAKES")
    names, rows = _NAMES.split(), [_row(worker, now) for worker in workers]
    shown = [n for n, name in enumerate(names) if name not in less]
    return [names[n] for n in shown], [[cells[n] for n in shown] for cells in rows]


def rules(workers: Sequence[WorkerState]) -> list[str]:
    """Return a line for each rule by which some workers load models: `worker-1@node-3 takes models fashion-*`."""
    found: dict[str, list[str]] = {}
    for worker in workers:
        if worker.rule:
            found.setdefault(worker.rule, []).append(worker.name)
    return [f"{_some(names)} {'takes' if len(names) == 1 else 'take'} {rule}" for rule, names in found.items()]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _row(worker: WorkerState, now: float) -> tuple[str, ...]:
    return (
        worker.name,
        worker.pool,
        worker.host,
        worker.device or "-",
        "-" if worker.memory is None else f"{worker.memory} GiB",
        "+".join(worker.runtimes) or "-",
        ",".join(worker.queues),
        ",".join(worker.models) or "-",
        f"{worker.rate:,.1f}",
        str(worker.busy),
        str(worker.slots),
        duration(max(0.0, (now or time.time()) - worker.since)),
        state(worker),
        worker.rule or "all models",
    )


def state(worker: WorkerState) -> str:
    """Return draining, `unfit: why`, busy or ready."""
    if worker.draining:
        return "draining"
    if worker.unfit:
        return f"unfit: {worker.unfit}"
    return "busy" if worker.busy else "ready"
