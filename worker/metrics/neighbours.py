"""Measure whether a generator copies its training images: nearest neighbours of generated and of held-out images.

It knows only features, not the network that they come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from contract.errors import InvalidInput
from contract.records import Record

_CELLS = 2**22  # distances in memory at once, 16 MiB


class Memorisation(Record):
    """How near generated images are to the training data, compared with real images that were held out of it.

    `share` is the share of generated images that are nearer to a training image than `threshold`, the `quantile` of
    the same distance over held-out images. If generated images are as new as held-out ones, `share` is about
    `quantile`; a larger share means copies. Meehan, Chaudhuri & Dasgupta 2020 (arXiv:2004.05675) also compare with
    held-out images, but rank all distances. A share below a quantile counts images that one can look at.
    """

    share: float
    threshold: float
    quantile: float
    generated: int
    held_out: int
    generated_median: float
    held_out_median: float


class Pair(Record):
    """The rows of a generated image and its nearest training image, and the distance between their features."""

    generated: int
    training: int
    distance: float


def blocks(rows: Tensor, columns: Tensor, cells: int = _CELLS) -> Iterator[tuple[slice, Tensor]]:
    """Yield the Euclidean distances from features [n, d] to features [m, d]: slices of rows with float32 [·, m].

    A block has at most `cells` distances, or one row; the next block overwrites it. Both sides are centred on the mean
    of the columns first, because the distances come from a matrix product, whose error grows with the norms.
    """
    centre = columns.double().mean(dim=0).float()
    rows, columns = rows.float() - centre, columns.float() - centre
    row_norms, column_norms = rows.square().sum(dim=1, keepdim=True), columns.square().sum(dim=1)
    step = max(1, min(len(rows), cells // len(columns)))
    # One buffer for all blocks: glibc did not reuse the memory of the last block, and 10,000 × 60,000 took 2.5 GB.
    # torch.cdist has no `out`, and copies all columns for each block.
    buffer = rows.new_empty((step, len(columns)))
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        squares = buffer[: part.stop - start]
        torch.addmm(column_norms, rows[part], columns.T, alpha=-2, out=squares)
        yield part, squares.add_(row_norms[part]).clamp_min_(0).sqrt_()


def nearest(queries: Tensor, training: Tensor, cells: int = _CELLS) -> tuple[Tensor, Tensor]:
    """Return for each query [n, d] the distance float32 [n] to the nearest training row [m, d], and its row int64 [n].

    The distance is recomputed from the pair alone, so that a copy has exactly 0.
    """
    found = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    for part, distances in blocks(queries, training, cells):
        found[part] = distances.argmin(dim=1)
    pairs = zip(queries.split(4096), found.split(4096), strict=True)
    return torch.cat([(ours.float() - training[at].float()).norm(dim=1) for ours, at in pairs]), found


def k_nearest(features: Tensor, k: int, cells: int = _CELLS) -> tuple[Tensor, Tensor]:
    """Return for each row of features [n, d] its `k` nearest other rows, nearest first: distances float32 [n, k], rows
    int64 [n, k].

    `k` must be less than n.
    """
    n = len(features)
    distances, rows = torch.empty((n, k)), torch.empty((n, k), dtype=torch.int64)
    for part, block in blocks(features, features, cells):
        own = torch.arange(part.start, part.stop)
        block[own - part.start, own] = math.inf
        distances[part], rows[part] = block.topk(k, largest=False)
    return distances, rows


def memorisation(generated: Tensor, held_out: Tensor, quantile: float = 0.01) -> Memorisation:
    """Compare the distances from `nearest` of generated images [n] with those of held-out images [m].

    Raises InvalidInput if there are too few held-out images for the quantile: m · `quantile` < 1.
    """
    if len(generated) == 0:
        raise InvalidInput("There are no generated images to search for copies; generate some.")
    if len(held_out) * quantile < 1:
        least = math.ceil(1 / quantile)
        raise InvalidInput(
            f"{len(held_out)} held-out images are too few for the {quantile:g} quantile; give at least {least}."
        )
    ours, real = generated.double(), held_out.double()
    # An order statistic without interpolation: at most this share of the held-out distances is below it.
    threshold = real.sort().values[int(len(real) * quantile)]
    return Memorisation(
        share=float((ours < threshold).double().mean()),
        threshold=float(threshold),
        quantile=quantile,
        generated=len(ours),
        held_out=len(real),
        generated_median=float(ours.median()),
        held_out_median=float(real.median()),
    )


def closest(distances: Tensor, rows: Tensor, k: int) -> tuple[Pair, ...]:
    """Return the `k` generated images nearest to a training image, nearest first, from the result of `nearest`."""
    order = distances.sort(stable=True).indices[:k].tolist()
    return tuple(Pair(generated=at, training=int(rows[at]), distance=float(distances[at])) for at in order)
