"""Selects candidates of one class: the first by index that pass the gate and are not duplicates of each other.

The result depends only on features and verdicts, not on which worker made which candidate when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256


@dataclass
class Selection:
    """The verdict on each candidate of one class, in the order of their indices."""

    wanted: int
    dedup: float | None
    """Cosine distance below which a candidate duplicates an accepted one; None to accept duplicates."""
    reasons: list[str | None] = field(default_factory=list)
    """Why each candidate was rejected, or None if it was accepted."""
    distances: list[float | None] = field(default_factory=list)
    """Cosine distance from each candidate to the nearest accepted one before it, or None if it was not measured."""
    accepted: int = 0
    earlier: NDArray[np.float32] | None = None
    """Features of images that no candidate may duplicate, float32 [n, d] with rows of length 1."""
    _kept: NDArray[np.float32] | None = None

    def add(self, reasons: Sequence[str | None], features: NDArray[np.float32] | None) -> None:
        """Add the next candidates.

        `reasons` says why the gate rejects each one, None if it passes; `features`, float32 [passing, d], are those of
        the passing candidates, None if there are none.
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
        kept = self._all(unit.shape[1])
        close = (unit @ kept.T).max(axis=1, initial=-1)
        new: list[int] = []  # accepted in this block, so not yet in `kept`
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

    def features(self, width: int = 0) -> NDArray[np.float32]:
        """Return the features of the accepted candidates, float32 [accepted, d] with rows of length 1."""
        return self._all(width)[0 if self.earlier is None else len(self.earlier) :]

    def _all(self, width: int) -> NDArray[np.float32]:
        if self._kept is not None:
            return self._kept
        return np.empty((0, width), np.float32) if self.earlier is None else self.earlier


def normalized(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to length 1, so that the dot product of two is their cosine similarity."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (features / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit
