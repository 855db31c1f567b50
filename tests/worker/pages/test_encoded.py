"""The pages of reconstructions and of interpolations."""

from __future__ import annotations

import numpy as np
import pytest

from worker.pages.encoded import (
    STRIP,
    ClassError,
    Pairs,
    interpolation_sections,
    psnr,
    reconstruction_sections,
    thinned,
)

IMAGES = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
PAIRS = Pairs(IMAGES, IMAGES[::-1], [0.01, 0.25])


def test_the_peak_signal_to_noise_ratio() -> None:
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(1) == 0
    assert psnr(0) is None


def test_pairs_come_before_figures_and_the_worst_class_is_first() -> None:
    classes = [ClassError("shirt", 3, 0.01), ClassError("bag", 1, 0.25), ClassError("hat", 1, 0.0)]
    sections = reconstruction_sections(PAIRS, PAIRS, np.array([0.01, 0.01, 0.01, 0.25, 0.0]), classes, 2)
    assert [one.heading for one in sections] == [
        "Source images and reconstructions",
        "Largest errors",
        "Errors",
        "Classes",
    ]
    assert "5 images" in sections[0].text and "2 more could not be read" in sections[0].text
    (table,) = sections[-1].tables
    assert [row[0] for row in table.rows] == ["bag", "shirt", "hat"]
    assert table.rows[-1][-1] is None, "PSNR is undefined for an error of 0"


def test_errors_are_shown_without_source_images() -> None:
    sections = reconstruction_sections(None, None, np.array([0.0]), [ClassError("hat", 1, 0.0)], 0)
    assert "source images can no longer be read" in sections[0].text and not sections[0].pictures


def test_a_long_interpolation_is_thinned_evenly() -> None:
    assert thinned(3) == [0, 1, 2]
    found = thinned(1000)
    assert (len(found), found[0], found[-1]) == (STRIP, 0, 999)
    assert len(set(found)) == STRIP
    (section,) = interpolation_sections(IMAGES, np.repeat(IMAGES, 35, axis=0), 1000, ("a.png", "b.png"), "hat")
    assert "70 of them are shown" in section.text and "the latents of a.png and b.png" in section.text


def test_an_interpolation_without_its_source_images() -> None:
    (section,) = interpolation_sections(None, IMAGES, 2, ("a.png", "b.png"), "hat")
    assert "can no longer be read" in section.pictures[0].caption
