"""How the nearest images of each labelled image are labelled: a table that a worker makes of a job's embeddings.

It is made with the page of the job, when first asked for, and says which end of the job it is of: after a retry it is
out of date, and made anew.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from contract.backend.objects import ObjectStore
from contract.data.parquet import read_table
from contract.errors import ObjectNotFound
from contract.keys.jobs import JobKeys

NEIGHBOURS = 10
"""Nearest images that are looked at."""
MOST_IMAGES = 20_000
"""Images that are compared with each other; of a larger job the first ones. With 1,280 numbers each they take 20 s of
CPU and 250 MB."""

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("shard", pa.int32()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("against", pa.string()),  # the label that most neighbours with another label have
        ("share", pa.float32()),  # of neighbours with another label
        ("distance", pa.float32()),  # cosine distance to the nearest image
        ("cluster", pa.int32()),  # number of the cluster, the largest first; null for an image alone
    ]
)
_END, _IMAGES = b"imagemill.end", b"imagemill.images"


def write(store: ObjectStore, job: str, table: pa.Table, *, end: str, images: int) -> None:
    """Write the table of a job's `end`, which has so many labelled images in all."""
    target = io.BytesIO()
    told = {_END: end.encode(), _IMAGES: str(images).encode()}
    pq.write_table(table.cast(SCHEMA).replace_schema_metadata(told), target, compression="zstd")
    store.put(JobKeys(job).neighbours, target.getvalue())


def read(store: ObjectStore, job: str, *, end: str | None) -> pa.Table | None:
    """Return the table of a job's `end`, None if none was made of it yet."""
    try:
        table = read_table(store.get(JobKeys(job).neighbours))
    except ObjectNotFound:
        return None
    told = table.schema.metadata or {}
    return table if end is not None and told.get(_END) == end.encode() else None


def images(table: pa.Table) -> int:
    """Return how many labelled images the job has, of which the table may have the first alone."""
    return int((table.schema.metadata or {}).get(_IMAGES, b"0"))
