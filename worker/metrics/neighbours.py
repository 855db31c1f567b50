"""Does a generator copy its training images? Distances to the nearest of them, held against those of real images.

It knows features only, not the network they come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from contract.errors import InvalidInput
from contract.records import Record

_CELLS = 2**22  # distances held at once, 16 MiB


class Memorisation(Record):
    """How near generated images lie to the training data, next to real images that were held out of it.

    `share` is the part of the generated images that are nearer to their nearest training image than
    `threshold`, the `quantile` of the same distance over held-out images. A generator as new as real
    images has a `share` of about `quantile`; a larger one means copies. The comparison with held-out
    images is that of Meehan, Chaudhuri & Dasgupta 2020 (arXiv:2004.05675), who rank all distances; the
    share below a quantile is ours, because it counts images and its members can be looked at.
    """

    share: float
    threshold: float
    quantile: float
    generated: int
    held_out: int
    generated_median: float
    held_out_median: float


class Pair(Record):
    """A generated image and its nearest training image, by row, with the distance of their features."""

    generated: int
    training: int
    distance: float


def blocks(rows: Tensor, columns: Tensor, cells: int = _CELLS) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances of features [n, d] to features [m, d], as slices of the rows with float32 [·, m].

    A block has at most `cells` distances, or one row; the next one overwrites it. Both sides are moved
    to the mean of the columns first: the distances come from a matrix product, whose error grows with
    the norms.
    """
    centre = columns.double().mean(dim=0).float()
    rows, columns = rows.float() - centre, columns.float() - centre
    row_norms, column_norms = rows.square().sum(dim=1, keepdim=True), columns.square().sum(dim=1)
    step = max(1, min(len(rows), cells // len(columns)))
    # One buffer for all: glibc does not find the last block again for the next, and 10,000 × 60,000 took 2.5 GB.
    # torch.cdist has no `out`, and copies all columns for each block.
    buffer = rows.new_empty((step, len(columns)))
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        squares = buffer[: part.stop - start]
        torch.addmm(column_norms, rows[part], columns.T, alpha=-2, out=squares)
        yield part, squares.add_(row_norms[part]).clamp_min_(0).sqrt_()


def nearest(queries: Tensor, training: Tensor, cells: int = _CELLS) -> tuple[Tensor, Tensor]:
    """The distance float32 [n] of each query [n, d] to its nearest training feature [m, d], and its row, int64 [n].

    The distance is computed anew from the pair alone, so that a copy has exactly 0.
    """
    found = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    for part, distances in blocks(queries, training, cells):
        found[part] = distances.argmin(dim=1)
    pairs = zip(queries.split(4096), found.split(4096), strict=True)
    return torch.cat([(ours.float() - training[at].float()).norm(dim=1) for ours, at in pairs]), found


def memorisation(generated: Tensor, held_out: Tensor, quantile: float = 0.01) -> Memorisation:
    """The record of two sets of distances that `nearest` gave, [n] of generated and [m] of held-out images.

    Raises InvalidInput when held-out images are too few to have that quantile: m · `quantile` < 1.
    """
    if len(generated) == 0:
        raise InvalidInput("There are no generated images to look for copies among; generate some.")
    if len(held_out) * quantile < 1:
        least = math.ceil(1 / quantile)
        raise InvalidInput(f"{len(held_out)} held-out images have no {quantile:g} quantile; give at least {least}.")
    ours, real = generated.double(), held_out.double()
    # An order statistic, not interpolated: at most that share of the held-out distances lies below it.
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
    """The `k` generated images nearest to training images, nearest first, from what `nearest` gave."""
    order = distances.sort(stable=True).indices[:k].tolist()
    return tuple(Pair(generated=at, training=int(rows[at]), distance=float(distances[at])) for at in order)
