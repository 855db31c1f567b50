"""Generated images leave as data sets, and webdataset, datasets and mlcroissant load them."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, JobConflict, ObjectDamaged
from contract.jobs.lifecycle import Backend, submit
from contract.keys.jobs import JobKeys
from contract.settings import Settings, current
from producer import Client
from producer.cli import cli
from producer.exports.images import parquet
from producer.exports.images.accepted import Window
from producer.exports.images.export import export
from tests.mill import variables
from tests.producer.fakes import spec as classify_spec
from tests.synthetic import colour, fabricate, fabricate_candidates, generate_spec, gray, synthesize_spec
from worker.datasets.idx import read_pair
from worker.sources import idx

CLASSES = ("zero", "T-shirt/top", "T-shirt_top", "four")
ASKED = (0, 1, 2, 4)
"""The same, as the generator counts them; a data set counts them 0 to 3."""

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """They read the environment once, when they are imported: no network, and caches that nobody else fills."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setenv(name, "1")
        for name in ("HF_HOME", "CROISSANT_CACHE"):
            patch.setenv(name, str(cache / name))
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "set"


@pytest.fixture
def rows(store: ObjectStore) -> Rows:
    """A synthesis that has ended: 20 accepted images of four classes in two shards; their rows by key."""
    return {row["key"]: row for row in fabricate(store, synthesize_spec(store))}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def listing(folder: Path) -> list[str]:
    """Every file, but for the mark of whose folder it is."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != ".imagemill-export")


def pixels(row: dict[str, Any]) -> bytes:
    return gray(row["label_index"], row["index"]).tobytes()


def load(*args: Any, cache: Path, **kwargs: Any) -> Any:
    """`datasets.load_dataset` of the one split."""
    from datasets import load_dataset

    return load_dataset(*args, **kwargs, split="train", cache_dir=str(cache))


# WebDataset


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves the tars open
def test_webdataset_loads_it_as_it_is(store: ObjectStore, rows: Rows, folder: Path) -> None:
    import webdataset

    export(store, "digits", "webdataset", folder)

    tars = [str(folder / f"shard-00000{n}.tar") for n in (0, 1)]
    found = {sample["__key__"]: sample for sample in webdataset.WebDataset(tars, shardshuffle=False).decode("pil")}
    assert found.keys() == rows.keys()
    for key, sample in found.items():
        assert sample["json"]["label"] == rows[key]["label"]
        assert sample["png"].convert("L").tobytes() == pixels(rows[key])
    gc.collect()  # while its warning is ignored
    index = pq.read_table(folder / "shard-000000.parquet").to_pylist()
    assert Counter(row["accepted"] for row in index) == {True: 10, False: 4}
    shards = [f"shard-00000{n}.{suffix}" for n in (0, 1) for suffix in ("parquet", "tar")]
    assert listing(folder) == sorted(["README.md", "croissant.json", *shards])


def test_hugging_face_loads_the_webdataset_by_its_card(
    store: ObjectStore, rows: Rows, folder: Path, tmp_path: Path
) -> None:
    export(store, "digits", "webdataset", folder)

    loaded = load(str(folder), cache=tmp_path)

    assert {example["__key__"]: example["json"]["label"] for example in loaded} == {
        key: row["label"] for key, row in rows.items()
    }


def test_a_second_export_keeps_what_is_whole_and_makes_good_what_is_not(
    store: ObjectStore, rows: Rows, folder: Path
) -> None:
    export(store, "digits", "webdataset", folder)
    kept, damaged = folder / "shard-000000.tar", folder / "shard-000001.tar"
    whole, inode = damaged.read_bytes(), kept.stat().st_ino
    damaged.write_bytes(whole.replace(b"\x89PNG", b"\x88PNG", 1))
    (folder / ".shard-000001.tar.part").write_bytes(whole[:1000])  # of an export that was killed
    (folder / "shard-000000.parquet").unlink()

    export(store, "digits", "webdataset", folder)

    assert damaged.read_bytes() == whole
    assert kept.stat().st_ino == inode, "it was whole, and is not fetched again"
    assert (folder / "shard-000000.parquet").exists()
    assert not list(folder.glob(".*.part"))


@pytest.mark.parametrize("layout", ["webdataset", "imagefolder", "idx", "parquet"])
def test_an_image_that_is_not_what_was_committed_ends_the_export(
    store: ObjectStore, rows: Rows, folder: Path, layout: Any
) -> None:
    key = f"{JobKeys('digits').root}out/shard-000001.tar"
    store.put(key, store.get(key).replace(b"\x89PNG", b"\x88PNG", 1))

    with pytest.raises(
        ObjectDamaged, match=r"in s3://.*/shard-000001.tar is not what was committed \(its sha256 differs"
    ):
        export(store, "digits", layout, folder)

    assert not list(folder.rglob("*.part"))
    assert not {"README.md", "croissant.json", "shard-000001.tar", "train.parquet"} & set(listing(folder))
    assert not [name for name in listing(folder) if name.startswith("train-") or name.endswith("metadata.jsonl")]


def test_an_index_that_is_not_what_was_committed_ends_the_export(store: ObjectStore, rows: Rows, folder: Path) -> None:
    store.put(f"{JobKeys('digits').root}out/shard-000000.parquet", b"another")

    with pytest.raises(ObjectDamaged, match=r"shard-000000\.parquet is not what was committed"):
        export(store, "digits", "webdataset", folder)
    assert not folder.exists()


def test_a_range_over_many_pieces_is_put_together() -> None:
    window = Window([b"abc", b"", b"defg", b"h", b"ijk"])

    assert [window.read(1, 1), window.read(2, 4), window.read(7, 1), window.read(9, 9)] == [b"b", b"cdef", b"h", b"jk"]


# Image folder


def test_hugging_face_loads_the_image_folder_with_labels(
    store: ObjectStore, rows: Rows, folder: Path, tmp_path: Path
) -> None:
    export(store, "digits", "imagefolder", folder)

    loaded = load("imagefolder", data_dir=str(folder), cache=tmp_path / "a")
    assert len(loaded) == len(rows) == len(load(str(folder), cache=tmp_path / "b"))
    for example in loaded:
        row = rows[example["key"]]
        assert example["image"].tobytes() == pixels(row)
        assert [example[name] for name in ("label", "label_index", "seed", "index", "sha256", "model")] == [
            row[name] for name in ("label", "label_index", "seed", "index", "sha256", "model")
        ]
        assert example["score"] == pytest.approx(row["score"], abs=1e-6)


def test_two_classes_never_share_a_folder(store: ObjectStore, rows: Rows, folder: Path) -> None:
    export(store, "digits", "imagefolder", folder)

    found = lines(folder / "train" / "metadata.jsonl")
    folders = {line["label"]: line["file_name"].partition("/")[0] for line in found}
    assert folders == {"zero": "zero", "T-shirt/top": "T-shirt_top", "T-shirt_top": "T-shirt_top-2", "four": "four"}
    for line in found:
        assert Path(line["file_name"]).stem == line["key"]
        data = (folder / "train" / line["file_name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == line["sha256"]


# IDX


def read_idx(folder: Path) -> Any:
    (pair,) = idx.pairs([path.name for path in folder.iterdir()]).values()
    with (folder / pair.images).open("rb") as images, (folder / pair.labels).open("rb") as labels:
        return read_pair(images, labels, pair)


def test_idx_is_what_a_training_reads(store: ObjectStore, rows: Rows, folder: Path) -> None:
    export(store, "digits", "idx", folder)

    images, labels = read_idx(folder)
    told = lines(folder / "train-metadata.jsonl")
    assert images.shape == (20, 8, 8, 1)
    assert (folder / "labels.txt").read_text().splitlines() == list(CLASSES)
    assert {line["key"] for line in told} == rows.keys()
    for image, label, line in zip(images, labels, told, strict=True):
        assert image.tobytes() == pixels(rows[line["key"]])
        assert (CLASSES[label], ASKED[label]) == (line["label"], line["label_index"])


def test_webp_has_no_gray_and_is_gray_all_the_same(store: ObjectStore, folder: Path) -> None:
    fabricate(store, generate_spec(store, image_format="webp"))

    export(store, "sheet", "idx", folder)

    images, _ = read_idx(folder)
    assert images[0].tobytes() == gray(0, 0).tobytes()
    assert "score" not in lines(folder / "train-metadata.jsonl")[0], "without a gate there is none"


def test_colours_do_not_go_into_idx(store: ObjectStore, folder: Path) -> None:
    fabricate(store, generate_spec(store), draw=colour)

    with pytest.raises(
        InvalidInput, match="00000-000000000 of sheet is no gray image, and IDX holds gray ones; export"
    ):
        export(store, "sheet", "idx", folder)
    assert listing(folder) == []
    assert export(store, "sheet", "imagefolder", folder).accepted == 20, "as the error says, into the same folder"


def test_two_sizes_do_not_go_into_idx(store: ObjectStore, folder: Path) -> None:
    fabricate(store, generate_spec(store), draw=lambda label, index: gray(label, index, 8 + label))

    with pytest.raises(InvalidInput, match=r"several sizes .*8 × 8, 9 × 9, .* and IDX holds one; export it as"):
        export(store, "sheet", "idx", folder)


def test_without_pillow_idx_says_so_and_the_others_work(
    store: ObjectStore, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)

    with pytest.raises(InvalidInput, match="Pillow reads them: `pip install pillow`, or export it as"):
        export(store, "digits", "idx", tmp_path / "idx")
    export(store, "digits", "parquet", tmp_path / "parquet")


# Parquet


def test_hugging_face_loads_the_parquet_with_images_and_named_classes(
    store: ObjectStore, rows: Rows, folder: Path, tmp_path: Path
) -> None:
    export(store, "digits", "parquet", folder)

    loaded = load("parquet", data_files=str(folder / "train.parquet"), cache=tmp_path / "a")
    by_card = load(str(folder), cache=tmp_path / "b")
    assert loaded.features == by_card.features
    assert tuple(loaded.features["label"].names) == CLASSES
    assert {example["key"] for example in by_card} == rows.keys()
    for example in loaded:
        row = rows[example["key"]]
        assert example["image"].tobytes() == pixels(row)
        assert CLASSES[example["label"]] == row["label"]
        assert (example["label_index"], example["seed"]) == (row["label_index"], 7)
        assert example["score"] == pytest.approx(row["score"])


def test_candidates_are_told_of_where_some_were_rejected(store: ObjectStore, rows: Rows, tmp_path: Path) -> None:
    fabricate(store, generate_spec(store))

    export(store, "digits", "parquet", tmp_path / "digits")
    export(store, "sheet", "parquet", tmp_path / "sheet")

    candidates = pq.read_table(tmp_path / "digits" / "candidates.parquet").to_pylist()
    assert Counter(row["reject_reason"] for row in candidates) == {None: 20, "score": 4, "duplicate": 4}
    assert listing(tmp_path / "sheet") == ["README.md", "croissant.json", "train.parquet"]


def test_parquet_is_written_row_group_by_row_group(
    store: ObjectStore, rows: Rows, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_ROWS", 8)

    export(store, "digits", "parquet", folder)

    with pq.ParquetFile(folder / "train.parquet") as file:
        assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [8, 8, 4]


# Card and Croissant


@pytest.mark.parametrize("layout", ["webdataset", "imagefolder", "idx", "parquet"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mlcroissant is behind rdflib and pandas,
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # and leaves images open
def test_mlcroissant_validates_and_iterates_every_layout(
    store: ObjectStore, rows: Rows, folder: Path, layout: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import mlcroissant

    export(store, "digits", layout, folder)

    dataset = mlcroissant.Dataset(str(folder / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    # Whoever publishes the images says under which licence; there is nothing else to wish for.
    (warning,) = dataset.metadata.ctx.issues.warnings
    assert "schema.org/license" in warning
    found = {record["images/key"].decode(): record for record in dataset.records("images")}
    assert found.keys() == rows.keys()
    for key, record in found.items():
        row = rows[key]
        if layout != "idx":
            assert record["images/image"].convert("L").tobytes() == pixels(row)
        label = record["images/label"]
        assert (CLASSES[label] if layout == "parquet" else label.decode()) == row["label"]
        assert record["images/score"] == pytest.approx(row["score"], abs=1e-6)
    classes = [(record["classes/label"], record["classes/name"]) for record in dataset.records("classes")]
    assert classes == list(enumerate(CLASSES))
    if layout in ("webdataset", "parquet"):
        assert sum(not record["candidates/accepted"] for record in dataset.records("candidates")) == 8
    assert "Could not match" not in caplog.text
    gc.collect()  # while its warnings are ignored


def test_croissant_names_every_file_with_its_sha256(store: ObjectStore, rows: Rows, folder: Path) -> None:
    export(store, "digits", "webdataset", folder)

    told = json.loads((folder / "croissant.json").read_text())
    files = {node["@id"]: node["sha256"] for node in told["distribution"] if node["@type"] == "cr:FileObject"}
    assert sorted(files) == [name for name in listing(folder) if name.startswith("shard-")]
    for name, digest in files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert told["datePublished"] == "2026-11-24T04:39:25.523Z"


@pytest.mark.parametrize("layout", ["webdataset", "imagefolder", "idx", "parquet"])
def test_the_front_matter_of_the_card_is_yaml(store: ObjectStore, rows: Rows, folder: Path, layout: Any) -> None:
    import yaml

    export(store, "digits", layout, folder)

    card = (folder / "README.md").read_text("utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["task_categories"] == ["image-classification"]
    assert (front["size_categories"], front["class_names"]) == (["n<1K"], list(CLASSES))
    assert "synthetic" in front["tags"]
    assert f"imagemill export digits --format {layout} -o DIR" in card
    assert "| 3 | 4 | four | 5 | 7 | 71.4% | 0.9200 |" in card


# What may be exported, and where to


def test_a_job_of_another_kind_names_results(store: ObjectStore, backend: Backend, folder: Path) -> None:
    submit(backend, classify_spec())

    with pytest.raises(JobConflict, match=r"job generates no images, its kind is classify; `imagemill results job`"):
        export(store, "job", "webdataset", folder)
    assert not folder.exists()


def test_asked_for_labels_a_job_that_generated_images_names_export(settings: Settings, rows: Rows) -> None:
    with (
        closing(Client(settings)) as client,
        pytest.raises(JobConflict, match="`imagemill export digits -o DIR` writes"),
    ):
        client.results("digits")


def test_a_job_that_has_not_ended_is_not_exported(store: ObjectStore, folder: Path) -> None:
    fabricate(store, generate_spec(store), state=None)

    with pytest.raises(JobConflict, match="has not ended; follow it with `imagemill follow sheet`"):
        export(store, "sheet", "webdataset", folder)


def test_a_job_without_images_is_not_exported(store: ObjectStore, folder: Path) -> None:
    fabricate(store, generate_spec(store), shards=0, state="failed")

    with pytest.raises(JobConflict, match="sheet has failed before it had an image"):
        export(store, "sheet", "webdataset", folder)


def test_candidates_from_which_nothing_is_chosen_are_no_images(store: ObjectStore, folder: Path) -> None:
    fabricate_candidates(store, synthesize_spec(store))

    with pytest.raises(JobConflict, match="digits was canceled before it had an image; there is nothing to export"):
        export(store, "digits", "webdataset", folder)


def test_of_a_job_that_was_canceled_there_is_what_it_had_made_and_the_card_says_so(
    store: ObjectStore, folder: Path
) -> None:
    fabricate(store, generate_spec(store), state="canceled")

    export(store, "sheet", "imagefolder", folder)

    assert "The job was canceled: this is what it had made until then." in (folder / "README.md").read_text("utf-8")


def test_a_synthesis_of_an_earlier_version_is_exported(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    fabricate(store, synthesize_spec(store))
    fabricate(store, synthesize_spec(store, "earlier"), old_layout=True)

    export(store, "digits", "imagefolder", folder)
    export(store, "earlier", "imagefolder", tmp_path / "earlier")

    assert lines(tmp_path / "earlier" / "train" / "metadata.jsonl") == lines(folder / "train" / "metadata.jsonl")


def test_a_folder_with_other_files_is_refused(store: ObjectStore, rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "mine.png").touch()
    with pytest.raises(InvalidInput, match="is not empty and holds no export of digits as idx; name a new folder"):
        export(store, "digits", "idx", tmp_path)
    with pytest.raises(InvalidInput, match="is a file; name a folder"):
        export(store, "digits", "idx", tmp_path / "mine.png")

    export(store, "digits", "idx", tmp_path / "set")
    with pytest.raises(InvalidInput, match="holds no export of digits as parquet"):
        export(store, "digits", "parquet", tmp_path / "set")
    assert export(store, "digits", "idx", tmp_path / "set").accepted == 20, "the same again is no other"


# The command


def test_the_client_tells_how_far_it_is(settings: Settings, rows: Rows, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    with closing(Client(settings)) as client:
        stats = client.export("digits", "imagefolder", folder, progress=lambda *now: told.append(now))

    assert told == [(n, 20) for n in range(1, 21)]
    assert stats.labels == CLASSES


def test_the_command_writes_json(settings: Settings, rows: Rows, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables(settings).items():
        monkeypatch.setenv(name, value)
    current.cache_clear()
    try:
        arguments = ["export", "digits", "--format", "parquet", "-o", str(folder)]
        done = CliRunner().invoke(cli, [*arguments, "--json"], prog_name="imagemill")
        again = CliRunner().invoke(cli, arguments, prog_name="imagemill")
    finally:
        current.cache_clear()

    assert json.loads(done.stdout) == {
        "output": str(folder),
        "format": "parquet",
        "images": 20,
        "classes": dict.fromkeys(CLASSES, 5),
    }
    assert again.exit_code == 0
    assert "Wrote 20 images of 4 classes to" in again.stderr
    with pq.ParquetFile(folder / "train.parquet") as file:
        image = next(file.iter_batches(1)).to_pylist()[0]["image"]
    assert Image.open(io.BytesIO(image["bytes"])).size == (8, 8)
