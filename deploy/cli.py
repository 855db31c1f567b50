"""The commands `imagemill up` and `imagemill down`. They print; what they do is in `daemon`."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import click

from contract.settings import load, use_data
from contract.telemetry import logs
from deploy.local import daemon
from deploy.local.autoscaler import parse_count
from deploy.local.stack import Stack
from deploy.local.stackfile import StackInfo
from deploy.local.web import TOKEN_FILE

_HELP = {"help_option_names": ["-h", "--help"]}
_data = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the stack; default IMAGEMILL_DATA, then ./.imagemill.",
)
_json = click.option("--json", "as_json", is_flag=True, help="JSON: one object.")


@click.command(context_settings=_HELP)
@click.option(
    "--workers",
    default="1",
    show_default=True,
    metavar="N|N..M",
    help="Worker processes; a range, such as 1..8, follows the work.",
)
@click.option("--metrics", is_flag=True, help="Show probes and metrics of each process, on free local ports.")
@_data
@click.option("--detach", is_flag=True, help="Return when it is up, and leave it running.")
@_json
def up(workers: str, metrics: bool, data: Path | None, detach: bool, as_json: bool) -> None:
    """Start the embedded stack: Redis, an S3 server, controller, clock, HTTP API and workers.

    \b
    Example:
      imagemill up
      imagemill up --workers 2 --data /big/disk --detach
      imagemill up --workers 1..8 --metrics
    """
    least, most = parse_count(workers)
    folder = _folder(data)
    if daemon.running(folder):
        info = daemon.wait_running(folder)
        _print_up(info, as_json, "runs already")
        if metrics and not info.metrics:
            click.echo("It was started without --metrics; run `imagemill down`, and start it again with it.", err=True)
    elif detach:
        _print_up(daemon.run_detached(folder, least, most, metrics=metrics), as_json, "runs")
    else:
        logs.set_up(load().log, logging.WARNING, "%(asctime)s %(message)s")
        click.echo(f"Starting in {folder} …", err=True)
        stack = Stack(folder, least, most, metrics=metrics)
        daemon.run_foreground(stack, lambda info: _print_up(info, as_json, "runs", ", or Ctrl-C"))


@click.command(context_settings=_HELP)
@_data
@_json
def down(data: Path | None, as_json: bool) -> None:
    """Stop the embedded stack and keep its data.

    \b
    Example:
      imagemill down
    """
    folder = _folder(data)
    stopped = daemon.stop(folder)
    if as_json:
        click.echo(json.dumps({"stopped": stopped, "data": str(folder)}))
    else:
        click.echo(f"Stopped; the data stays in {folder}." if stopped else f"No stack runs in {folder}.")


def _folder(data: Path | None) -> Path:
    folder = (data or load().data).expanduser().resolve()
    use_data(folder)
    return folder


def _print_up(info: StackInfo, as_json: bool, verb: str, or_else: str = "") -> None:
    facts = info.public()
    if as_json:
        click.echo(json.dumps(facts))
        return
    default = info.data == Path(".imagemill").resolve()
    option = "" if default else f" --data {info.data}"
    lines = [
        f"Imagemill {verb} in {info.data}, {_workers(facts)}.",
        f"  Redis  {facts['redis_url']}",
        f"  S3     {facts['s3_endpoint']}, bucket {info.bucket}",
        f"  logs   {facts['logs']}",
        f"  label  imagemill classify FOLDER --model efficientnet-lite0{option}",
        f"  stop   imagemill down{option}{or_else}",
    ]
    if info.api_url:
        lines[3:3] = [
            f"  web    {_console(info)}",
            f"  API    {info.api_url}/v1, token in {info.data / TOKEN_FILE}",
        ]
    lines[-2:-2] = [f"  watch  http://{at}/metrics, {name}" for name, at in info.metrics.items()]
    click.echo("\n".join(lines))


def _console(info: StackInfo) -> str:
    """Return the address of the console, on a terminal with the token, which a browser keeps behind the #.

    Elsewhere the output may be somebody's log.
    """
    if sys.stdout.isatty() and info.api_token:
        return f"{info.api_url}/console/sign-in#{info.api_token}"
    return f"{info.api_url}/console"


def _workers(facts: dict[str, Any]) -> str:
    least, most = facts["workers"], facts["most_workers"]
    if least != most:
        return f"{least} to {most} workers, as the work asks for"
    return f"{least} worker{'' if least == 1 else 's'}"
