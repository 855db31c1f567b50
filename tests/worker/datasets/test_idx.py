"""IDX files: pairs of them are found, read, and refused with a sentence that names the file."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pytest

from contract.errors import InvalidSource
from worker.datasets.idx import read_pair
from worker.sources.idx import HEAD_BYTES, Pair, count, pairs

PAIR = Pair("a-images", "a-labels")
PIXELS = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([7, 0, 255], np.uint8)


def packed(array: np.ndarray) -> bytes:
    shape = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes((0, 0, 8, array.ndim)) + shape + array.tobytes()


def read(images: bytes, labels: bytes) -> tuple[np.ndarray, np.ndarray]:
    return read_pair(io.BytesIO(images), io.BytesIO(labels), PAIR)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_images_and_labels_are_read(pack: object) -> None:
    images, labels = read(pack(packed(PIXELS)), pack(packed(LABELS)))  # type: ignore[operator]
    assert images.dtype == np.uint8 and (images == PIXELS[..., None]).all()
    assert labels.dtype == np.int64 and labels.tolist() == [7, 0, 255]


def test_more_than_a_piece_is_read() -> None:
    large = np.random.default_rng(0).integers(0, 256, (30, 256, 256), np.uint8)
    images, _ = read(gzip.compress(packed(large), 1), packed(np.zeros(30, np.uint8)))
    assert (images[..., 0] == large).all()


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (packed(LABELS), packed(LABELS), "a-images begins with 00000801, but IDX images begin with 00000803"),
        (packed(PIXELS), packed(PIXELS), "a-labels begins with 00000803, but IDX labels begin with 00000801"),
        (b"", packed(LABELS), "a-images begins with nothing"),
        (b"\x89PNG\r\n", packed(LABELS), "a-images begins with 89504e47"),
        (packed(PIXELS)[:9], packed(LABELS), "a-images is truncated"),
        (packed(PIXELS)[:-1], packed(LABELS), "a-images is truncated: 59 of 60 bytes"),
        (packed(PIXELS) + b"x", packed(LABELS), "a-images goes on after the 60 bytes"),
        (packed(PIXELS), packed(LABELS[:2]), "a-images has 3 images and a-labels 2 labels"),
        (packed(PIXELS), gzip.compress(packed(LABELS), mtime=0)[:-9], "a-labels cannot be read to its end"),
        (packed(PIXELS), b"\x1f\x8bnonsense", "a-labels cannot be read to its end"),
        (
            packed(PIXELS),
            gzip.compress(packed(LABELS), mtime=0)[:-8] + b"12345678",
            "a-labels cannot be read to its end",
        ),
        # A header that claims 2⁹⁶ bytes, of which nothing is allocated.
        (bytes((0, 0, 8, 3)) + b"\xff" * 12, packed(LABELS), "a-images declares 79,228,162,"),
    ],
)
def test_a_fault_is_one_sentence_that_names_the_file(images: bytes, labels: bytes, said: str) -> None:
    with pytest.raises(InvalidSource, match=said):
        read(images, labels)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_images_are_counted_from_the_headers(pack: object) -> None:
    # Given files of which no more was read than holds the header,
    large = np.zeros((3, 4000, 500), np.uint8)
    images, labels = (pack(packed(array))[:HEAD_BYTES] for array in (large, LABELS))  # type: ignore[operator]

    # I expect the count that they declare.
    assert count(images, labels, PAIR) == 3


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (packed(LABELS), packed(LABELS), "a-images begins with 00000801"),
        (gzip.compress(packed(PIXELS), mtime=0), packed(PIXELS), "a-labels begins with 00000803"),
        (packed(PIXELS)[:9], packed(LABELS), "a-images is truncated"),
        (packed(PIXELS), packed(LABELS[:2]), "a-images has 3 images and a-labels 2 labels"),
        (packed(PIXELS), b"\x1f\x8bnonsense", "a-labels cannot be read to its end"),
    ],
)
def test_a_header_that_is_wrong_is_one_sentence(images: bytes, labels: bytes, said: str) -> None:
    with pytest.raises(InvalidSource, match=said):
        count(images, labels, PAIR)


def test_files_are_paired_by_what_comes_before() -> None:
    # Given the files of MNIST in a folder, one of them unpacked beside its archive, and others,
    names = [
        "m/train-images-idx3-ubyte",
        "m/train-images-idx3-ubyte.gz",
        "m/train-labels-idx1-ubyte.gz",
        "m/t10k-labels.idx1-ubyte",
        "m/t10k-images.idx3-ubyte",
        "m/README.md",
    ]

    # I expect two pairs, the plain file before its archive.
    assert pairs(reversed(names)) == {
        "m/train": Pair("m/train-images-idx3-ubyte", "m/train-labels-idx1-ubyte.gz"),
        "m/t10k": Pair("m/t10k-images.idx3-ubyte", "m/t10k-labels.idx1-ubyte"),
    }
    assert pairs(["cat.jpg"]) == {}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train-images-idx3-ubyte.gz", "images train-images-idx3-ubyte.gz have no labels"),
        ("train-labels-idx1-ubyte", "labels train-labels-idx1-ubyte have no images"),
    ],
)
def test_half_a_pair_is_refused(name: str, said: str) -> None:
    with pytest.raises(InvalidSource, match=said):
        pairs([name])
