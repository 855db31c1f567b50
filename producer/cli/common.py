"""What all commands share: common options, and printing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from contract.printable import printable, printable_json

if TYPE_CHECKING:
    from contract.jobs.status import Status
    from producer.client import Client

F = TypeVar("F", bound=Callable[..., Any])


def shared_options(function: F) -> F:
    """Add `--json` (as the argument `as_json`) and `--data`, which every command takes."""
    return stack_option("--data")(json_option(function))


def json_option(function: F) -> F:
    """Add `--json`, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON: one object, or one per line for a list.")(
        function
    )


def takes_name(group: click.Group) -> Callable[[Callable[[Client, str, bool], None]], click.Command]:
    """Add to `group` a command that takes NAME, `--json` and `--data`, named and described by its function.

    The function is given a client, NAME, and whether to print JSON.
    """

    def add(function: Callable[[Client, str, bool], None]) -> click.Command:
        @group.command(function.__name__, help=function.__doc__)
        @click.argument("name")
        @shared_options
        def command(name: str, as_json: bool) -> None:
            from producer.client import Client

            function(Client(), name, as_json)

        return command

    return add


def stack_option(name: str) -> Callable[[F], F]:
    """Add the option for the folder of the embedded stack; it is `--stack` where `--data` names the training data."""
    return click.option(
        name,
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the embedded stack.  [env: IMAGEMILL_DATA; default: ./.imagemill]",
        expose_value=False,
        callback=_use_data,
        is_eager=True,
    )


def _use_data(_: click.Context, __: click.Parameter, folder: Path | None) -> None:
    if folder is not None:
        from contract.settings import use_data

        use_data(folder)


def echo(text: str = "", *, err: bool = False) -> None:
    """Print text to stdout or stderr; the only place that does, so no control character gets through."""
    click.echo(printable(text, keep="\n\t"), err=err)


def say(text: str) -> None:
    """Print a line for people to stderr."""
    echo(printable(text), err=True)


def print_json(value: Any) -> None:
    """Print one JSON object on one line of stdout."""
    import json

    click.echo(printable_json(json.dumps(value, ensure_ascii=False)))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print aligned columns to stdout, those named in `right` flush right.

    On a terminal the table fits its width, and long cells are folded. Elsewhere every row is one line, for `grep` and
    `cut`.
    """
    lines = [list(map(printable, row)) for row in rows]
    if sys.stdout.isatty():
        _print_rich(headings, lines, right)
        return
    widths = [max(len(line[n]) for line in (headings, *lines)) for n in range(len(headings))]
    for line in (headings, *lines):
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(line, widths, headings, strict=True)
        ]
        echo("  ".join(cells).rstrip())


def _print_rich(headings: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for n, name in enumerate(headings):
        table.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=n == 0)
    for row in rows:
        table.add_row(*map(Text, row))  # as text: a source may look like markup, `[red]`
    Console(file=sys.stdout, highlight=False).print(table)


def print_fields(fields: Mapping[str, str]) -> None:
    """Print names and values to stdout, one per line, without empty ones."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        if value:
            echo(f"{name.ljust(width)}  {printable(value)}")


def print_status(status: Status, *, as_json: bool) -> None:
    """Print one job to stdout."""
    if as_json:
        print_json(status.model_dump())
    else:
        print_fields(status_fields(status))


def status_fields(status: Status) -> dict[str, str]:
    """Return what people see of a job: names and values, in order."""
    total = "?" if status.total is None else f"{status.total:,}"
    shards = status.shards
    return {
        "job": status.id,
        "state": status.state,
        "waiting": f"for {status.waiting_for}" if status.waiting_for else "",
        "reason": status.reason or "",
        "source": status.source,
        "model": status.model,
        "images": f"{status.done:,} of {total} done, {status.ok:,} ok, {status.errors:,} failed"
        + (f", {status.skipped:,} {'file' if status.skipped == 1 else 'files'} skipped" if status.skipped else ""),
        "shards": f"{shards.done:,} of {shards.total:,} done, {shards.running:,} running, {shards.queued:,} queued",
        "share": _share(status),
        "rate": "" if status.images_per_second is None else f"{status.images_per_second:,.1f} images/s",
        "left": "" if status.eta_seconds is None else duration(status.eta_seconds),
        "figures": figures(status.metrics),
        "failures": _counts(status.error_codes, 5),
        "labels": _counts(status.labels, 5),
        "created": status.created_at,
        "started": status.started_at or "",
        "finished": status.finished_at or "",
        "output": status.output,
    }


def _share(status: Status) -> str:
    """Return what is special about a job's share of the slots, nothing for the share that every job has."""
    parts = {
        f"{status.priority} priority": status.priority != "normal",
        f"weight {status.weight:g}": status.weight != 1,
        f"at most {status.max_slots:,} {'slot' if status.max_slots == 1 else 'slots'}": status.max_slots > 0,
    }
    return ", ".join(text for text, given in parts.items() if given)


def figures(metrics: Mapping[str, float] | None) -> str:
    """Return the figures of a training on one line: `epoch 3, train_loss 0.41, accuracy 0.913`."""
    return ", ".join(f"{name} {_number(value)}" for name, value in (metrics or {}).items() if name != "epochs")


def _number(value: float) -> str:
    """Format with four significant digits, and whole numbers in full."""
    return f"{value:,.0f}" if value >= 1000 and value == int(value) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Format seconds for people: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def on_terminal() -> bool:
    """Return whether stderr is a terminal, on which a line can be redrawn."""
    return sys.stderr.isatty()


def _counts(counts: Mapping[str, int] | None, most: int) -> str:
    if not counts:
        return ""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = f" and {len(ranked) - most:,} more" if len(ranked) > most else ""
    return ", ".join(f"{name} {count:,}" for name, count in ranked[:most]) + rest
