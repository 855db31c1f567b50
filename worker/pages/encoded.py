"""The sections of a job that encoded images: reconstructions beside their source images, or an interpolation.

Knows no job, only the figures and images that it is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.pages.page import Picture, Section, Table
from worker.pictures import grid, plots

PAIRS, WORST = 20, 12
_SIDES = "Left a source image, right its reconstruction."
STRIP = 70
"""The most images of an interpolation that are shown: six rows with the two source images."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Source images uint8 [n, h, w, c], c 1 or 3, reconstructions of the same shape, and their mean squared errors."""

    source_images: NDArray[np.uint8]
    reconstructions: NDArray[np.uint8]
    errors: Sequence[float]

    def draw(self) -> bytes:
        return grid.pairs(self.source_images, self.reconstructions, [f"MSE {error:.3g}" for error in self.errors])


@dataclass(frozen=True, slots=True)
class ClassError:
    """The mean squared error over the images of a class, for pixels from 0 to 1."""

    name: str
    images: int
    mse: float


def psnr(mse: float) -> float | None:
    """Return the peak signal-to-noise ratio in dB for pixels from 0 to 1, or None for an error of 0."""
    return -10 * math.log10(mse) if mse > 0 else None


def reconstruction_sections(
    first: Pairs | None, worst: Pairs | None, errors: NDArray[np.floating], classes: Sequence[ClassError], left_out: int
) -> tuple[Section, ...]:
    """Return the sections for errors [n]; `first` and `worst` are None if no source image can be read any more."""
    mean = float(np.mean(errors))
    ratio = psnr(mean)
    text = f"{len(errors):,} images were encoded to the mean of their latent distribution and decoded again. "
    text += f"Mean squared error: {mean:.4g} for pixels from 0 to 1"
    text += f" (PSNR {ratio:.2f} dB)." if ratio is not None else "."
    if left_out:
        text += f" {left_out:,} more could not be read; `imagemill errors` lists them."
    if first is None:
        text += " The source images can no longer be read, so no pairs are shown."
    pictures = [] if first is None else [Picture(first.draw(), f"{_SIDES} The first of each class, not selected.")]
    shown = [Section("Source images and reconstructions", text, pictures=tuple(pictures))]
    if worst is not None:
        shown.append(Section("Largest errors", pictures=(Picture(worst.draw(), f"{_SIDES} Largest error first."),)))
    spread = plots.histogram("", "mean squared error of an image", {"images": errors})
    shown.append(Section("Errors", pictures=(Picture(spread, "Share of the images at each error."),)))
    rows = tuple((one.name, one.images, one.mse, psnr(one.mse)) for one in sorted(classes, key=lambda one: -one.mse))
    caption = "Largest error first. PSNR is −10 log₁₀ of the mean squared error."
    table = Table(("class", "images", "mean squared error", "PSNR (dB)"), rows, caption=caption)
    return (*shown, Section("Classes", tables=(table,)))


def thinned(steps: int) -> list[int]:
    """Return the steps of an interpolation to show: all, or `STRIP` evenly spread ones that include both ends."""
    if steps <= STRIP:
        return list(range(steps))
    return [round(n * (steps - 1) / (STRIP - 1)) for n in range(STRIP)]


def interpolation_sections(
    ends: NDArray[np.uint8] | None, way: NDArray[np.uint8], steps: int, labels: Sequence[str], name: str
) -> tuple[Section, ...]:
    """Return the section of the images `way` [n, h, w, c] between the source images `ends` [2, h, w, c].

    `ends` is None if the source images can no longer be read. `steps` is the number of images before thinning, `labels`
    are the names of the source images, and `name` is their class.
    """
    a, b = labels
    text = f"{steps:,} images of the class {name}, decoded at equal angles between the latents of {a} and {b}, both "
    text += "ends included: spherical interpolation (White 2016, arXiv:1609.04468)."
    if len(way) < steps:
        text += f" {len(way)} of them are shown, evenly spread."
    if ends is None:
        caption = "From left to right, row by row. The source images can no longer be read."
        return (Section("Interpolation", text, pictures=(Picture(grid.contact_sheet(way), caption),)),)
    strip = np.concatenate([ends[:1], way, ends[1:]])
    caption = "The first and the last image are the source images; between them are the decoded ones, row by row."
    return (Section("Interpolation", text, pictures=(Picture(grid.contact_sheet(strip), caption),)),)
