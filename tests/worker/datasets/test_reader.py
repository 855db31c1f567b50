"""From a labelled source to arrays: every kind of source, and everything that can be wrong with one."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from contract.backend.objects import ObjectStore
from contract.errors import InvalidSource
from contract.jobs.specs import Source
from worker.datasets.reader import DatasetReader, Prepared, Wanted
from worker.sources.fetch import Fetcher

Read = Callable[..., Prepared]


def png(value: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> bytes:
    target = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(target, "PNG")
    return target.getvalue()


def gif(values: list[int], size: int = 8) -> bytes:
    frames = [Image.new("L", (size, size), value) for value in values]
    target = io.BytesIO()
    frames[0].save(target, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return target.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def idx(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def read(store: ObjectStore, tmp_path: Path) -> Iterator[Read]:
    """Put objects under `in/`, and read them as a source of this kind."""
    with closing(Fetcher(store, 10_000, threads=2)) as fetcher:
        reader = DatasetReader(store, fetcher, tmp_path / "scratch", max_pixels=10_000, threads=2)

        def read(
            kind: str,
            objects: dict[str, bytes],
            *,
            key: str = "",
            parts: tuple[tuple[str, str], ...] = (),
            **wanted: object,
        ) -> Prepared:
            for name, data in objects.items():
                store.put(f"in/{name}", data)
            each = [
                Source(kind=kind, uri=f"s3://{store.bucket}/in/{key}", label=key or "here")
                for kind, key in parts or ((kind, key),)
            ]
            source = Source.several(each) if parts else each[0]
            return reader.read(source, Wanted(**wanted))  # type: ignore[arg-type]

        yield read


def facts(prepared: Prepared) -> list[tuple[str, int]]:
    """Class and first pixel of each image, sorted."""
    data = prepared.data
    first = data.images[:].reshape(len(data), -1)[:, 0]
    return sorted((data.classes[label], int(pixel)) for label, pixel in zip(data.labels, first, strict=True))


def test_a_folder_is_a_class(read: Read) -> None:
    found = read("prefix", {"cat/a.png": png(1), "cat/deep/er/b.png": png(2), "dog/c.png": png(3)})
    assert facts(found) == [("cat", 1), ("dog", 3), ("er", 2)]
    assert found.data.images.shape == (3, 8, 8, 1)


def test_a_tar_says_it_in_a_file_beside_the_image_or_by_its_folder(read: Read) -> None:
    archive = tar(
        {
            "000.png": png(1),
            "000.cls": b"7\n",
            "001.json": json.dumps({"label": "seven"}).encode(),
            "001.png": png(2),
            "bird/002.png": png(3),
        }
    )
    assert facts(read("tars", {"x.tar": archive})) == [("7", 1), ("bird", 3), ("seven", 2)]


def test_a_manifest_has_a_column_for_it(read: Read, store: ObjectStore) -> None:
    rows = [{"uri": f"s3://{store.bucket}/in/{n}.png", "label": n} for n in (1, 2)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    found = read("manifest", {"1.png": png(1), "2.png": png(2), "list.jsonl": lines}, key="list.jsonl")
    assert facts(found) == [("1", 1), ("2", 2)]


def test_classes_are_in_the_order_of_numbers_where_they_are_numbers(read: Read) -> None:
    found = read("prefix", {f"{n}/x.png": png(n) for n in (10, 9, 2)})
    assert found.data.classes == ("2", "9", "10")


def test_names_that_are_given_are_the_classes_in_their_order(read: Read) -> None:
    objects = {"dog/a.png": png(1), "cat/b.png": png(2)}
    assert read("prefix", objects, classes=("dog", "cat", "cow")).data.labels.tolist() == [1, 0]
    with pytest.raises(InvalidSource, match="has the label 'cat', which is none of the 2 classes"):
        read("prefix", objects, classes=("dog", "cow"))


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files(read: Read, packed: bool) -> None:
    images, labels = np.arange(3 * 64).reshape(3, 8, 8), np.array([2, 0, 1])
    pack, end = (gzip.compress, ".gz") if packed else (bytes, "")
    files = {
        f"train-images-idx3-ubyte{end}": pack(idx(images)),
        f"train-labels-idx1-ubyte{end}": pack(idx(labels)),
        f"t10k-images-idx3-ubyte{end}": pack(idx(images[:1])),
        f"t10k-labels-idx1-ubyte{end}": pack(idx(labels[:1])),
    }
    assert facts(read("idx", files, classes=("a", "b", "c"))) == [("a", 64), ("b", 128), ("c", 0)]
    assert len(read("idx", {}, part="test").data) == 1


def test_an_animation_is_a_sequence_and_a_long_one_is_thinned_out(read: Read) -> None:
    found = read("prefix", {"up/a.gif": gif([0, 50, 100, 150, 200]), "up/b.gif": gif([10, 20])}, frames=3)
    assert found.data.images.shape == (2, 3, 8, 8, 1)
    assert found.data.lengths is not None
    assert found.data.lengths.tolist() == [3, 2]
    assert found.data.images[0][:, 0, 0, 0].tolist() == [0, 100, 200]
    assert found.data.images[1][:, 0, 0, 0].tolist() == [10, 20, 0]


def test_the_stills_of_a_folder_are_a_sequence_and_the_folder_above_is_its_class(read: Read) -> None:
    numbers = [1, 2, 10]
    objects = {f"up/a/frame-{n}.png": png(n) for n in numbers} | {"down/b/x.png": png(7), "down/c.gif": gif([8, 9])}
    found = read("prefix", objects, frames=2)
    assert found.data.classes == ("down", "up")
    assert found.data.lengths is not None
    facts = zip(found.data.labels.tolist(), found.data.images[:], found.data.lengths, strict=True)
    assert sorted((label, images[:length, 0, 0, 0].tolist()) for label, images, length in facts) == [
        (0, [7]),
        (0, [8, 9]),
        (1, [1, 10]),
    ]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_row_of_a_manifest_lists_the_frames_and_has_the_label(read: Read, store: ObjectStore, kind: str) -> None:
    objects = {f"{n}.png": png(n) for n in (1, 2, 3)}
    listed = [[f"s3://{store.bucket}/in/{n}.png" for n in order] for order in ((3, 1), (2, 2, 1))]
    rows = [{"frames": listed[0], "label": "left"}, {"frames": listed[1], "label": "right"}]
    target = io.BytesIO()
    if kind == "jsonl":
        target.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    elif kind == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, ["frames", "label"])
        writer.writeheader()
        writer.writerows({**row, "frames": json.dumps(row["frames"])} for row in rows)
        target.write(text.getvalue().encode())
    else:
        pq.write_table(pa.Table.from_pylist(rows), target)
    found = read("manifest", {**objects, f"list.{kind}": target.getvalue()}, key=f"list.{kind}", frames=4)
    assert found.data.classes == ("left", "right")
    assert found.data.images[:][:, :, 0, 0, 0].tolist() == [[3, 1, 0], [2, 2, 1]]


def test_a_sequence_with_a_bad_frame_is_left_out_and_counted_once(read: Read) -> None:
    objects = {"up/a/1.png": png(1), "up/a/2.png": b"", "up/a/3.png": b"no image", "down/b/1.png": png(3)}
    found = read("prefix", objects, frames=4)
    assert (len(found.data), found.left_out) == (1, {"empty_file": 1})


def test_frames_that_differ_in_size_need_a_size(read: Read) -> None:
    objects = {"up/a/1.png": png(1), "up/a/2.png": png(2, (9, 9)), "down/b/1.png": png(3)}
    with pytest.raises(InvalidSource, match=r"up/a/2\.png has 9 × 9 pixels, the first image 8 × 8"):
        read("prefix", objects, frames=4)
    assert read("prefix", objects, frames=4, size=8).data.images.shape == (2, 2, 8, 8, 1)


def test_frames_without_a_folder_above_have_no_label(read: Read) -> None:
    with pytest.raises(InvalidSource, match=r"in/a/ of here has no label; put sequences into a folder a class"):
        read("prefix", {"a/1.png": png(1), "a/2.png": png(2)}, frames=4)


def test_colour_stays_colour_unless_gray_is_wanted(read: Read) -> None:
    objects = {"a/1.png": png(200, mode="RGB"), "b/2.png": png(100)}
    assert read("prefix", objects).data.images[0][0, 0].tolist() == [200, 0, 0]
    assert read("prefix", objects, channels=1).data.images[0][0, 0].tolist() == [60]


def test_a_bad_image_is_left_out_and_counted(read: Read) -> None:
    found = read("prefix", {"a/0.png": b"", "a/1.png": png(1), "a/2.png": b"no image", "b/3.png": png(3)})
    assert facts(found) == [("a", 1), ("b", 3)]
    assert found.left_out == {"empty_file": 1, "not_an_image": 1}


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ({"a/1.png": png(1), "2.png": png(2)}, "in/2.png of here has no label"),
        ({"a/1.png": png(1), "a/2.png": png(2, (9, 9))}, "2.png has 9 × 9 pixels, the first image 8 × 8"),
        ({"a/1.png": png(1, (8, 9))}, "has 8 × 9 pixels, and models take squares"),
        ({"a/1.png": b""}, "holds no images to learn from; 1 could not be read"),
        ({}, "holds no images to learn from"),
    ],
)
def test_what_cannot_be_learnt_from_is_one_sentence(read: Read, objects: dict[str, bytes], said: str) -> None:
    with pytest.raises(InvalidSource) as raised:
        read("prefix", objects)
    assert said in str(raised.value)


def test_with_a_size_given_images_may_differ(read: Read) -> None:
    found = read("prefix", {"a/1.png": png(1), "b/2.png": png(2, (40, 20))}, size=6)
    assert found.data.images.shape == (2, 6, 6, 1)


def test_several_sources_are_read_one_behind_the_other(read: Read) -> None:
    # Given a folder, and a tar with a class of its own, which are named together,
    objects = {
        "seen/cat/a.png": png(1),
        "seen/dog/b.png": png(2),
        "made/x.tar": tar({"1.png": png(3), "1.cls": b"owl"}),
    }
    parts = (("prefix", "seen/"), ("tars", "made/"))

    # I expect one set of arrays, whose classes are those of both,
    found = read("several", objects, parts=parts)
    assert found.data.classes == ("cat", "dog", "owl")
    assert found.data.images[:].reshape(3, -1)[:, 0].tolist() == [1, 2, 3]
    # and the same rules as for one source: one size, and a label for each image.
    with pytest.raises(InvalidSource, match=r"cat/z.png has 9 × 9 pixels, the first image 8 × 8"):
        read("several", {"more/cat/z.png": png(4, (9, 9))}, parts=(*parts, ("prefix", "more/")))
    with pytest.raises(InvalidSource, match=r"y.png of bare/ has no label"):
        read("several", {"bare/y.png": png(5)}, parts=(*parts, ("prefix", "bare/")))
