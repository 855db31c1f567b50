"""What the page of a job that encoded images shows: source images beside reconstructions, or a way between two images.

It knows no figures and no images but those that it is given, and none of the jobs that they come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.pages import plots
from worker.pages.page import Picture, Section, Table
from worker.pictures import contact_sheet

PAIRS, WORST = 20, 12
STRIP = 70
"""Images of a way that are shown, at most: six rows with the two source images."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """SourceImages uint8 [n, h, w, c], c 1 or 3, reconstructions of the same shape, and their errors."""

    source_images: NDArray[np.uint8]
    reconstructions: NDArray[np.uint8]
    errors: Sequence[float]

    def draw(self) -> bytes:
        return plots.pairs(
            self.source_images,
            self.reconstructions,
            self.errors,
            "Original, left, and its reconstruction, right",
            "MSE",
        )


@dataclass(frozen=True, slots=True)
class ClassError:
    """The mean squared error of the images of a class; pixels are 0 to 1."""

    name: str
    images: int
    mse: float


def psnr(mse: float) -> float | None:
    """The peak signal-to-noise ratio in dB of a mean squared error of pixels of 0 to 1; None of 0, where it is none."""
    return -10 * math.log10(mse) if mse > 0 else None


def reconstruction_sections(
    first: Pairs | None, worst: Pairs | None, errors: NDArray[np.floating], classes: Sequence[ClassError], left_out: int
) -> tuple[Section, ...]:
    """The sections of reconstructions whose errors are [n]; pairs are None where no original can be read any more."""
    mean = float(np.mean(errors))
    ratio = psnr(mean)
    text = f"{len(errors):,} images were encoded to the mean of their latent and decoded again: "
    text += f"mean squared error {mean:.4g}, pixels being 0 to 1" + (f", {ratio:.2f} dB." if ratio is not None else ".")
    if left_out:
        text += f" Left out, for they could not be read: {left_out:,}."
    if first is None:
        text += " None of the source images can be read any more."
    pictures = [] if first is None else [Picture(first.draw(), "The first of each class, not selected.")]
    shown = [Section("SourceImages and reconstructions", text, pictures=tuple(pictures))]
    if worst is not None:
        shown.append(Section("Largest errors", pictures=(Picture(worst.draw(), "Largest error first."),)))
    spread = plots.histogram("Errors of the reconstructions", "mean squared error of an image", {"images": errors})
    shown.append(Section("Errors", pictures=(Picture(spread, "How the error is spread over the images."),)))
    rows = tuple((one.name, one.images, one.mse, psnr(one.mse)) for one in sorted(classes, key=lambda one: -one.mse))
    caption = "The ratio is that of the mean error: -10 log10(MSE). Largest error first."
    table = Table(("class", "images", "mean squared error", "PSNR (dB)"), rows, caption=caption)
    return (*shown, Section("Classes", tables=(table,)))


def thinned(steps: int) -> list[int]:
    """Which of so many images of a way are shown: all, or evenly spread ones, the ends included."""
    if steps <= STRIP:
        return list(range(steps))
    return [round(n * (steps - 1) / (STRIP - 1)) for n in range(STRIP)]


def interpolation_sections(
    ends: NDArray[np.uint8] | None, way: NDArray[np.uint8], steps: int, labels: Sequence[str], name: str
) -> tuple[Section, ...]:
    """The section of the way between two images [2, h, w, c], None where they cannot be read; `way` [n, h, w, c]."""
    a, b = labels
    text = f"{steps:,} images of the class {name} at equal angles on the way from the latent of {a} to that of {b}, "
    text += "the ends included: spherical interpolation (White 2016, arXiv:1609.04468)."
    if len(way) < steps:
        text += f" {len(way)} of them are shown, evenly spread."
    if ends is None:
        caption = "From left to right, row by row; the source images cannot be read any more."
        return (Section("Interpolation", text, pictures=(Picture(contact_sheet.draw(way), caption),)),)
    strip = np.concatenate([ends[:1], way, ends[1:]])
    caption = "First and last the two source images; between them what the decoder makes, row by row."
    return (Section("Interpolation", text, pictures=(Picture(contact_sheet.draw(strip), caption),)),)
