"""`imagemill train`: train a model on labelled images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from producer.cli.common import json_option, stack_option
from producer.cli.follow import run_job


def _names(_: click.Context, __: click.Parameter, path: Path | None) -> list[str]:
    """The names in the file of `--labels`."""
    lines = path.read_text("utf-8").splitlines() if path else []
    return [line.strip() for line in lines if line.strip()]


@click.command()
@click.argument("family")
@click.option("--data", "source", required=True, metavar="SOURCE", help="Labelled images; see below.")
@click.option("--name", required=True, help="Of the model; each training publishes its next version.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the data; else those of the recipe.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A number of the recipe; repeatable.")
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_names,
    help="File with the names of the classes in their order, one a line.",
)
@click.option("--from", "start", metavar="NAME@V", help="Begin with the weights of this model.")
@click.option(
    "--min-score", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="job:ID: only labels this sure."
)
@click.option("--half", is_flag=True, help="Publish the weights in half precision: half the bytes.")
@click.option("--job", metavar="ID", help="Name the job; the same command again is the same job.")
@click.option("--detach", is_flag=True, help="Return when the job is queued.")
@stack_option("--stack")
@json_option
def train(
    family: str,
    source: str,
    name: str,
    epochs: int | None,
    settings: tuple[str, ...],
    labels: list[str],
    start: str | None,
    min_score: float,
    half: bool,
    job: str | None,
    detach: bool,
    as_json: bool,
) -> None:
    """Train a model of FAMILY: cnn, rnn, gan or vae.

    SOURCE is a folder of class folders, WebDataset tars, an S3 prefix, a manifest with a column `label`, a folder
    with IDX files (the MNIST format), or job:ID, the labels of an earlier classify job. An rnn takes sequences:
    CLASS/SEQUENCE/frame-1.png, animations, or a manifest with `frames` and `label`. It checkpoints, so that a
    worker may die; Ctrl-C leaves it running. The best epoch is published.

    \b
    Examples:
      imagemill train cnn --data flowers/ --name flowers --epochs 20 --set size=64
      imagemill train gan --data s3://sets/mnist/ --name digits-gan
      imagemill train cnn --data job:animals --min-score 0.9 --name animals --set size=96
    """
    from producer.client import Client, new_job_id

    client = Client()
    id = job or new_job_id("train")
    submit = partial(
        client.train,
        family,
        source,
        name=name,
        epochs=epochs,
        settings=settings,
        labels=labels,
        start=start,
        min_score=min_score,
        half=half,
        job=id,
    )
    run_job(client, id, source, lambda progress: submit(progress=progress), detach=detach, as_json=as_json)
