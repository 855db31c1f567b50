"""The command that deletes what nobody needs: gc."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from producer.cli.common import print_json, print_table, say, shared_options

if TYPE_CHECKING:
    from contract.jobs.retention import Found


@click.command()
@click.option("--dry-run", is_flag=True, help="Only list what would be deleted.")
@click.option("--rebuild-index", is_flag=True, help="Build the index of jobs anew from the jobs, first.")
@shared_options
def gc(dry_run: bool, rebuild_index: bool, as_json: bool) -> None:
    """Delete what nobody needs.

    These are jobs whose retention is over (`--keep-days`, IMAGEMILL_KEEP_DAYS), checkpoints and candidates of jobs that
    have succeeded, uploads whose job was never submitted within a week, uploads over HTTP that nothing named in time
    (IMAGEMILL_KEEP_UPLOADS_DAYS), uploads of parts that were broken off, and records of old ticks. A job that has not
    ended, that may be resumed, or whose images another job needs stays whole, and so does every model. The controller
    deletes jobs whose retention is over, and uploads over HTTP, by itself.

    \b
    Example:
      imagemill gc --dry-run
    """
    from producer.client import Client

    client = Client()
    if rebuild_index:
        client.rebuild_index()
    print_found(client.gc(dry_run=dry_run), as_json=as_json, done="would be deleted" if dry_run else "deleted")


def print_found(found: Iterable[Found], *, as_json: bool, done: str) -> None:
    """Print what was deleted, and its sum."""
    listed = sorted(found, key=lambda one: -one.bytes)
    if as_json:
        for one in listed:
            print_json({"what": one.what, "job": one.job, "objects": one.objects, "bytes": one.bytes})
        return
    if listed:
        print_table(
            ("WHAT", "JOB", "OBJECTS", "BYTES"),
            ((one.what, one.job, f"{one.objects:,}", f"{one.bytes:,}") for one in listed),
            right=("OBJECTS", "BYTES"),
        )
    objects, size = sum(one.objects for one in listed), sum(one.bytes for one in listed)
    say(f"{objects:,} objects, {size:,} bytes: {done}.")
