"""Generated images and their labels as IDX files, the format of MNIST.

The format: LeCun, Cortes & Burges, "The MNIST database". A magic number (two zeros, 8 for uint8, the number of
dimensions), each dimension as a big-endian uint32, then the bytes. This is the only module of the producer that reads
pixels and needs Pillow.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence

from contract.data.dataset_card import Layout
from contract.errors import InvalidInput, ObjectDamaged
from contract.jobs.specs import ImagesSpec
from producer.exports.images.accepted import ImageSet, metadata
from producer.exports.images.croissant import DataFile, Records, fields
from producer.exports.images.target import Target

IMAGES, LABELS, NAMES = "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "labels.txt"
METADATA = "train-metadata.jsonl"
LAYOUT = Layout(
    name="idx",
    load=f"Any reader of MNIST reads it: images are in `{IMAGES}`, labels in `{LABELS}`.",
    columns=(
        f"They are in `{METADATA}`, a line an image in the order of the images. A label is the class in the table "
        f"above; line n of `{NAMES}` names class n, from 0."
    ),
    data_files=None,
)

_CLASSES = 256


def write(images: ImageSet, target: Target, done: Callable[[int], None]) -> list[str]:
    """Write images, labels, class names and a line of metadata for each image; return the names of the files.

    Raises InvalidInput if Pillow is missing or the images are not all gray and of one size, and ObjectDamaged if an
    image does not have the size that its row says.
    """
    spec, stats = images.spec, images.stats
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
    with target.writing(IMAGES, LABELS, NAMES, METADATA) as (pixels, labels, names, lines):
        pixels.write(struct.pack(">4B3I", 0, 0, 8, 3, stats.accepted, height, width))
        labels.write(struct.pack(">4BI", 0, 0, 8, 1, stats.accepted))
        # One line a name, even if a label contains line breaks.
        names.writelines(f"{' '.join(label.split())}\n".encode() for label in stats.labels)
        for row, data in images.accepted():
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
    return [IMAGES, LABELS, NAMES, METADATA]


def records(spec: ImagesSpec, files: Sequence[DataFile]) -> Records:
    """Say where Croissant finds the columns; it cannot read the pixels of IDX."""
    return Records(fields(spec, {"fileObject": {"@id": METADATA}}))


_ANOTHER = "export it as imagefolder, webdataset or parquet"


def _reader() -> Callable[[bytes], bytes | None]:
    """Return a function from the bytes of a file to its gray pixels, one byte each; None if it is not gray."""
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
