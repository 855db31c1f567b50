"""`imagemill results` and `imagemill errors`: the rows of a job, and the images that failed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO, cast

import click

from contract.printable import printable
from producer.cli.common import echo, print_json, say, shared_options
from producer.exports.formats import LABELS, help_text


@click.command()
@click.argument("job", required=False)
@click.option("--watch", metavar="NAME", help="Write the rows of a watch as JSON lines, in place of those of a JOB.")
@click.option(
    "--since", metavar="TIME", help="With --watch: only rows planned since 2026-11-26T08:00 (UTC), or since 15m ago."
)
@click.option("--follow", is_flag=True, help="With --watch: go on with rows as they are committed, until Ctrl-C.")
@click.option("--reviewed", is_flag=True, help="Only rows that somebody reviewed in the console, as JSON lines.")
@click.option(
    "--format",
    type=click.Choice(list(LABELS)),
    default="jsonl",
    show_default=True,
    help=help_text(LABELS),
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File, or folder for imagefolder. Default: stdout, for text formats.",
)
@click.option(
    "--presign",
    type=click.FloatRange(0, 168),
    default=0,
    metavar="HOURS",
    help="With labelstudio: write web addresses valid for HOURS in place of s3:// ones.",
)
@shared_options
def results(
    job: str | None,
    watch: str | None,
    since: str | None,
    follow: bool,
    reviewed: bool,
    format: str,
    output: Path | None,
    presign: float,
    as_json: bool,
) -> None:
    """Write the labels of JOB, or of a watch: all rows committed so far.

    \b
    Examples:
      imagemill results JOB | jq -r '[.key, .label, .score] | @tsv'
      imagemill results JOB --format csv -o labels.csv
      imagemill results JOB --format imagefolder -o labelled/
      imagemill results JOB --reviewed | jq -r '[.key, .predicted, .label, .reviewed_by] | @tsv'
      imagemill results --watch camera --since 15m --follow | jq -r '[.event_time, .key, .label] | @tsv'
    """
    from producer.client import Client

    if watch is not None:
        if job is not None or output is not None or format != "jsonl" or reviewed:
            raise click.UsageError("--watch writes JSON lines to stdout; leave JOB, --format, --reviewed and -o out.")
        _write_watched(watch, since, follow)
        return
    if job is None:
        raise click.UsageError("Name a JOB, or a watch with --watch NAME.")
    if since is not None or follow:
        raise click.UsageError("--since and --follow belong to --watch.")
    if reviewed:
        if output is not None or format != "jsonl":
            raise click.UsageError("--reviewed writes JSON lines to stdout; leave --format and -o out.")
        _write_reviewed(job)
        return
    if output is None and as_json and format != "jsonl":
        raise click.UsageError("--json on stdout requires --format jsonl; for another format, name a file with -o.")
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    done = Client().write_results(job, format, output or _stdout(), presign_hours=presign)
    if output is not None:
        if as_json:
            print_json({"output": str(output), "format": format, "rows": done.written, "left_out": done.left_out})
        else:
            what = "images" if LABELS[format].writes == "folder" else "rows"
            say(f"Wrote {done.written:,} {what} to {output}.")
    if done.left_out:
        say(
            f"Left out {done.left_out:,} that failed or have changed since they were labelled; see "
            f"`imagemill errors {job}`."
        )


@click.command()
@click.argument("job")
@shared_options
def errors(job: str, as_json: bool) -> None:
    """List the failed images of JOB: key, error code and message, separated by tabs.

    \b
    Example:
      imagemill errors JOB | cut -f 2 | sort | uniq -c
    """
    from producer.client import Client

    found = False
    for row in Client().errors(job):
        found = True
        if as_json:
            wanted = ("key", "uri", "sha256", "error_code", "error_message")
            print_json({name: row[name] for name in wanted})
        else:
            # Tabs rather than aligned columns: there may be a million rows.
            echo("\t".join(printable(row[name]) for name in ("key", "error_code", "error_message")))
    if not found:
        say(f"No image of {job} has failed so far.")


def _write_watched(name: str, since: str | None, follow: bool) -> None:
    """Write the rows of a watch to stdout, one by one: who follows them sees each at once."""
    import json

    from producer.client import Client
    from producer.exports.labels.source import rounded
    from producer.jobs.watched_rows import parse_time

    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    out = _stdout()
    for row in Client().watched_rows(name, since=parse_time(since) if since else None, follow=follow):
        out.write(json.dumps(rounded(row), ensure_ascii=False) + "\n")
        if follow:
            sys.stdout.flush()


def _write_reviewed(job: str) -> None:
    """Write what people said of a job's labels to stdout."""
    import json

    from producer.client import Client
    from producer.exports.labels.source import rounded

    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    out, found = _stdout(), False
    for row in Client().reviewed(job):
        found = True
        out.write(json.dumps(rounded(row), ensure_ascii=False) + "\n")
    if not found:
        say(f"Nobody has reviewed {job} yet; the button Review on its page in the console begins.")


def _stdout() -> TextIO:
    """Return stdout; a terminal is shown no control character, and a pipe gets every byte."""
    return cast("TextIO", _Terminal()) if sys.stdout.isatty() else sys.stdout


class _Terminal:
    def write(self, text: str) -> int:
        click.echo(printable(text, keep="\n\t"), nl=False)
        return len(text)
