"""Which candidates of a class are accepted: the first that pass, by index, and are no duplicates of each other.

Pure: it depends on features and tests alone, not on who made which candidate when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256


@dataclass
class Selection:
    """What became of the candidates of one class, in the order of their indices."""

    wanted: int
    dedup: float | None
    """A candidate that is nearer than this to an accepted one is a duplicate; None: there are none."""
    reasons: list[str | None] = field(default_factory=list)
    """Why each was rejected; None: accepted."""
    distances: list[float | None] = field(default_factory=list)
    """Of each the cosine distance to the nearest accepted one before it; None where it was not measured."""
    accepted: int = 0
    _kept: NDArray[np.float32] | None = None

    def add(self, reasons: Sequence[str | None], features: NDArray[np.float32] | None) -> None:
        """The next candidates: why the gate rejects each, None where it does not, and features [passing, d] of those.

        None stands for the features where none passes.
        """
        passing = [place for place, reason in enumerate(reasons) if reason is None]
        verdicts: list[str | None] = list(reasons)
        distances: list[float | None] = [None] * len(reasons)
        if features is not None:
            unit = normalized(features)
            for start in range(0, len(passing), _BLOCK):
                block = slice(start, start + _BLOCK)
                self._choose(passing[block], unit[block], verdicts, distances)
        self.reasons += verdicts
        self.distances += distances

    def _choose(
        self,
        places: Sequence[int],
        unit: NDArray[np.float32],
        verdicts: list[str | None],
        distances: list[float | None],
    ) -> None:
        kept = np.empty((0, unit.shape[1]), np.float32) if self._kept is None else self._kept
        close = (unit @ kept.T).max(axis=1, initial=-1)
        new: list[int] = []  # of this block, which the product did not see
        for n, place in enumerate(places):
            if self.accepted == self.wanted:
                verdicts[place] = "surplus"
                continue
            if self.dedup is not None and (len(kept) or new):
                distance = 1 - max(float(close[n]), float((unit[new] @ unit[n]).max(initial=-1)))
                distances[place] = distance
                if distance < self.dedup:
                    verdicts[place] = "duplicate"
                    continue
            self.accepted += 1
            new.append(n)
        self._kept = np.concatenate([kept, unit[new]])


def normalized(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1, so that a product of two is the cosine of their angle."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (features / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit
