"""`imagemill reviews`: what people said of a job's labels, and how far they agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from contract.printable import printable
from producer.cli.common import echo, print_json, print_table, say, shared_options

if TYPE_CHECKING:
    from contract.jobs.reviews.agreement import ReviewSummary

_SHOWN = 20
"""Disagreements that are printed; the newest, as JSON has more."""


@click.group()
def reviews() -> None:
    """Show what people said of a job's labels, and how far they agree."""


@reviews.command()
@click.argument("job")
@shared_options
def show(job: str, as_json: bool) -> None:
    """Show who reviewed JOB, how far each two agree, and on which images they do not.

    AGREE is the share of the images that both reviewed to which both gave the same label. KAPPA is Cohen's kappa, which
    corrects for chance: 1 is perfect, 0 is chance, and a dash means that it is undefined.

    \b
    Examples:
      imagemill reviews show JOB
      imagemill reviews show JOB --json | jq -r '.disagreements[] | select(.label == null) | .key'
    """
    from producer.client import Client

    found = Client().reviews(job)
    if as_json:
        print_json(found.model_dump())
    elif found.images:
        _print(found)
    else:
        say(f"Nobody has reviewed {job} yet; the button Review on its page in the console begins.")


@reviews.command("import")
@click.argument("job")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@shared_options
def import_reviews(job: str, file: Path, as_json: bool) -> None:
    """Import the annotations of FILE, an export of Label Studio, as verdicts on the labels of JOB.

    FILE is JSON or JSON-MIN. Each annotation is imported once, with who made it and when; a newer version of it takes
    the place of the one before. Tasks are found by their `uri` and `key`, as `results --format labelstudio` wrote them.

    \b
    Examples:
      imagemill results JOB --format labelstudio -o tasks.json
      imagemill reviews import JOB project-1-at-2026-11-26-10-00.json
    """
    from producer.client import Client

    found = Client().import_reviews(job, file)
    if as_json:
        print_json(found.model_dump())
        return
    echo(
        f"{found.annotations:,} annotations: {found.added:,} new, {found.known:,} known, {found.withdrawn:,} taken "
        f"back, {found.unclear:,} without a single label, {found.unknown:,} of no image of {job}"
    )
    for text, number, named in (
        ("Without a single label", found.unclear, found.unclear_named),
        (f"No image of {job}", found.unknown, found.unknown_named),
    ):
        for one in named:
            say(f"{text}: {one}")
        if number > len(named):
            say(f"{text}: {number - len(named):,} more")


def _print(found: ReviewSummary) -> None:
    echo(f"{found.images:,} images reviewed, {found.changed:,} labels changed, {found.disputed:,} disputed")
    echo()
    print_table(
        ("REVIEWER", "IMAGES"), ((printable(one.name), f"{one.images:,}") for one in found.reviewers), right=("IMAGES",)
    )
    if found.pairs:
        echo()
        print_table(
            ("REVIEWERS", "BOTH", "AGREE", "KAPPA"),
            (
                (
                    printable(f"{one.a}, {one.b}"),
                    f"{one.images:,}",
                    f"{100 * one.agreement:.1f}%",
                    "-" if one.kappa is None else f"{one.kappa:.2f}",
                )
                for one in found.pairs
            ),
            right=("BOTH", "AGREE", "KAPPA"),
        )
    shown = found.disagreements[-_SHOWN:]
    if shown:
        echo()
        print_table(
            ("IMAGE", "MODEL", "REVIEWERS", "COUNTS"),
            (
                (
                    printable(one.key),
                    printable(one.predicted or ""),
                    printable(", ".join(f"{said.by}: {said.label}" for said in one.said)),
                    printable(one.label or "disputed"),
                )
                for one in shown
            ),
        )
        if len(shown) < len(found.disagreements):
            say(f"These are the newest {_SHOWN} of {len(found.disagreements):,}; --json has more.")
