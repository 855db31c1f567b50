"""`imagemill watch`: label a bucket as it fills. Add, upload, list, show, pause, unpause, replay, own, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from contract.jobs.options import WatchOptions, parse_options
from producer.cli.common import duration, print_fields, print_json, print_table, say, shared_options, takes_name
from producer.cli.follow import follow_to_end, print_queued
from producer.cli.options import given, parameters
from producer.uploads.cli import run, upload

if TYPE_CHECKING:
    from producer.client import Client
    from producer.jobs.watches import Watched


@click.group()
def watch() -> None:
    """Label a bucket as it fills: add, upload, list, show, pause, unpause, replay, own, remove."""


watch.add_command(upload)


@watch.command()
@click.option(
    "--upload", "uploads", is_flag=True, help="SOURCE is a folder of this machine: upload what appears in it, too."
)
@shared_options
@click.pass_context
def add(ctx: click.Context, /, uploads: bool, as_json: bool, **_: Any) -> None:
    """Label every image under SOURCE, an s3:// prefix, and then each that comes, once.

    What is there already is labelled first. A model `name` or `name@alias` is resolved when a segment begins, about
    once an hour; `name@version` stays.

    \b
    Examples:
      imagemill watch add camera s3://photos/in/ --model efficientnet-lite0
      imagemill watch add camera s3://photos/in/ --model efficientnet-lite0 --every 500ms --from now
      imagemill watch add camera s3://photos/in/ --model flowers@stable --then nightly-train
      imagemill watch add camera ./photos --upload --model efficientnet-lite0
      imagemill results --watch camera --follow
    """
    from producer.client import Client

    client, options = Client(), given(ctx, WatchOptions)
    if not uploads:
        _print(client.submit_watch(parse_options(WatchOptions, options)), as_json)
        return
    from producer.uploads.feed import SETTLE_SECONDS, check_folder

    folder = check_folder(options.pop("source"))
    made = client.add_upload_watch(options.pop("name"), **options)
    say(f"Added the watch {made.name}; `imagemill watch upload {made.name} {folder}` goes on when this is stopped.")
    run(client, made.name, folder, "", SETTLE_SECONDS, as_json=as_json)


add.params = [*parameters(WatchOptions), *add.params]


@watch.command("list")
@shared_options
def list_watches(as_json: bool) -> None:
    """List every watch by name: how it stands, how far behind it is, and its rate.

    \b
    Example:
      imagemill watch list
    """
    from producer.client import Client

    found = Client().watches()
    if as_json:
        for one in found:
            print_json(one.model_dump())
    elif found:
        print_table(
            ("WATCH", "STATE", "LAG", "UNPLANNED", "UNCOMMITTED", "PLANNED", "RATE", "MODEL", "SOURCE"),
            (
                (
                    one.name,
                    one.state,
                    _lag(one),
                    f"{one.unplanned:,}",
                    f"{one.uncommitted:,}",
                    f"{one.planned:,}",
                    _rate(one),
                    one.model,
                    one.source,
                )
                for one in found
            ),
            right=("LAG", "UNPLANNED", "UNCOMMITTED", "PLANNED", "RATE"),
        )
    else:
        say("There are no watches yet; `imagemill watch add --help` shows how to add one.")


@takes_name(watch)
def show(client: Client, name: str, as_json: bool) -> None:
    """Show NAME: how it stands, how far behind it is, and its segments, which are jobs.

    \b
    Example:
      imagemill watch show camera --json | jq .lag_seconds
    """
    _print(client.watch(name), as_json)


@takes_name(watch)
def pause(client: Client, name: str, as_json: bool) -> None:
    """Plan nothing more for NAME. What is planned is labelled, and what comes meanwhile is labelled later.

    \b
    Example:
      imagemill watch pause camera
    """
    _print(client.pause_watch(name), as_json)


@takes_name(watch)
def unpause(client: Client, name: str, as_json: bool) -> None:
    """Let NAME go on where it was paused.

    \b
    Example:
      imagemill watch unpause camera
    """
    _print(client.unpause_watch(name), as_json)


@watch.command()
@click.argument("name")
@click.option(
    "--from",
    "begin",
    required=True,
    metavar="TIME",
    help="Label what was planned since 2026-11-26T08:00 (UTC), or since 2h ago.",
)
@click.option("--to", "end", metavar="TIME", help="Label what was planned before TIME. Default: now.")
@click.option("--model", required=True, metavar="NAME", help="`name`, `name@version` or `name@alias`.")
@click.option("--detach", is_flag=True, help="Return when the job is queued.")
@shared_options
def replay(name: str, begin: str, end: str | None, model: str, detach: bool, as_json: bool) -> None:
    """Label again what NAME planned in a span of time, with another model or version.

    That is one job, with the other options of the watch. The same command with the same version is the same job. It
    reads the lists of the watch's segments, not the prefix. Ctrl-C leaves the job running.

    \b
    Examples:
      imagemill watch replay camera --from 2026-11-25 --to 2026-11-26 --model flowers@3
      imagemill watch replay camera --from 2h --model flowers@candidate --detach
    """
    from producer.client import Client
    from producer.jobs.watched_rows import parse_time

    client = Client()
    until = parse_time(end, option="--to") if end else None
    status = client.replay_watch(name, begin=parse_time(begin, option="--from"), end=until, model=model)
    if detach:
        print_queued(status, as_json)
    else:
        follow_to_end(client, status.id, as_json)


@takes_name(watch)
def own(client: Client, name: str, as_json: bool) -> None:
    """Take the watch NAME over. Only its owner, IMAGEMILL_OWNER, pauses, unpauses and removes it.

    The segment that is open stays a job of the owner before; those that follow are yours.

    \b
    Example:
      imagemill watch own camera
    """
    _print(client.own_watch(name), as_json)


@takes_name(watch)
def remove(client: Client, name: str, as_json: bool) -> None:
    """Remove NAME and what it has seen. Its jobs and their rows stay.

    \b
    Example:
      imagemill watch remove camera
    """
    client.remove_watch(name)
    if as_json:
        print_json({"removed": name})
    else:
        say(f"Removed the watch {name}; its jobs and their rows stay.")


def _print(found: Watched, as_json: bool) -> None:
    """Print one watch to stdout."""
    if as_json:
        print_json(found.model_dump())
        return
    print_fields(
        {
            "watch": found.name,
            "state": found.state,
            "reason": found.reason or "",
            "source": found.source,
            "model": found.model,
            "lag": _lag(found),
            "images": f"{found.planned:,} planned, {found.unplanned:,} not planned yet, {found.uncommitted:,} without "
            "a row yet",
            "rate": _rate(found),
            "segments": ", ".join(found.jobs),
            "every": duration(found.every_seconds),
            "from": found.start,
            "overwrites": found.overwrites,
            "table": f"{found.table}{_waiting(found.table_waiting)}",
            "delta": _delta(found),
            "archive": f"{found.archive}: {found.archived:,} images moved{_waiting(found.archive_waiting)}"
            if found.archive
            else "",
            "then": f"{found.then}{f', last as {found.then_job}' if found.then_job else ''}",
            "planned": found.swept_at or "",
            "controller": found.controller or "",
            "created": found.created_at,
            "owner": found.owner,
        }
    )


def _delta(found: Watched) -> str:
    if not found.delta:
        return ""
    return "no version yet" if found.delta_version is None else f"version {found.delta_version}"


def _waiting(segments: int) -> str:
    return f", {segments:,} segment{'s wait' if segments != 1 else ' waits'}" if segments else ""


def _lag(found: Watched) -> str:
    return "?" if found.lag_seconds is None else f"{found.lag_seconds:,.1f} s"


def _rate(found: Watched) -> str:
    return f"{found.images_per_second:,.1f} images/s"
