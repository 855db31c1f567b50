"""Compares the images of a classify job with each other by their embeddings: how the nearest ones are labelled.

    rows with embeddings → nearest images → label against label, clusters → one table

It knows neither the model nor the images: nothing runs again.
"""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from contract.backend.objects import ObjectStore
from contract.data.label_rows import OK
from contract.jobs import results
from contract.jobs.ends import read_end
from contract.jobs.lifecycle import read_classify
from contract.jobs.reviews import neighbours
from contract.jobs.reviews.neighbours import MOST_IMAGES, NEIGHBOURS
from worker.metrics.neighbours import k_nearest

log = logging.getLogger(__name__)

_COLUMNS = ["key", "uri", "label", "score", "embedding"]


def write(store: ObjectStore, job: str) -> None:
    """Write the table of a job that has ended with embeddings, unless there is one of this end; else do nothing.

    Raises UnknownJob, JobConflict for a job of another kind, and ObjectDamaged if rows differ from what was committed.
    """
    spec, end = read_classify(store, job), read_end(store, job)
    if not spec.embed or end is None or end.finished_at is None:
        return
    if neighbours.read(store, job, end=end.finished_at) is not None:
        return
    table, images = _gather(store, job)
    if table.num_rows < 2:
        log.info("%s has fewer than two images with embeddings, so none has neighbours", job)
    # A job that was resumed meanwhile has another end, so nobody takes this table for that one's.
    neighbours.write(store, job, compare(table), end=end.finished_at, images=images)


def compare(table: pa.Table) -> pa.Table:
    """Return the columns of `contract.jobs.reviews.neighbours` for rows with embeddings."""
    n = table.num_rows
    k = min(NEIGHBOURS, n - 1)
    labels = table["label"].to_pylist()
    if k < 1:
        return _with(table, [None] * n, np.zeros(n), np.ones(n), [None] * n)
    features = _unit(table["embedding"])
    distances, rows = k_nearest(torch.from_numpy(features), k)
    near = rows.numpy()
    names, numbers = np.unique(np.array(labels, object), return_inverse=True)
    other = numbers[near] != numbers[:, None]
    against = [_most(names[numbers[near[at]][other[at]]]) for at in range(n)]
    # For vectors of length 1, the cosine distance is half the squared distance.
    cosine = distances[:, 0].square().numpy() / 2
    return _with(table, against, other.mean(axis=1), cosine, clusters(near, numbers))


def clusters(near: NDArray[np.int64], labels: NDArray[np.int64]) -> list[int | None]:
    """Return the cluster of each image, numbered from the largest; None for an image alone.

    A cluster is a connected component of the graph of mutual nearest neighbours, without edges between labels (M. R.
    Brito et al., "Connectivity of the mutual k-nearest-neighbor graph in clustering and outlier detection", Statistics
    & Probability Letters 35, 1997). `near` is int64 [n, k], `labels` int64 [n].
    """
    n, k = near.shape
    own = np.repeat(np.arange(n), k)
    edges = own * n + near.ravel()
    mutual = np.isin(edges, near.ravel() * n + own) & (labels[own] == labels[near.ravel()])
    parents = list(range(n))

    def root(one: int) -> int:
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        return one

    for a, b in zip(own[mutual].tolist(), near.ravel()[mutual].tolist(), strict=True):
        parents[max(root(a), root(b))] = min(root(a), root(b))
    roots = [root(one) for one in range(n)]
    sizes = Counter(roots)
    numbers = {one: at for at, one in enumerate(sorted(sizes, key=lambda one: (-sizes[one], one)))}
    return [numbers[one] if sizes[one] > 1 else None for one in roots]


def _gather(store: ObjectStore, job: str) -> tuple[pa.Table, int]:
    """Return the first rows with embeddings, each with its shard, and how many labelled images the job has."""
    found: list[pa.Table] = []
    images = kept = 0
    for commit, table in results.tables(store, job):
        fine = table.filter(pc.equal(table["status"], OK)).select(_COLUMNS)
        images += fine.num_rows
        fine = fine.filter(pc.is_valid(fine["embedding"])).slice(0, MOST_IMAGES - kept)
        if fine.num_rows:
            kept += fine.num_rows
            found.append(fine.append_column("shard", pa.array([commit.shard] * fine.num_rows, pa.int32())))
    if not found:
        return neighbours.SCHEMA.empty_table(), images
    return pa.concat_tables(found), images


def _unit(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Return embeddings as float32 [n, d], each of length 1."""
    flat = pc.list_flatten(column).to_numpy().astype(np.float32)
    features = flat.reshape(len(column), -1)
    unit: NDArray[np.float32] = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return unit


def _most(names: NDArray[np.object_]) -> str | None:
    """Return the most frequent of these labels, of equals the first; None of none."""
    return Counter(names.tolist()).most_common(1)[0][0] if len(names) else None


def _with(
    table: pa.Table,
    against: list[str | None],
    share: NDArray[np.float64],
    distance: NDArray[np.float64],
    cluster: list[int | None] | list[None],
) -> pa.Table:
    made = {
        "against": pa.array(against, pa.string()),
        "share": pa.array(share, pa.float32()),
        "distance": pa.array(distance, pa.float32()),
        "cluster": pa.array(cluster, pa.int32()),
    }
    columns = {name: table[name] for name in ("key", "uri", "shard", "label", "score")}
    return pa.table({**columns, **made}).cast(neighbours.SCHEMA)
