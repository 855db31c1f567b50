"""`imagemill datasets`: the named datasets of the bucket. List, show, own, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from producer.cli.common import echo, print_fields, print_json, print_table, say, shared_options, takes_name

if TYPE_CHECKING:
    from producer.client import Client
    from producer.datasets import DatasetSummary


@click.group()
def datasets() -> None:
    """List, show, own and remove the datasets that `imagemill synthesize --extend` grows."""


@datasets.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Datasets to list.")
@click.option("--after", metavar="NAME", default="", help="Continue behind this name, the last of the page before.")
@shared_options
def list_datasets(limit: int, after: str, as_json: bool) -> None:
    """List datasets by name, each at its newest version.

    \b
    Example:
      imagemill datasets list
    """
    from contract.datasets.versions import short_time
    from producer.client import Client

    found = Client().datasets(limit=limit, after=after)
    if as_json:
        for one in found:
            print_json(one.model_dump())
    elif found:
        print_table(
            ("DATASET", "VERSION", "OF", "IMAGES", "CLASSES", "MODEL", "OWNER"),
            (
                (
                    one.name,
                    str(one.version or "none"),
                    short_time(one.at) if one.at else "",
                    f"{one.images:,}",
                    f"{len(one.classes):,}",
                    one.model,
                    one.owner,
                )
                for one in found
            ),
            right=("VERSION", "IMAGES", "CLASSES"),
        )
        if len(found) == limit:
            say(f"More: imagemill datasets list --after {found[-1].name}")
    else:
        say("There are no datasets; `imagemill synthesize --extend NAME` begins one.")


@datasets.command()
@click.argument("dataset")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Versions to list.")
@click.option("--before", type=click.IntRange(1), default=None, help="List versions before this one.")
@shared_options
def show(dataset: str, limit: int, before: int | None, as_json: bool) -> None:
    """Show DATASET, or DATASET@VERSION, and its versions, newest first.

    A version is a number, a day (`faces@2026-11-25`) or a minute in UTC (`faces@2026-11-25T02:00`).

    \b
    Example:
      imagemill datasets show faces
    """
    from contract.datasets.versions import short_time
    from producer.client import Client

    client = Client()
    found = client.dataset(dataset)
    listed = client.dataset_versions(found.name, limit=limit, before=before or found.version + 1)
    if as_json:
        print_json({**found.model_dump(), "versions": [one.model_dump(exclude={"parts"}) for one in listed]})
        return
    _print(found)
    if listed:
        echo()
        print_table(
            ("VERSION", "OF", "NEW IMAGES", "JOB", "MODEL", "GATE", "SEED"),
            (
                (
                    one.ref,
                    short_time(one.at),
                    f"{sum(one.accepted.values()):,}",
                    one.job,
                    one.model,
                    one.gate,
                    str(one.seed),
                )
                for one in listed
            ),
            right=("NEW IMAGES",),
        )


@takes_name(datasets)
def own(client: Client, name: str, as_json: bool) -> None:
    """Take the dataset NAME over. Only its owner, IMAGEMILL_OWNER, extends and removes it.

    A job that is extending it goes on; a schedule of the owner before extends it no more.

    \b
    Example:
      imagemill datasets own faces
    """
    found = client.own_dataset(name)
    if as_json:
        print_json(found.model_dump())
    else:
        _print(found)


@takes_name(datasets)
def rm(client: Client, name: str, as_json: bool) -> None:
    """Remove the dataset NAME with all its versions. The jobs that made its images stay.

    \b
    Example:
      imagemill datasets rm faces
    """
    jobs = client.remove_dataset(name)
    if as_json:
        print_json({"removed": name, "jobs": jobs})
    else:
        kept = "the job that made its images stays" if jobs == 1 else f"the {jobs:,} jobs that made its images stay"
        held = f"; {kept}, and `imagemill jobs rm` removes them" if jobs else ", which had no version"
        say(f"Removed the dataset {name}{held}.")


def _print(found: DatasetSummary) -> None:
    """Print one dataset to stdout, without its versions."""
    from contract.datasets.versions import short_time

    print_fields(
        {
            "dataset": found.name,
            "version": f"{found.version} of {short_time(found.at)} UTC" if found.version else "none yet",
            "images": f"{found.images:,}" if found.version else "",
            "classes": ", ".join(f"{label} {number:,}" for label, number in found.classes.items()),
            "owner": found.owner,
        }
    )
