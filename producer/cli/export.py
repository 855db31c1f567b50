"""`imagemill export`: write generated images as a dataset that other programs load."""

from __future__ import annotations

from pathlib import Path

import click

from producer.cli.common import print_json, say, shared_options
from producer.cli.progress import export_bar
from producer.exports.formats import IMAGES, help_text


@click.command()
@click.argument("job")
@click.option(
    "--format",
    type=click.Choice(list(IMAGES)),
    default="webdataset",
    show_default=True,
    help=help_text(IMAGES),
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder: a new one, or that of an interrupted export, which continues.",
)
@shared_options
def export(job: str, format: str, output: Path, as_json: bool) -> None:
    """Write the accepted images of JOB, a finished generate or synthesize job, as a dataset.

    JOB may also be dataset:NAME or dataset:NAME@VERSION: the images of all versions of a dataset up to that one.

    The folder also gets README.md, a dataset card, and croissant.json, the same metadata for machines.

    \b
    Examples:
      imagemill export JOB -o digits/
      imagemill export JOB --format imagefolder -o digits/
      imagemill export dataset:digits@2026-11-25 -o digits/
      imagemill export JOB --format idx -o digits/ && imagemill train cnn --data digits/ --name digits
    """
    from producer.client import Client

    with export_bar() as progress:
        found = Client().export(job, format, output, progress=progress)
    if as_json:
        classes = dict.fromkeys(found.labels, 0)
        for one in found.classes:
            classes[one.label] += one.accepted
        print_json({"output": str(output), "format": format, "images": found.accepted, "classes": classes})
    else:
        say(f"Wrote {found.accepted:,} images of {len(found.classes):,} classes to {output}; see its README.md.")
