"""What the user may name as a source, and what is said when it cannot be one."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import InvalidSource
from contract.jobs.specs import Source
from contract.keys.jobs import JobKeys
from producer.sources import images
from producer.sources.folders import LocalSequence
from producer.sources.images import Packed, Remote, Resolved, Upload
from tests.producer.fakes import MemoryStore, as_store


def resolve(text: str | Path, store: MemoryStore | None = None, frames: int = 0) -> Resolved:
    return images.resolve(str(text), as_store(store or MemoryStore()), frames)


def refused(text: str | Path, store: MemoryStore | None = None, frames: int = 0) -> str:
    with pytest.raises(InvalidSource) as raised:
        resolve(text, store, frames)
    return str(raised.value)


def write_tar(path: Path, *members: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in members:
            tar.addfile(tarfile.TarInfo(name))
    return path


def test_a_folder_is_packed_and_other_files_are_counted(tmp_path: Path) -> None:
    for name in ("b.jpg", "in/a.PNG", "notes.txt", ".hidden.jpg", "no-suffix"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    found = resolve(tmp_path)

    assert isinstance(found, Packed)
    assert (found.total, found.skipped) == (3, 2)
    assert [file.key for file in found.files()] == ["b.jpg", "in/a.PNG", "no-suffix"]
    assert found.source(JobKeys("job"), "mill").uri == tmp_path.as_uri()


def test_another_spelling_of_a_folder_is_the_same_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    monkeypatch.chdir(tmp_path)

    one, two = (resolve(text).source(JobKeys("job"), "mill") for text in ("photos", "./photos/"))

    assert one == two


def test_a_folder_that_holds_only_tars_is_uploaded_as_it_is(tmp_path: Path) -> None:
    first, second = (write_tar(tmp_path / name, "a.jpg") for name in ("0.tar", "1.tar"))

    found = resolve(tmp_path)

    assert isinstance(found, Upload)
    assert found.files == (first, second)
    assert found.key(first, JobKeys("job")) == "jobs/job/in/0.tar"
    assert found.source(JobKeys("job"), "mill").uri == "s3://mill/jobs/job/in/"


def test_a_tar_without_images_is_refused(tmp_path: Path) -> None:
    assert "holds no images" in refused(write_tar(tmp_path / "a.tar", "readme.txt"))


def test_a_tar_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("not a tar")

    assert "cannot be read as a tar" in refused(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing-here", "There is no"),
        ("one.jpg", "is one image"),
        ("notes.txt", "is not a source"),
        ("empty", "holds no images"),
    ],
)
def test_what_cannot_be_a_source_is_refused_in_one_sentence(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "one.jpg").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()

    assert says in refused(tmp_path / name)


def test_a_web_address_belongs_in_a_manifest() -> None:
    assert "list addresses in a .jsonl" in refused("https://example.org/a.jpg")


# Manifests


def test_a_manifest_of_remote_addresses_is_uploaded(tmp_path: Path) -> None:
    path = tmp_path / "urls.jsonl"
    path.write_text('{"uri": "s3://camera/a.jpg"}\n\n{"source-ref": "https://example.org/b%20c.jpg"}\n')

    found = resolve(path)

    assert isinstance(found, Upload)
    assert found.source(JobKeys("job"), "mill").uri == "s3://mill/jobs/job/in/source.jsonl"


def test_a_manifest_of_local_paths_is_packed_and_a_missing_file_is_one_item(tmp_path: Path) -> None:
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"12")
    folder = tmp_path / "list"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a b.jpg").write_bytes(b"1")
    (folder / "m.csv").write_text(f"uri,split\nin/a b.jpg,x\n{outside.as_uri()},x\ngone.jpg,y\n")

    found = resolve(folder / "m.csv")

    assert isinstance(found, Packed)
    assert [(file.key, file.size) for file in found.files()] == [
        ("in/a b.jpg", 1),
        (str(outside).lstrip("/"), 2),
        ("gone.jpg", None),
    ]


def test_a_parquet_manifest_names_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["s3://camera/a.jpg", None]}), tmp_path / "m.parquet")

    assert refused(tmp_path / "m.parquet").startswith(f"Row 2 of {tmp_path}/m.parquet has neither")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("m.jsonl", '{"uri": "a.jpg"}\n{"uri": "s3://camera/a.jpg"}\n', "put local paths and remote"),
        ("m.jsonl", '{"uri": "a.jpg"}\n{nonsense\n', "Line 2 of"),
        ("m.jsonl", '{"path": "a.jpg"}\n', "has neither `uri` nor `source-ref`"),
        ("m.jsonl", '["a.jpg"]\n', "is not a JSON object"),
        ("m.jsonl", '{"uri": "gs://camera/a.jpg"}\n', "images are read from s3://"),
        ("m.jsonl", '{"uri": "s3://camera"}\n', "names no image"),
        ("m.jsonl", '{"uri": "http://[1/a.jpg"}\n', "cannot be read"),
        ("m.jsonl", "\n", "has no rows"),
        ("m.csv", "path\na.jpg\n", "has neither a column"),
        ("m.parquet", "text", "cannot be read as Parquet"),
    ],
)
def test_a_manifest_is_checked_to_its_end(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)

    assert says in refused(tmp_path / name)


# Sequences


def sequences(found: Resolved) -> dict[str, list[str] | None]:
    """The frames of each sequence by its key, None where it is a file."""
    assert isinstance(found, Packed)
    items = list(found.files())
    assert found.total == len(items)
    return {
        item.key: [frame.key for frame in item.frames] if isinstance(item, LocalSequence) else None for item in items
    }


def test_the_stills_of_a_local_folder_are_a_sequence(tmp_path: Path) -> None:
    for name in ("up/1/f-10.png", "up/1/f-9.png", "up/1/f-11.png", "up/a b.gif", "top.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    found = resolve(tmp_path, frames=2)

    assert sequences(found) == {"up/1/": ["up/1/f-9.png", "up/1/f-11.png"], "up/a b.gif": None, "./": ["top.jpg"]}
    assert isinstance(found, Packed)
    up = next(iter(sorted(found.files(), key=lambda item: item.key == "./")))
    assert isinstance(up, LocalSequence)
    assert (up.uri, up.length, up.size, up.label) == (f"{tmp_path.as_uri()}/up/1/", 3, 2, "up")


def test_a_row_lists_local_frames_in_its_own_order(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12")
    rows = ['{"frames": ["b.png", "a.png"], "label": "left"}', "", '{"uri": "c.gif", "frames": 12}']
    (tmp_path / "m.jsonl").write_text("\n".join(rows))

    found = resolve(tmp_path / "m.jsonl", frames=4)

    assert sequences(found) == {"m.jsonl#1": ["b.png", "a.png"], "c.gif": None}
    assert isinstance(found, Packed)
    first = next(found.files())
    assert (first.uri, first.size, first.label) == (f"{(tmp_path / 'm.jsonl').as_uri()}#1", None, "left")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_of_frames_is_enough(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    if suffix == ".csv":
        path.write_text('frames,label\n"[""s3://b/1.png"", ""s3://b/2.png""]",left\n')
    else:
        pq.write_table(pa.table({"frames": [["s3://b/1.png", "s3://b/2.png"]], "label": ["left"]}), path)

    assert isinstance(resolve(path, frames=4), Upload)
    assert "has neither a column `uri` nor `source-ref`" in refused(path), "a model of images needs images"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"frames": []}', "list one or more"),
        ('{"frames": ["a.png", 2]}', "each as a string"),
        ('{"frames": "a.png"}', "nor a list of `frames`"),
        ('{"frames": "[a.png]"}', "not a JSON list"),
        ('{"uri": "a.gif", "frames": ["a.png"]}', "both an address and a list of `frames`"),
        ('{"frames": ["a.png", "s3://b/1.png"]}', "put local paths and remote"),
    ],
)
def test_a_row_of_frames_is_checked(tmp_path: Path, row: str, says: str) -> None:
    (tmp_path / "m.jsonl").write_text(f"{row}\n")

    assert says in refused(tmp_path / "m.jsonl", frames=4)


# Prefixes


def store_of(*keys: str) -> MemoryStore:
    return MemoryStore(dict.fromkeys(keys, b"x"))


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["in/a.jpg", "in/readme.txt"], "prefix"),
        (["in/no-suffix"], "prefix"),
        (["in/0.tar", "in/1.tar", "in/index.json"], "tars"),
        (["in/0.tar", "in/LICENSE"], "tars"),
        (["in/0.tar", "in/a.jpg"], "prefix"),
        ([f"in/{n:04d}.txt" for n in range(1500)] + ["in/z.jpg"], "prefix"),
    ],
)
def test_the_first_page_of_a_prefix_tells_its_kind(keys: list[str], kind: str) -> None:
    found = resolve("s3://mill/in/", store_of(*keys))

    assert isinstance(found, Remote)
    assert (found.kind, found.uri) == (kind, "s3://mill/in/")


def test_one_object_may_be_a_tar_or_a_manifest() -> None:
    store = store_of("in/0.tar", "in/list.csv")

    sources = [resolve(f"s3://mill/in/{name}", store).source(JobKeys("job"), "mill") for name in ("0.tar", "list.csv")]

    assert [source.kind for source in sources if isinstance(source, Source)] == ["tars", "manifest"]


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("s3://other/in/", "There is no bucket 'other'"),
        ("s3://mill/nothing/", "There is nothing under"),
        ("s3://mill/in/", "holds no images"),
        ("s3://mill/gone.tar", "There is no object"),
        ("s3://", "write it as s3://bucket/prefix"),
    ],
)
def test_a_prefix_that_cannot_be_labelled_is_refused(uri: str, says: str) -> None:
    assert says in refused(uri, store_of("in/readme.txt", "in/folder/"))
