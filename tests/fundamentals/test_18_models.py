"""Models have names and versions, and yours can be one of them: a file that torch wrote is enough, no code."""

from __future__ import annotations

import io
import json
import tarfile
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, JobConflict, ModelError, UnknownModel
from contract.models.registry import Model, Registry
from producer import Client
from tests.fundamentals.conftest import MODEL, Imagemill, Rows
from tests.mill import Mill
from tests.programs import Redness, export

LABELS = ("red", "blue")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one's own, as `torch.export.save` writes it."""
    return export(Redness().eval(), tmp_path_factory.mktemp("mine") / "redness.pt2", size=8)


@pytest.fixture(scope="module")
def model(client: Client, file: Path) -> Model:
    """The same, pushed."""
    return client.push_model("redness", file, labels=LABELS, size=8, license="MIT")


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A folder with a red and a blue picture."""
    made = tmp_path / "colours"
    made.mkdir()
    for name in LABELS:
        Image.new("RGB", (32, 32), name).save(made / f"{name}.png")
    return made


def test_push_a_model_and_label_with_it(client: Client, mill: Mill, model: Model, colours: Path, rows: Rows) -> None:
    # Given a model that a worker has run once, and that is published therefore,
    assert (model.ref, model.family, model.license) == ("redness@1", "program", "MIT")
    assert model in client.models()

    # if I label with it, and ask for its embeddings,
    job = mill.finished(client.classify(colours, model="redness", embed=True).id, timeout=30)

    # I expect its labels, and the features that it gives.
    found = rows(job)
    assert (job.state, job.model) == ("succeeded", "redness@1")
    assert {key: row["label"] for key, row in found.items()} == {"red.png": "red", "blue.png": "blue"}
    assert {len(row["embedding"]) for row in found.values()} == {2 * 8 * 8}
    assert {row["weights_sha256"] for row in found.values()} == {model.weights.sha256}


def test_a_version_never_changes_and_an_alias_moves(client: Client, model: Model, file: Path, colours: Path) -> None:
    # Given an alias for the first version,
    client.set_alias("redness@1", "best")
    assert client.model("redness@best") == model

    # if I push the file again, with other labels,
    second = client.push_model("redness", file, labels=("warm", "cold"), size=8)

    # I expect a second version beside the first, and the alias to stay until I move it.
    assert (second.ref, client.model("redness").ref) == ("redness@2", "redness@2")
    assert client.model("redness@1") == model
    assert client.model("redness@best") == model
    client.set_alias("redness@2", "best")
    assert client.aliases("redness") == {"best": 2}
    # A job pins what the alias stood for when it was made.
    assert client.classify(colours, model="redness@best").model == "redness@2"

    # A version can be removed when no alias stands for it. Its number does not come back.
    with pytest.raises(JobConflict, match="redness@best"):
        client.remove_model("redness@2")
    client.remove_alias("redness@best")
    client.remove_model("redness@2")
    assert client.model("redness").ref == "redness@1"
    assert client.push_model("redness", file, labels=LABELS, size=8).ref == "redness@3"


def test_a_model_that_does_not_do_what_its_record_says_is_not_published(
    client: Client, file: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        InvalidInput, match=r"The worker refused wrong@1.*tells 2 classes apart, its record names 3 labels"
    ):
        client.push_model("wrong", file, labels=("a", "b", "c"), size=8)
    torch.save(Redness(), tmp_path / "pickle.pt2")
    with pytest.raises(InvalidInput, match="holds no exported program"):
        client.push_model("wrong", tmp_path / "pickle.pt2", labels=LABELS, size=8)

    # Nothing of all that is listed, and nothing but numbers, reasons and who has the name is left.
    with pytest.raises(UnknownModel):
        client.model("wrong")
    left = {entry.key.rpartition("/")[2] for entry in client.backend.store.list("models/wrong/")}
    assert left == {"claim", "check.json", "owner.json"}


def test_a_push_is_answered_beside_a_big_job(client: Client, mill: Mill, file: Path, camera: ObjectStore) -> None:
    # Given a job of 500 shards, of which a few are done; it takes several times as long as a push on any machine,
    image, data = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(image, "PNG")
    with tarfile.open(fileobj=data, mode="w") as tar:
        for n in range(8000):
            member = tarfile.TarInfo(f"{n:04}.png")
            member.size = len(image.getvalue())
            tar.addfile(member, io.BytesIO(image.getvalue()))
    camera.put("big/all.tar", data.getvalue())
    job = client.classify("s3://camera/big/all.tar", model=MODEL, shard_size=16).id
    mill.begun(job, 32)

    # I expect a model that is pushed now to be published before the job ends.
    began = time.monotonic()
    client.push_model("impatient", file, labels=LABELS, size=8)
    waited, status = time.monotonic() - began, client.status(job)
    assert not status.ended, f"the push took {waited:.1f} s"
    client.cancel(job)


def test_a_model_comes_out_as_files(client: Client, model: Model, file: Path, tmp_path: Path) -> None:
    written = client.pull_model("redness@1", tmp_path / "out")

    assert {path.name for path in written} == {"model.json", "weights.pt2"}
    assert (tmp_path / "out" / "weights.pt2").read_bytes() == file.read_bytes()

    # A file that was damaged in the bucket does not come out.
    store = client.backend.store
    store.put("models/redness/1/weights.pt2", b"damaged")
    with pytest.raises(ModelError, match=r"weights\.pt2 of redness@1 hashes to"):
        client.pull_model("redness@1", tmp_path / "again")
    store.put("models/redness/1/weights.pt2", file.read_bytes())
    Registry(store).verify(model)


def test_the_same_by_command(imagemill: Imagemill, file: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("red\nblue\n")
    models = partial(imagemill, "models")
    push = ("push", "by-command", file, "--labels", tmp_path / "labels.txt", "--size", "8")
    code, out, _ = models(*push, "--json")
    assert (code, json.loads(out)["ref"]) == (0, "by-command@1")

    code, out, err = models(*push, "--mean", "0", "--std", "0")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("imagemill: --std:")

    assert models("alias", "by-command@1", "best")[1] == "by-command@best  by-command@1\n"
    code, out, _ = models("list")
    assert code == 0
    (line,) = (line for line in out.splitlines() if line.startswith("by-command@1"))
    assert line.split()[:5] == ["by-command@1", "best", "classify", "program", "2"]
    assert f"{MODEL}@1" in out

    assert models("alias", "--remove", "by-command@best", "--json")[1] == '{"name": "by-command", "aliases": {}}\n'
    assert models("rm", "by-command@1")[0] == 0
