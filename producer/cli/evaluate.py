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
@click.option("--features", metavar="CLASSIFIER", help="Of a generator: the classifier whose features compare.")
@click.option(
    "--count", type=click.IntRange(0), default=0, show_default=True, help="Images to generate; 0: as many as are real."
)
@click.option(
    "--cas-epochs",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Epochs of the classifiers of the classification accuracy score; 0: none.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the generated images.")
@click.option("--job", metavar="ID", help="Name the job; the same command again is the same job.")
@click.option("--detach", is_flag=True, help="Return when the job is queued.")
@stack_option("--stack")
@json_option
def evaluate(
    model: str,
    source: str,
    precision: Precision,
    min_score: float,
    features: str | None,
    count: int,
    cas_epochs: int,
    seed: int,
    job: str | None,
    detach: bool,
    as_json: bool,
) -> None:
    """Judge MODEL by labelled images, as it is served. The names of the classes must be those of the model.

    A classifier: accuracy, figures of each class, calibration. Of a folder of IDX files the test part is taken.

    A generator, with --features: Fréchet and kernel distance, precision, recall, density, coverage, copies of
    training images; with --cas-epochs, how well a classifier does that learnt from its images alone. Give it the
    data that it was trained on: it is compared with the test part, or with what the training held out.

    \b
    Examples:
      imagemill evaluate flowers --data flowers-test/ --job flowers-test
      imagemill report flowers-test -o flowers.html
      imagemill evaluate fashion-gan --data fashion/ --features fashion-cnn --cas-epochs 10
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
        features=features,
        count=count,
        cas_epochs=cas_epochs,
        seed=seed,
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

    Of an `evaluate` job: figures and plots of the model. Of a `classify` job that has ended: its labels and scores, the
    images that it is least certain of, and what failed; a worker makes it when it is first asked for.

    \b
    Examples:
      imagemill report flowers-test -o flowers.html
      imagemill report animals -o animals.html
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
