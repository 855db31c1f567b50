"""Labelled images as arrays: what is refused, what is held out, and that nothing is copied before it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contract.errors import InvalidSource
from tests.worker.training.toys import CLASSES, images, sequences
from worker.datasets.dataset import Dataset, Rows, split

LABELS = np.array([0, 1, 2, 0])


def pixels(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Dataset(pixels(0, 8, 8, 1), LABELS[:0], CLASSES), "holds no images"),
        (lambda: Dataset(pixels(4, 8, 8), LABELS, CLASSES), r"is uint8 \[4, 8, 8\]"),
        (lambda: Dataset(np.zeros((4, 8, 8, 1), np.float32), LABELS, CLASSES), "of uint8 are needed"),
        (lambda: Dataset(pixels(3, 8, 8, 1), LABELS, CLASSES), "has 3 images and 4 labels"),
        (lambda: Dataset(pixels(4, 8, 9, 1), LABELS, CLASSES), "8 × 9 pixels and 1 channels"),
        (lambda: Dataset(pixels(4, 8, 8, 2), LABELS, CLASSES), "8 × 8 pixels and 2 channels"),
        (lambda: Dataset(pixels(4, 8, 8, 1), LABELS, CLASSES[:2]), "labels go from 0 to 2, and there are 2 classes"),
        (lambda: Dataset(pixels(4, 8, 8, 1), LABELS - 1, CLASSES), "labels go from -1 to 1"),
        (lambda: Dataset(pixels(4, 8, 8, 1), LABELS, CLASSES, LABELS + 1), r"sequences \[n, t, size, size, c\]"),
        (lambda: Dataset(pixels(4, 3, 8, 8, 1), LABELS, CLASSES, LABELS[:3] + 1), "4 sequences and 3 lengths"),
        (lambda: Dataset(pixels(4, 3, 8, 8, 1), LABELS, CLASSES, LABELS), "0 to 2 frames long"),
        (lambda: Dataset(pixels(4, 2, 8, 8, 1), LABELS, CLASSES, LABELS + 1), "1 to 3 frames long"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(make: object, said: str) -> None:
    with pytest.raises(InvalidSource, match=said):
        make()  # type: ignore[operator]


def test_the_data_knows_its_shape() -> None:
    data = sequences(n=10, size=8)
    assert (len(data), data.size, data.channels) == (10, 8, 1)


def test_the_fingerprint_is_of_everything_and_of_nothing_else() -> None:
    # Given data, the same from another array, and one change each to pixels, labels, classes and lengths,
    data = sequences(n=9)
    lengths = data.lengths
    assert isinstance(data.images, np.ndarray) and lengths is not None
    other = data.images.copy()
    other[4, 0, 0, 0] ^= 1
    changed = [
        Dataset(other, data.labels, data.classes, lengths),
        Dataset(data.images, data.labels[::-1], data.classes, lengths),
        Dataset(data.images, data.labels, ("up", "down", "still"), lengths),
        Dataset(data.images, data.labels, data.classes, lengths[::-1]),
    ]

    # I expect the same fingerprint for the same data, also where it is read by rows, and another for each change.
    assert data.rows(np.arange(9)).fingerprint == data.fingerprint == sequences(n=9).fingerprint
    assert len({data.fingerprint, *(one.fingerprint for one in changed)}) == 5


def test_each_class_is_on_both_sides() -> None:
    # Given classes of 2, 3 and 200 images,
    labels = np.repeat([0, 1, 2], [2, 3, 200])
    data = Dataset(pixels(205, 4, 4, 1), labels, CLASSES)

    # if I hold out a tenth, I expect a tenth of the large one, and one of each small one;
    train, held_out = split(data, 0.1, seed=3)
    assert np.bincount(held_out.labels).tolist() == [1, 1, 20]
    assert np.bincount(train.labels).tolist() == [1, 2, 180]

    # if I hold out nearly all, I expect one of each to be left.
    train, _ = split(data, 0.999, seed=3)
    assert np.bincount(train.labels).tolist() == [1, 1, 1]


def test_the_parts_are_the_whole_and_the_same_each_time() -> None:
    data = images(n=60)
    number = {row.tobytes(): one for one, row in enumerate(data.images[:])}

    def members(seed: int) -> tuple[list[int], list[int]]:
        train, held_out = split(data, 0.2, seed)
        for part in (train, held_out):
            found = [number[row.tobytes()] for row in part.images[:]]
            assert part.labels.tolist() == data.labels[found].tolist(), "labels stay with their images"
        one, other = ([number[row.tobytes()] for row in part.images[:]] for part in (train, held_out))
        return one, other

    train, held_out = members(seed=1)
    assert sorted(train + held_out) == list(range(60))
    assert members(seed=1) == (train, held_out)
    assert members(seed=2) != (train, held_out)


def test_the_same_images_are_held_out_after_an_update() -> None:
    # Written down, because a training may go on with another version of NumPy.
    _, held_out = split(
        Dataset(np.arange(24, dtype=np.uint8).reshape(24, 1, 1, 1), np.arange(24) % 3, CLASSES), 0.25, 5
    )
    assert held_out.images[:].flatten().tolist() == [3, 4, 7, 8, 21, 23]


@pytest.mark.parametrize(("count", "said"), [(1, "'top' has one image"), (0, "'top' has no image")])
def test_a_class_that_cannot_be_split_is_named(count: int, said: str) -> None:
    labels = np.repeat([0, 1, 2], [4, 4, count])
    with pytest.raises(InvalidSource, match=said):
        split(Dataset(pixels(len(labels), 4, 4, 1), labels, CLASSES), 0.1, seed=0)


def test_a_file_that_is_mapped_is_read_by_rows(tmp_path: Path) -> None:
    # Given data in a file,
    whole = images(n=30)
    np.save(tmp_path / "images.npy", whole.images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    data = Dataset(mapped, whole.labels, whole.classes)

    # if I split it twice, I expect rows of that very file,
    inner, _ = split(split(data, 0.2, seed=0)[0], 0.2, seed=0)
    assert isinstance(inner.images, Rows)
    assert inner.images.images is mapped

    # which read like an array.
    read = np.asarray(inner.images)
    assert read.shape == inner.images.shape == (len(inner), 16, 16, 1)
    assert (inner.images[3] == read[3]).all()
    assert (inner.images[np.array([4, 1])] == read[[4, 1]]).all()
    assert (inner.images[2:5] == read[2:5]).all()
    assert np.asarray(inner.images, np.float32).dtype == np.float32
