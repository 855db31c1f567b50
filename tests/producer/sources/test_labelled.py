"""What is wrong with training data is said before anything is uploaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidSource, UnknownJob
from producer.sources import labelled
from producer.sources.images import LOOK, Packed, Remote, Upload
from tests.producer.fakes import MemoryStore, as_store

STORE = as_store(MemoryStore())


def folder(base: Path, *files: str) -> str:
    for name in files:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"x")
    return str(base)


def test_class_folders_are_packed(tmp_path: Path) -> None:
    found = labelled.resolve(folder(tmp_path, "a/1.png", "a/2.png", "b/3.png", "b/4.png"), STORE)
    assert isinstance(found, Packed)
    assert found.total == 4


def test_class_folders_of_sequences_are_packed(tmp_path: Path) -> None:
    files = ("a/1/1.png", "a/1/2.png", "a/2/1.png", "b/1.gif", "b/2/1.png", "b/2/2.png")
    found = labelled.resolve(folder(tmp_path, *files), STORE, 8)
    assert isinstance(found, Packed)
    assert [(item.key, item.label) for item in found.files()] == [
        ("a/1/", "a"),
        ("a/2/", "a"),
        ("b/1.gif", "b"),
        ("b/2/", "b"),
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["a/1.png", "a/2.png", "b/1/1.png"], "a/ of .* is in no class folder"),
        (["a/1/1.png", "a/2/1.png", "b/1/1.png", "b/1/2.png"], "The class 'b' of .* has one sequence"),
    ],
)
def test_folders_of_frames_that_cannot_be_learnt_from(tmp_path: Path, files: list[str], said: str) -> None:
    with pytest.raises(InvalidSource, match=said):
        labelled.resolve(folder(tmp_path, *files), STORE, 8)


@pytest.mark.parametrize("prefix", ["sets/mnist/", "sets/mnist", "sets/mnist/train"])
def test_idx_files_under_a_prefix_are_found(store: ObjectStore, prefix: str) -> None:
    for name in ("mnist/train-images-idx3-ubyte.gz", "mnist/train-labels-idx1-ubyte.gz", "mnist-photos/1.png"):
        store.put(f"sets/{name}", b"x")
    uri = f"s3://{store.bucket}/{prefix}"
    assert labelled.resolve(uri, store) == Remote("idx", uri, uri)


def test_idx_files_in_a_folder_under_a_prefix_are_not_those_of_the_prefix(store: ObjectStore) -> None:
    for name in ("1.png", "mnist/train-images-idx3-ubyte.gz", "mnist/train-labels-idx1-ubyte.gz"):
        store.put(f"sets/{name}", b"x")
    uri = f"s3://{store.bucket}/sets/"
    assert labelled.resolve(uri, store) == Remote("prefix", uri, uri)


@pytest.mark.parametrize(
    ("pattern", "most"),
    [("photos/{}/1.png", LOOK), ("photos/a/{}.png", 1), ("photos/{}.png", LOOK)],
)
def test_a_large_prefix_is_not_listed_to_the_end(pattern: str, most: int) -> None:
    # Given a prefix of 3,000 images,
    memory = MemoryStore({pattern.format(f"{index:04}"): b"x" for index in range(3000)})
    # if I look for IDX files there,
    found = labelled.resolve_idx("s3://mill/photos/", as_store(memory), 0)
    # I expect none, after one page of what lies directly under it.
    assert found is None
    assert memory.listed == most


def test_idx_files_are_uploaded_as_they_are(tmp_path: Path) -> None:
    files = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "README.md")
    found = labelled.resolve(folder(tmp_path, *files), STORE)
    assert isinstance(found, Upload)
    assert (found.kind, [file.name for file in found.files]) == ("idx", list(files[:2]))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["a/1.png", "a/2.png", "3.png"], "3.png of .* is in no class folder"),
        (["a/1.png", "a/2.png"], "has a single class, 'a'"),
        (["a/1.png", "a/2.png", "b/3.png"], "The class 'b' of .* has one image"),
        (["a/1.png", "a/2.png", "b/notes.txt"], "The class folder 'b' of .* holds no images"),
        (["a/notes.txt"], "holds no images"),
    ],
)
def test_folders_that_cannot_be_learnt_from(tmp_path: Path, files: list[str], said: str) -> None:
    with pytest.raises(InvalidSource, match=said):
        labelled.resolve(folder(tmp_path, *files), STORE)


def test_a_job_that_is_none_is_said_to_be_none() -> None:
    with pytest.raises(UnknownJob, match="There is no job 'gone'"):
        labelled.resolve("job:gone", STORE)


def test_several_sources_are_one_if_all_are_in_the_store(store: ObjectStore, tmp_path: Path) -> None:
    for name in ("seen/cat/1.png", "made/cat/2.png", "mnist/train-images-idx3-ubyte", "mnist/train-labels-idx1-ubyte"):
        store.put(name, b"x")
    seen, made, mnist = (f"s3://{store.bucket}/{name}/" for name in ("seen", "made", "mnist"))
    found = labelled.resolve_all([seen, "watch:camera", made], store)

    assert isinstance(found, Remote)
    assert (found.kind, found.label) == ("several", f"{seen} + watch:camera + {made}")
    assert [part.kind for part in found.as_source.parts] == ["prefix", "segment", "prefix"]
    assert labelled.resolve_all([seen], store) == labelled.resolve(seen, store)
    here = folder(tmp_path, "a/1.png", "a/2.png", "b/3.png", "b/4.png")
    for other, said in ((here, "is on this machine"), (mnist, "which are read as a whole"), (seen, "is named twice")):
        with pytest.raises(InvalidSource, match=said):
            labelled.resolve_all([seen, other], store)
