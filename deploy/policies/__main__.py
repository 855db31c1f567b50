"""Print the policy of a role for a bucket, or write the files beside this module anew."""

from __future__ import annotations

import click

from deploy.policies.roles import BUCKET, FOLDER, ROLES, document, to_json


@click.command()
@click.argument("role", type=click.Choice([*ROLES, "all"]))
@click.option("--bucket", default=BUCKET, show_default=True, help="The bucket of jobs, models and schedules.")
@click.option("--source", "sources", multiple=True, help="A further bucket to read images from; repeatable.")
@click.option("--results", multiple=True, metavar="S3URI", help="A prefix that `--to` may name; repeatable.")
@click.option(
    "--move",
    "moves",
    nargs=2,
    multiple=True,
    metavar="S3URI S3URI",
    help="A prefix that a watch follows, and its `--archive`; repeatable.",
)
def main(
    role: str, bucket: str, sources: tuple[str, ...], results: tuple[str, ...], moves: tuple[tuple[str, str], ...]
) -> None:
    """Print the IAM policy of ROLE; `all` writes those that ship."""
    if role != "all":
        click.echo(to_json(document(role, bucket=bucket, sources=sources, results=results, moves=moves)), nl=False)
        return
    for name in ROLES:
        (FOLDER / f"{name}.json").write_text(to_json(document(name)), "utf-8")


if __name__ == "__main__":
    main()
