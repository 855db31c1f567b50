"""The page of a generator's evaluation: distances, samples, copies of training images, what a classifier learns."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image

from tests.worker.pages.test_page import read
from worker.metrics.distances import measure
from worker.metrics.neighbours import closest, memorisation, nearest
from worker.pages.generator import Evaluation, learning, sections


def test_the_page_of_a_generator_has_distances_samples_and_neighbours() -> None:
    # Given features and images of a generator that copies a third of its images,
    generator = torch.Generator().manual_seed(0)
    training, held_out, fresh = (torch.randn(n, 4, generator=generator) for n in (300, 200, 100))
    made = torch.cat([fresh, training[:50]])
    near, rows = nearest(made, training)
    others, _ = nearest(held_out, training)
    copies = memorisation(near, others)
    images = np.zeros((8, 4, 4, 1), np.uint8)
    pairs = [one.distance for one in closest(near, rows, 8)]
    grid = io.BytesIO()
    Image.new("L", (40, 20)).save(grid, "PNG")
    # if I make its page,
    reader = read(
        *sections(
            Evaluation(
                features="the network <n@1>",
                distances=measure(held_out, made),
                memorisation=copies,
                samples=grid.getvalue(),
                nearest=(images, images, pairs),
                generated=near,
                held_out=others,
            )
        )
    )
    # I expect the figures, the samples, the pairs, and a histogram of the distances.
    figures = {row[0]: row[2] for row in reader.tables[0][1:]}
    assert list(figures)[:6] == ["Fréchet distance", "kernel distance", "precision", "recall", "density", "coverage"]
    assert (figures["real images"], figures["generated images"]) == ("200", "150")
    assert "features of the network <n@1>" in reader.text
    assert f"{100 * copies.share:.2f}\xa0% of the generated images" in reader.text and copies.share > 0.3
    given = [base64.b64decode(source[22:]) for source in reader.sources]
    assert given[0] == grid.getvalue() and len(given) == 3


def test_what_a_classifier_learns_is_shown_in_percentage_points() -> None:
    reader = read(learning("classic", 3, 600, 100, generated=0.75, real=0.8))
    assert "differs by 5.00 percentage points" in reader.text
    assert reader.tables[0][1:] == [
        ["generated images", "600", "75.00\xa0%"],
        ["real images", "600", "80.00\xa0%"],
    ]
