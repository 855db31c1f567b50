"""Generated images and their labels as IDX files, the format of MNIST.

The format: LeCun, Cortes & Burges, "The MNIST database". A magic number (two zeros, 8 for uint8, the number of
dimensions), each dimension as a big-endian uint32, then the bytes. The only module of the producer that reads pixels:
it needs Pillow, which nothing else here does.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterable

from contract.data.dataset_card import IDX_IMAGES, IDX_LABELS, IDX_METADATA, IDX_NAMES
from contract.data.dataset_stats import DatasetStats
from contract.errors import InvalidInput, ObjectDamaged
from contract.jobs.results import Row
from contract.jobs.specs import ImagesSpec
from producer.exports.images.accepted import metadata
from producer.exports.images.target import Target

_CLASSES = 256


def write(
    spec: ImagesSpec,
    stats: DatasetStats,
    images: Iterable[tuple[Row, bytes]],
    target: Target,
    done: Callable[[int], None],
) -> list[str]:
    """Write images, labels, names of the classes and a line of metadata an image; returns the names of the files.

    Raises InvalidInput where Pillow is missing, or the images are not all gray and of one size; ObjectDamaged where one
    is not of the size in its row.
    """
    gray = _reader()
    if len(stats.sizes) != 1:
        sizes = ", ".join(f"{width} × {height}" for width, height in stats.sizes)
        raise InvalidInput(f"The images of {spec.id} have several sizes ({sizes}), and IDX holds one; {_ANOTHER}.")
    if len(stats.classes) > _CLASSES:
        raise InvalidInput(
            f"{spec.id} has {len(stats.classes):,} classes, and IDX has a byte for a label, so {_CLASSES} at most; "
            f"{_ANOTHER}."
        )
    ((width, height),), numbers = stats.sizes, stats.numbers
    with target.writing(IDX_IMAGES, IDX_LABELS, IDX_NAMES, IDX_METADATA) as (pixels, labels, names, lines):
        pixels.write(struct.pack(">4B3I", 0, 0, 8, 3, stats.accepted, height, width))
        labels.write(struct.pack(">4BI", 0, 0, 8, 1, stats.accepted))
        # A name is one line, whatever is in it.
        names.writelines(f"{' '.join(label.split())}\n".encode() for label in stats.labels)
        for row, data in images:
            plane = gray(data)
            if plane is None:
                raise InvalidInput(f"{row['key']} of {spec.id} is no gray image, and IDX holds gray ones; {_ANOTHER}.")
            if len(plane) != width * height:
                raise ObjectDamaged(
                    f"{row['key']} of {spec.id} is not {width} × {height} pixels, as its row says; make the images "
                    "again as a new job."
                )
            pixels.write(plane)
            labels.write(bytes([numbers[row["label_index"]]]))
            lines.write(json.dumps(metadata(spec, row), ensure_ascii=False).encode() + b"\n")
            done(1)
    return [IDX_IMAGES, IDX_LABELS, IDX_NAMES, IDX_METADATA]


_ANOTHER = "export it as imagefolder, webdataset or parquet"


def _reader() -> Callable[[bytes], bytes | None]:
    """Gives the pixels of a file, row by row, a byte each; None where it is not gray."""
    try:
        from PIL import Image
    except ImportError:
        raise InvalidInput(f"IDX holds pixels, and Pillow reads them: `pip install pillow`, or {_ANOTHER}.") from None

    def gray(data: bytes) -> bytes | None:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode == "L":
                return image.tobytes()
            # WebP has no gray: the three planes of a gray image are the same.
            if image.mode == "RGB":
                red, green, blue = (plane.tobytes() for plane in image.split())
                return red if red == green == blue else None
        return None

    return gray
