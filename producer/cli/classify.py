"""`imagemill classify`: label images."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from producer.cli.common import shared_options
from producer.cli.follow import run_job

if TYPE_CHECKING:
    from contract.records import Precision


@click.command()
@click.argument("source")
@click.option(
    "--model", required=True, metavar="NAME", help="`name` or `name@version`; `imagemill models list` shows them."
)
@click.option("--top-k", type=click.IntRange(1, 1000), default=5, show_default=True, help="Labels an image.")
@click.option("--embed", is_flag=True, help="Add the embedding of each image to its row.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the model; auto: the fastest of the worker.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(1, 4096),
    help="Images a shard.  [env: IMAGEMILL_SHARD_SIZE; default: 512]",
)
@click.option(
    "--max-errors",
    default="100%",
    show_default=True,
    help="Fail the job when more images fail: a count or a share.",
)
@click.option("--job", metavar="ID", help="Name the job; the same command again is the same job.")
@click.option("--to", metavar="s3://…", help="Where results go, instead of the default bucket.")
@click.option("--detach", is_flag=True, help="Return when the job is queued.")
@shared_options
def classify(
    source: str,
    model: str,
    top_k: int,
    embed: bool,
    precision: Precision,
    shard_size: int | None,
    max_errors: str,
    job: str | None,
    to: str | None,
    detach: bool,
    as_json: bool,
) -> None:
    """Label every image of SOURCE.

    SOURCE is a local folder, an S3 prefix, a manifest (.jsonl, .csv or .parquet with a column `uri` or
    `source-ref`), or WebDataset tars. Local images are packed and uploaded first. For a model of
    sequences the images of a folder are one, and so are an animation and the `frames` of a manifest's
    row. Ctrl-C leaves the job running.

    \b
    Examples:
      imagemill classify photos --model efficientnet-lite0
      imagemill classify s3://camera/2026/ --model efficientnet-lite0 --max-errors 1%
      imagemill classify urls.jsonl --model efficientnet-lite0 --job urls-1 --detach
    """
    from producer.client import Client, new_job_id

    client = Client()
    id = job or new_job_id("classify")
    submit = partial(
        client.classify,
        source,
        model=model,
        top_k=top_k,
        embed=embed,
        precision=precision,
        shard_size=shard_size,
        max_errors=max_errors,
        job=id,
        to=to,
    )
    run_job(client, id, source, lambda progress: submit(progress=progress), detach=detach, as_json=as_json)
