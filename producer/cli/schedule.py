"""`imagemill schedule`: submit jobs on a schedule. Add, list, pause, unpause, run, own, remove, history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import click

from contract.jobs.options import SCHEDULABLE
from producer.cli import cli
from producer.cli.common import print_fields, print_json, print_table, say, shared_options, takes_name
from producer.cli.follow import print_queued

if TYPE_CHECKING:
    from producer.client import Client
    from producer.jobs.schedules import Run, Scheduled

# These options concern one job. The jobs of a schedule are named after their ticks, and nobody waits for them.
_OF_ONE_JOB = {"job": "--job", "detach": "--detach", "as_json": "--json"}


@click.group()
def schedule() -> None:
    """Submit jobs on a schedule: add, list, pause, unpause, run, own, remove, history."""


_ADD = f"""Submit a job at each tick of a cron line. `--` separates COMMAND from the options of the schedule.

COMMAND is {", ".join(SCHEDULABLE[:-1])} or {SCHEDULABLE[-1]} with its options. Its images must be where workers can
read them, not on this machine. A model `name` or `name@alias` is resolved at each tick; `name@version` stays. The id of
a job is NAME and the minute in UTC: nightly-20261124t0100.

\b
Examples:
  imagemill schedule add nightly --cron '0 2 * * *' --timezone Europe/Paris -- \\
    classify s3://camera/today/ --model efficientnet-lite0
  imagemill schedule add weekly --cron '30 4 * * MON' --missed skip -- \\
    train cnn --data s3://sets/flowers/ --name flowers
  imagemill schedule add monthly --cron '0 3 1 * *' -- \\
    synthesize --model fashion-gan --gate fashion-cnn --per-class 1000 --to s3://sets/
"""


@schedule.command(help=_ADD)
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--cron", required=True, help="Cron line: minute, hour, day of month, month, day of week; e.g. '0 2 * * *'."
)
@click.option("--timezone", default="UTC", show_default=True, help="Time zone of the cron line, e.g. Europe/Paris.")
@click.option(
    "--missed",
    type=click.Choice(["run", "skip"]),
    default="run",
    show_default=True,
    help="After an outage: run the missed ticks once, or skip them.",
)
@shared_options
@click.pass_context
def add(
    ctx: click.Context,
    name: str,
    command: tuple[str, ...],
    cron: str,
    timezone: str,
    missed: Literal["run", "skip"],
    as_json: bool,
) -> None:
    from producer.client import Client

    kind, arguments = _parse(ctx, command)
    found = Client().add_schedule(name, kind, arguments, cron=cron, timezone=timezone, missed=missed)
    _print(found, as_json)


@schedule.command("list")
@shared_options
def list_schedules(as_json: bool) -> None:
    """List every schedule by name. Shows its next three ticks and its last run, in its own time zone.

    \b
    Example:
      imagemill schedule list
    """
    from producer.client import Client

    found = Client().schedules()
    if as_json:
        for one in found:
            print_json(one.model_dump())
    elif found:
        print_table(
            ("SCHEDULE", "CRON", "TIMEZONE", "NEXT", "LAST", "RESULT", "KIND", "MODEL", "SOURCE"),
            (
                (
                    one.name,
                    one.cron,
                    one.timezone,
                    _next(one),
                    _local(one.last.tick, one.timezone) if one.last else "",
                    one.last.state if one.last else "",
                    one.kind,
                    one.model,
                    one.source,
                )
                for one in found
            ),
        )
    else:
        say("There are no schedules yet; `imagemill schedule add --help` shows how to add one.")


@takes_name(schedule)
def pause(client: Client, name: str, as_json: bool) -> None:
    """Let the ticks of NAME pass without a job. They are not caught up later; a running job continues.

    \b
    Example:
      imagemill schedule pause nightly
    """
    _print(client.pause_schedule(name), as_json)


@takes_name(schedule)
def unpause(client: Client, name: str, as_json: bool) -> None:
    """Submit jobs at the ticks of NAME again, from now on.

    \b
    Example:
      imagemill schedule unpause nightly
    """
    _print(client.unpause_schedule(name), as_json)


@takes_name(schedule)
def run(client: Client, name: str, as_json: bool) -> None:
    """Submit the job of NAME now, paused or not, and print its id.

    \b
    Example:
      imagemill follow $(imagemill schedule run nightly)
    """
    print_queued(client.run_schedule(name), as_json)


@takes_name(schedule)
def own(client: Client, name: str, as_json: bool) -> None:
    """Take the schedule NAME over. Only its owner, IMAGEMILL_OWNER, pauses, unpauses and removes it.

    \b
    Example:
      imagemill schedule own nightly
    """
    _print(client.own_schedule(name), as_json)


@takes_name(schedule)
def remove(client: Client, name: str, as_json: bool) -> None:
    """Remove NAME and its history. Its jobs stay, and a running one continues.

    \b
    Example:
      imagemill schedule remove nightly
    """
    client.remove_schedule(name)
    if as_json:
        print_json({"removed": name})
    else:
        say(f"Removed the schedule {name}; its jobs stay.")


@schedule.command()
@click.argument("name")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Number of newest ticks to list."
)
@shared_options
def history(name: str, limit: int, as_json: bool) -> None:
    """List the ticks of NAME and their jobs, newest first. The last 1,000 are kept.

    \b
    Example:
      imagemill schedule history nightly --json
    """
    from producer.client import Client

    client = Client()
    found = client.schedule_history(name, limit)
    if as_json:
        for one in found:
            print_json(one.model_dump())
    elif found:
        (of,) = client.schedules(name)
        print_table(
            ("TICK", "STATE", "JOB", "NOTE"),
            ((_local(one.tick, of.timezone, offset=True), one.state, one.job or "", _note(one)) for one in found),
        )
    else:
        say(f"{name} has had no tick yet; `imagemill schedule list` shows the next ones.")


def _parse(ctx: click.Context, words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the command in `words` and the arguments that its own parser finds; the command is not run."""
    from contract.errors import InvalidInput
    from producer.cli.options import given
    from producer.jobs.requests import check_command

    name = words[0]
    options = check_command(name)
    command = cli.get_command(ctx, name)
    assert command is not None, f"{name} makes jobs and is no command"
    with command.make_context(name, list(words[1:]), parent=ctx.find_root()) as inner:
        arguments = given(inner, options)
        for argument, option in _OF_ONE_JOB.items():
            if inner.params.get(argument):
                raise InvalidInput(
                    f"A schedule names its own jobs and does not wait for them; leave {option} out after `--`."
                )
    return name, arguments


def _print(found: Scheduled, as_json: bool) -> None:
    """Print one schedule to stdout."""
    if as_json:
        print_json(found.model_dump())
        return
    last = found.last
    print_fields(
        {
            "schedule": found.name,
            "cron": found.cron,
            "timezone": found.timezone,
            "missed": found.missed,
            "next": _next(found),
            "last": f"{_local(last.tick, found.timezone)}, {last.state}" if last else "",
            "job": " ".join(part for part in (found.kind, found.model) if part),
            "source": found.source,
            "created": found.created_at,
            "owner": found.owner,
        }
    )


def _next(found: Scheduled) -> str:
    """Return the next ticks, each without what the one before already said: `2026-11-25 02:00, 11-26 02:00`."""
    if found.paused:
        return "paused"
    said: list[str] = []
    before = ""
    for at in found.next:
        time = _local(at, found.timezone)
        if time[:10] == before[:10]:
            said.append(time[11:])
        else:
            said.append(time[5:] if time[:4] == before[:4] else time)
        before = time
    return ", ".join(said)


def _note(one: Run) -> str:
    missed = f"{one.missed:,} earlier {'tick was' if one.missed == 1 else 'ticks were'} missed" if one.missed else ""
    return "; ".join(
        part
        for part in (
            "by hand" if one.manual else "",
            f"after {one.after}" if one.after else "",
            missed,
            one.reason or "",
        )
        if part
    )


def _local(at: str, timezone: str, *, offset: bool = False) -> str:
    """Return the local time in a time zone; its UTC `offset` tells the repeated hour of an autumn night apart."""
    from zoneinfo import ZoneInfo

    local = datetime.fromisoformat(at).astimezone(ZoneInfo(timezone))
    return f"{local:%Y-%m-%d %H:%M %z}" if offset else f"{local:%Y-%m-%d %H:%M}"
