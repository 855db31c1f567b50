"""Names from a bucket that lead elsewhere: no file outside its folder is read, written or deleted."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.backend.objects import ObjectStore
from contract.data import image_index
from contract.data.items import parse_s3
from contract.errors import InvalidInput, InvalidSource, ObjectDamaged, UnknownJob
from contract.jobs.lifecycle import Backend, read_spec
from contract.jobs.specs import Generate
from contract.jobs.status import ShardCommit
from contract.keys.jobs import JobKeys
from contract.keys.models import model_draft
from contract.models.registry import File, Model, Preprocess
from contract.models.review import Review
from contract.paths import inside, write_inside
from contract.settings import Settings
from producer.exports.folder_names import FolderNames, safe
from producer.exports.images.target import OWNER, Target
from worker.models.check import admit

OUT = ["../x", "..", "a/../../x", "/etc/passwd", "", ".", "a//b", "a/./b", "a\\..\\b", "C:/x", "a\x00b", "a\nb", "a/.."]
HASHES = ["../../x", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", "0" * 60 + "/../", ""]


def record(**changes: object) -> dict[str, object]:
    model = Model(
        name="m",
        version=1,
        family="cnn",
        labels=("a", "b"),
        preprocess=Preprocess(size=8, mean=0.0, std=1.0),
        weights=File(name="weights.safetensors", sha256="0" * 64, bytes=3),
    )
    return {**json.loads(model.to_json()), **changes}


@pytest.mark.parametrize("name", OUT)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        inside(tmp_path, name)


# Names in pieces that mean something to a file system.
PIECES = st.lists(
    st.sampled_from(["..", ".", "/", "\\", "a", "é", " ", "~", "%2e", "\x00", "\n", "C:", ".part"]), max_size=8
)


@settings(max_examples=500, deadline=None)
@given(st.one_of(PIECES.map("".join), st.text(max_size=30)))
def test_any_name_is_inside_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "inside"
    try:
        path = inside(folder, name)
    except InvalidInput:
        return
    assert path.resolve().is_relative_to(folder.resolve())
    assert path.resolve() != folder.resolve()


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=200))
def test_any_label_is_one_folder(label: str) -> None:
    name = safe(label)
    assert PurePosixPath(name).parts == (name,)
    assert name not in (".", "..")
    names = FolderNames()
    assert names.of(label, 0).lower() != names.of(label, 1).lower()


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "/", "a", "...", ".a", "%2e%2e"]), max_size=9).map("".join))
def test_no_key_has_a_part_that_http_resolves(key: str) -> None:
    try:
        found = parse_s3(f"s3://bucket/{key}")[1]
    except InvalidSource:
        assert {".", ".."} & set(key.split("/"))
        return
    assert not {".", ".."} & set(found.split("/"))


def test_a_link_in_the_folder_of_an_export_is_not_followed(tmp_path: Path) -> None:
    # Given folders and files that somebody has linked elsewhere,
    other = tmp_path / "other"
    other.mkdir()
    victim = other / "victim"
    victim.write_text("precious")
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "train").symlink_to(other)
    (folder / ".labels.csv.part").symlink_to(victim)
    (folder / "labels.csv").symlink_to(victim)

    # if files are written there, I expect that nothing outside changes.
    with pytest.raises(InvalidInput, match="is a link that leads out"), write_inside(folder, "train/x.png"):
        pass
    with write_inside(folder, "labels.csv") as file:
        file.write(b"new")
    assert (folder / "labels.csv").read_bytes() == b"new"
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in other.iterdir()) == ["victim"]


def test_an_index_whose_keys_lead_out_writes_nothing_outside(tmp_path: Path) -> None:
    target = Target(tmp_path / "export", "job", "imagefolder")
    for name in ("train/cat/../../../x.png", "train/cat/../x.png", "../x.png"):
        with pytest.raises(InvalidInput, match="is no name for a file"):
            target.write(name, b"x")
    assert {path.name for path in tmp_path.rglob("*")} == {"export", OWNER}


@pytest.mark.parametrize("key", ["../x", "a/b", "a.b", "", "x" * 101, "a\n"])
def test_an_index_with_a_key_that_names_no_file_is_damaged(store: ObjectStore, key: str) -> None:
    spec = Generate(
        id="job",
        model="gan@1",
        weights_sha256="0" * 64,
        count=1,
        classes=(0,),
        shard_size=1,
        output=f"s3://{store.bucket}/jobs/job/out/",
    )
    made = io.BytesIO()
    pq.write_table(pa.table({"key": ["00000-000000000", key]}), made)
    output = f"{spec.output}shard-000000.parquet"
    store.put("jobs/job/out/shard-000000.parquet", made.getvalue())
    digest = hashlib.sha256(made.getvalue()).hexdigest()
    commit = ShardCommit(shard=0, items=2, ok=2, errors=0, output=output, sha256=digest)
    store.put(JobKeys("job").commit(0), commit.to_json())
    with pytest.raises(ObjectDamaged, match="holds a key that names no file"):
        list(image_index.shards(store, spec))


@pytest.mark.parametrize("sha256", HASHES)
def test_a_hash_is_sixty_four_digits(sha256: str) -> None:
    with pytest.raises(ValidationError):
        File(name="weights.pt2", sha256=sha256, bytes=1)


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "x\n", "a\\b"])
def test_a_file_of_a_model_is_beside_its_record(name: str) -> None:
    with pytest.raises(ValidationError):
        File(name=name, sha256="0" * 64, bytes=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": {"name": "weights.safetensors", "sha256": "../../x", "bytes": 3}},
        {"weights": {"name": "../../x.safetensors", "sha256": "0" * 64, "bytes": 3}},
        {"name": "../m"},
        {"version": -1},
    ],
)
def test_a_draft_that_names_another_file_deletes_nothing(
    backend: Backend, settings: Settings, tmp_path: Path, changes: dict[str, object]
) -> None:
    # Given a cache with a file beside it, and a draft whose hash is the way there,
    cache = tmp_path / "cache"
    (cache / "weights").mkdir(parents=True)
    victim = tmp_path / "x.safetensors"
    victim.write_bytes(b"abc")
    backend.store.put(model_draft("m", 1), json.dumps(record(**changes)).encode())

    # if a worker looks at it, I expect a verdict and the file untouched.
    admit(backend, "m", 1, cache)
    verdict = Review(backend.store, "m", 1).verdict()
    assert verdict is not None and not verdict.ok
    assert "cannot be read" in verdict.reason
    assert victim.read_bytes() == b"abc"


@pytest.mark.parametrize("id", ["../models/m", "a/b", "a/../b", "", "A", "x" * 64, "a\n"])
def test_an_id_that_is_none_names_no_object(store: ObjectStore, id: str) -> None:
    with pytest.raises(UnknownJob):
        read_spec(store, id)


def test_what_is_written_is_whole_or_absent(tmp_path: Path) -> None:
    def break_off() -> None:
        with write_inside(tmp_path, "a/b.txt") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]
