"""`imagemill evaluate` and `imagemill report`: judge a model, and look at the page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from producer.cli.common import json_option, print_json, say, shared_options, stack_option
from producer.cli.follow import run_job

if TYPE_CHECKING:
    from contract.records import Precision


@click.command()
@click.argument("model")
@click.option("--data", "source", required=True, metavar="SOURCE", help="Labelled images, as `imagemill train` takes.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the model; auto: the fastest of the worker.",
)
@click.option(
    "--min-score", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="job:ID: only labels this sure."
)
@click.option("--job", metavar="ID", help="Name the job; the same command again is the same job.")
@click.option("--detach", is_flag=True, help="Return when the job is queued.")
@stack_option("--stack")
@json_option
def evaluate(
    model: str, source: str, precision: Precision, min_score: float, job: str | None, detach: bool, as_json: bool
) -> None:
    """Judge MODEL by labelled images, as it is served: accuracy, figures of each class, calibration.

    Of a folder of IDX files the test part is taken. The names of the classes must be those of the model.

    \b
    Examples:
      imagemill evaluate flowers --data flowers-test/ --job flowers-test
      imagemill report flowers-test -o flowers.html
    """
    from producer.client import Client, new_job_id

    client = Client()
    id = job or new_job_id("evaluate")
    submit = partial(
        client.evaluate,
        model,
        source,
        precision=precision,
        min_score=min_score,
        job=id,
    )
    run_job(client, id, source, lambda progress: submit(progress=progress), detach=detach, as_json=as_json)


@click.command()
@click.argument("job")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File; without it the page goes to stdout."
)
@shared_options
def report(job: str, output: Path | None, as_json: bool) -> None:
    """Write the page of JOB: one HTML file that needs nothing else.

    \b
    Example:
      imagemill report flowers-test -o flowers.html
    """
    from producer.client import Client

    html = Client().report(job)
    if output is not None:
        output.write_text(html, "utf-8")
        if as_json:
            print_json({"output": str(output), "bytes": len(html.encode())})
        else:
            say(f"The page is in {output}.")
    elif as_json:
        print_json({"html": html})
    else:
        click.echo(html)
