"""The data set with which real images are compared with filtered ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from contract.errors import InvalidSource
from worker.bench.filtered import first_of_each_class
from worker.datasets.idx import read_pair
from worker.sources.idx import pairs


def test_the_first_images_of_each_class_are_taken(tmp_path: Path) -> None:
    # Given ten images of two classes in turn, the pixels of each its number,
    data = tmp_path / "data"
    data.mkdir()
    pixels = np.repeat(np.arange(10, dtype=np.uint8), 4)
    shape = b"".join(number.to_bytes(4, "big") for number in (10, 2, 2))
    (data / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x03" + shape + pixels.tobytes()))
    (data / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + (10).to_bytes(4, "big") + bytes([0, 1] * 5))

    # if I take two of each class, I expect the first four images, as IDX files.
    target = first_of_each_class(data, tmp_path / "real", 2)
    (pair,) = pairs([str(path) for path in target.iterdir()]).values()
    with open(pair.images, "rb") as images, open(pair.labels, "rb") as labels:
        found, numbers = read_pair(images, labels, pair)
    assert found[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert numbers.tolist() == [0, 1, 0, 1]


def test_a_folder_without_training_images_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match="holds no train-images-idx3-ubyte"):
        first_of_each_class(tmp_path, tmp_path / "real", 2)
