"""`imagemill export`: write generated images as a dataset that other programs load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from producer.cli.common import print_json, say, shared_options
from producer.cli.progress import export_bar

if TYPE_CHECKING:
    from contract.data.dataset_card import Layout


@click.command()
@click.argument("job")
@click.option(
    "--format",
    "layout",
    type=click.Choice(["webdataset", "imagefolder", "idx", "parquet"]),
    default="webdataset",
    show_default=True,
    help="idx is the MNIST format, for gray images of one size.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder: a new one, or that of an interrupted export, which continues.",
)
@shared_options
def export(job: str, layout: Layout, output: Path, as_json: bool) -> None:
    """Write the accepted images of JOB, a finished generate or synthesize job, as a dataset.

    The folder also gets README.md, a dataset card, and croissant.json, the same metadata for machines.

    \b
    Examples:
      imagemill export JOB -o digits/
      imagemill export JOB --format imagefolder -o digits/
      imagemill export JOB --format idx -o digits/ && imagemill train cnn --data digits/ --name digits
    """
    from producer.client import Client

    with export_bar() as progress:
        found = Client().export(job, layout, output, progress=progress)
    if as_json:
        classes = dict.fromkeys(found.labels, 0)
        for one in found.classes:
            classes[one.label] += one.accepted
        print_json({"output": str(output), "format": layout, "images": found.accepted, "classes": classes})
    else:
        say(f"Wrote {found.accepted:,} images of {len(found.classes):,} classes to {output}; see its README.md.")
