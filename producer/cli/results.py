"""`imagemill results` and `imagemill errors`: what a job made of its images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from producer.cli.common import print_json, say, shared_options

if TYPE_CHECKING:
    from producer.exports.results import Format


@click.command()
@click.argument("job")
@click.option(
    "--format",
    type=click.Choice(["jsonl", "csv", "parquet", "imagefolder", "labelstudio"]),
    default="jsonl",
    show_default=True,
    help="imagefolder loads with Hugging Face datasets and holds the images themselves.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File, or folder for imagefolder; without it text goes to stdout.",
)
@click.option(
    "--presign",
    type=click.FloatRange(0, 168),
    default=0,
    metavar="HOURS",
    help="labelstudio: web addresses good for so long, instead of s3:// ones.",
)
@shared_options
def results(job: str, format: Format, output: Path | None, presign: float, as_json: bool) -> None:
    """Write the labels of JOB: every row that is committed so far.

    \b
    Examples:
      imagemill results JOB | jq -r '[.key, .label, .score] | @tsv'
      imagemill results JOB --format csv -o labels.csv
      imagemill results JOB --format imagefolder -o labelled/
    """
    from producer.client import Client

    if output is None and as_json and format != "jsonl":
        raise click.UsageError("--json on stdout is --format jsonl; name a file with -o for another format.")
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    done = Client().write_results(job, format, output or sys.stdout, presign_hours=presign)
    if output is not None:
        if as_json:
            print_json({"output": str(output), "format": format, "rows": done.written, "left_out": done.left_out})
        else:
            what = "images" if format == "imagefolder" else "rows"
            say(f"{done.written:,} {what} are in {output}.")
    if done.left_out:
        say(
            f"{done.left_out:,} are left out: they failed, or are not what was labelled any more; see "
            f"`imagemill errors {job}`."
        )


@click.command()
@click.argument("job")
@shared_options
def errors(job: str, as_json: bool) -> None:
    """List the images of JOB that failed: key, code, message.

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
            # Tabs, not aligned columns: there may be a million.
            click.echo("\t".join((row["key"], row["error_code"], row["error_message"])))
    if not found:
        say(f"No image of {job} has failed so far.")
