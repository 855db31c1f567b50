"""Every plot takes few and many classes and any name, and shows what it is given."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from worker.metrics.classification import Bin
from worker.pictures import plots

STRANGE = ("猫 and $x^{2$", "a\nb\tc", "\x07", "🙂", "x" * 300, "_hidden", "\\alpha {", "Zürich")


def pixels(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def bins(*full: tuple[int, float, float]) -> list[Bin]:
    """Return ten bins, some of them with (number, score, accuracy)."""
    found = {at: (score, accuracy) for at, score, accuracy in full}
    return [
        Bin(
            low=at / 10,
            high=(at + 1) / 10,
            examples=5 if at in found else 0,
            score=found[at][0] if at in found else None,
            accuracy=found[at][1] if at in found else None,
        )
        for at in range(10)
    ]


def draw(n: int, names: tuple[str, ...] = ()) -> dict[str, Callable[[], bytes]]:
    names = names or tuple(f"class {c}" for c in range(n))
    shares: dict[str, float | None] = {name: at / n for at, name in enumerate(names)}
    shares[names[0]] = None
    return {
        "curves": lambda: plots.curves(names[0], names[-1], {name: [1.0, 0.5] for name in names[:4]}, best=2),
        "reliability": lambda: plots.reliability(bins((6, 0.65, 0.5), (9, 1.0, 1.0)), 0.05),
        "histogram": lambda: plots.histogram(
            names[0], names[-1], {names[0]: np.arange(50.0), names[-1]: np.ones(3)}, mark=(names[0], 7.5)
        ),
        "bars": lambda: plots.bars(names[0], names[-1], shares),
        "counts": lambda: plots.counts(
            names[0], names[-1], {name: at for at, name in enumerate(names[:30])}, (names[-1], 9)
        ),
    }


@pytest.mark.parametrize("kind", list(draw(2)))
@pytest.mark.parametrize("n", [2, 100])
def test_a_plot_is_twice_800_pixels_wide_and_not_too_high(kind: str, n: int) -> None:
    height, width, _ = pixels(draw(n)[kind]()).shape
    assert width == 1600
    assert 400 <= height <= 2200


@pytest.mark.parametrize("kind", ["curves", "histogram", "bars", "counts"])
def test_any_name_is_drawn_as_it_is(kind: str) -> None:
    """No name is read as a formula, or causes a warning for a missing glyph: warnings are errors here."""
    assert pixels(draw(len(STRANGE), STRANGE)[kind]()).shape[1] == 1600


def test_equal_figures_are_equal_bytes() -> None:
    png = draw(5)["bars"]()
    assert png == draw(5)["bars"]()
    assert b"Software" not in png, "the picture must not depend on the version of Matplotlib"


def test_a_long_name_keeps_both_ends() -> None:
    assert plots.shorten("a rather long name of a class, number 7", 20) == "a rather l… number 7"
    assert len(plots.shorten("x" * 300, 18)) == 18
    assert plots.shorten("short", 18) == "short"
    assert plots.shorten("two\nlines 猫", 18) == "two lines □"


@pytest.mark.parametrize(("n", "labels"), [(2, 2), (40, 40), (41, 21), (100, 34), (1000, 40)])
def test_labels_are_thinned_out_evenly_above_40(n: int, labels: int) -> None:
    at, names = plots.sparse_ticks([str(c) for c in range(n)], 10)
    assert len(at) == len(names) == labels
    assert names == [str(c) for c in at]
    assert len(set(np.diff(at).tolist())) <= 1


def test_values_below_the_mark_are_drawn_left_of_it() -> None:
    def blue(values: NDArray[np.float64]) -> float:
        image = pixels(plots.histogram("t", "x", {"one": values}, span=(0, 1))).astype(int)
        return float(np.nonzero(image[:, :, 2] - image[:, :, 0] > 25)[1].mean())

    # The key of the plot is blue too, and stays in its corner.
    assert blue(np.full(100, 0.1)) < blue(np.full(100, 0.6))


def test_groups_of_different_size_and_an_empty_one_share_a_plot() -> None:
    both = plots.histogram("t", "x", {"many": np.linspace(0, 1, 10_000), "none": np.zeros(0)}, span=(0, 1))
    assert pixels(both).shape[1] == 1600
    assert pixels(plots.histogram("t", "x", {"none": np.zeros(0)})).shape[1] == 1600


def test_values_that_are_counted_already_are_drawn_alike() -> None:
    values = np.random.default_rng(0).random(1000)
    counts, edges = np.histogram(values, plots.BINS, (0, 1))
    assert plots.binned("t", "x", {"a": counts}, edges) == plots.histogram("t", "x", {"a": values}, span=(0, 1))


def test_the_other_classes_have_a_number_and_no_bar() -> None:
    def blue(png: bytes) -> int:
        image = pixels(png).astype(int)
        return int((image[:, :, 2] - image[:, :, 0] > 100).sum())

    few = {"a": 5, "b": 4}
    with_bar, without = plots.counts("t", "x", {**few, "others": 5}), plots.counts("t", "x", few, ("others", 5))
    assert blue(without) == pytest.approx(blue(with_bar) * 9 / 14, rel=0.02)


def test_one_epoch_and_a_thousand_are_drawn() -> None:
    for n in (1, 1000):
        assert pixels(plots.curves("Loss", "loss (nats)", {"training": [1.0 / e for e in range(1, n + 1)]})).any()


def test_threads_draw_at_the_same_time() -> None:
    """No plot uses pyplot's global state, so threads cannot disturb each other."""
    expected = draw(6)["bars"]()
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: draw(6)["bars"](), range(3))) == [expected] * 3


def test_pyplot_is_not_loaded() -> None:
    code = "import sys, worker.pictures.plots; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
