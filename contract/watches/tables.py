"""Where the rows of a watch lie as one table, which other tools read; jobs know it from the id of a segment's job."""

from __future__ import annotations

import re

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.jobs.templates import output
from contract.keys.bucket import TABLES
from contract.keys.jobs import JobKeys
from contract.keys.watches import parse_segment_job, watch_table
from contract.watches.record import Watch

_VERSION = re.compile(r"\d{20}\.json")


def table_of(store: ObjectStore, job: str, output: str) -> tuple[str, int] | None:
    """Return the s3:// prefix of the table and the number of the segment, by its job's id and output; None for others.

    With `--to` the table lies beside the folders of the segments, else below `tables/` of the own bucket.
    """
    found = parse_segment_job(job)
    if found is None:
        return None
    name, stamp, segment = found
    base = f"s3://{store.bucket}/{TABLES}"
    if output != f"s3://{store.bucket}/{JobKeys(job).root}out/":
        base = output.rstrip("/").rpartition("/")[0] + "/"
    return f"{base}{watch_table(name, stamp)}/", segment


def table_of_watch(store: ObjectStore, watch: Watch) -> str:
    """Return the s3:// prefix of the table of a watch."""
    first = watch.job(0)
    found = table_of(store, first, output(JobKeys(first), store.bucket, watch.template.to))
    assert found is not None, "the id of a segment's job says so"
    return found[0]


def delta_version(store: ObjectStore, table: str) -> int | None:
    """Return the newest version of a Delta table, None before its first; its log has an object a version."""
    bucket, prefix = parse_s3(f"{table}_delta_log/")
    names = (entry.key.removeprefix(prefix) for entry in store.list(prefix, bucket=bucket))
    return max((int(name[:20]) for name in names if _VERSION.fullmatch(name)), default=None)


def segment_manifests(table: str) -> str:
    """Return the s3:// prefix of a table's manifests."""
    return f"{table}_segments/"


def segment_manifest(table: str, segment: int) -> str:
    """Return the s3:// address of a segment's manifest, which names its files; written last."""
    return f"{segment_manifests(table)}{segment:06d}.json"


def forget_segment(store: ObjectStore, job: str, output: str) -> None:
    """Have a segment written to its table again, since its job ran again: delete its manifest."""
    if (found := table_of(store, job, output)) is not None:
        bucket, key = parse_s3(segment_manifest(*found))
        store.delete(key, bucket=bucket)


def written_segments(store: ObjectStore, table: str) -> set[int]:
    """Return the numbers of the segments that have their manifest in a table."""
    bucket, prefix = parse_s3(segment_manifests(table))
    names = (entry.key.removeprefix(prefix) for entry in store.list(prefix, bucket=bucket))
    return {int(name.removesuffix(".json")) for name in names if re.fullmatch(r"\d{6,}\.json", name)}
