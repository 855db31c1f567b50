"""The policies that ship follow the keys, and whole jobs run under them, each role refused what is another's."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from contract import keys
from contract.backend.objects import ObjectStore
from contract.errors import InvalidSettings
from contract.keys.bucket import MODELS
from contract.keys.index import deleting
from contract.keys.jobs import JobKeys
from contract.keys.models import model_record
from contract.keys.schedules import schedule_record, schedule_tick
from contract.keys.tokens import token_record
from contract.keys.uploads import upload_prefix
from contract.keys.watches import watch_feed
from contract.models.owners import BUILT_IN
from deploy.policies.roles import FOLDER, ROLES, document, to_json
from tests.mill import Mill, check_complete, identified
from tests.waiting import wait_until

MODEL = "efficientnet-lite0"
SECRETS = {role: (f"KEYOF{role.upper()}", f"secret-of-the-{role}") for role in ROLES}


@pytest.mark.parametrize("role", ROLES)
def test_what_ships_is_what_the_keys_say(role: str) -> None:
    assert (FOLDER / f"{role}.json").read_text("utf-8") == to_json(document(role)), (
        "the keys or the roles have changed: `python -m deploy.policies all` writes the files anew"
    )


ARGUMENTS = {
    "shard": 42,
    "retry": 1,
    "suffix": ".csv",
    "number": 3,
    "images": 100,
    "epoch": 2,
    "run": 1,
    "name": "birds",
    "version": 7,
    "file": "weights.pt2",
    "alias": "live",
    "gate_sha256": "0" * 64,
    "job": "a-job",
    "dataset": "garments",
    "stamp": "20261124t0100",
    "digest": "0" * 64,
    "id": "a-job",
    "of": "another-job",
    "root": "watches/birds/20261124t010000000/",
    "by": "a-job",
    "ended_ms": 1_795_600_000_000,
    "due_ms": 1_795_600_000_000,
    "own": True,
    "image": "0" * 24,
    "undone": False,
    "owner": "ann",
    "place": "0123456789abcdef/0123456789abcdef",
    "endpoint": f"wh_{'0' * 20}",
    "message": f"8204392387654-{'0' * 24}",
    "at_ms": 1_795_600_000_000,
}
NO_KEYS = {"root", "retry", "retry_prefix"}
"""A prefix of everything, and what only older versions wrote."""


def every_key() -> Iterator[tuple[str, str]]:
    """Each key that `contract.keys` can make, with its name there; a prefix stands for a key below it."""
    job = JobKeys("a-job")
    for name, member in inspect.getmembers(JobKeys):
        if name.startswith("_") or name in NO_KEYS:
            continue
        if isinstance(member, property):
            yield name, getattr(job, name)
        elif isinstance(member, FunctionType):
            yield name, member(job, **_arguments(partial(member, job)))
    for subject in pkgutil.iter_modules(keys.__path__):
        module = importlib.import_module(f"{keys.__name__}.{subject.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            makes_a_key = function.__module__ == module.__name__ and not name.startswith(
                ("parse_", "shard_", "child_", "content_", "message_", "segment_", "watch_table", "record_name")
            )
            if makes_a_key and inspect.signature(function).return_annotation == "str":
                yield name, function(**_arguments(function))


def _arguments(function: object) -> dict[str, Any]:
    return {name: ARGUMENTS[name] for name in inspect.signature(function).parameters}  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "key"), list(every_key()))
def test_every_key_has_somebody_who_may_write_it(name: str, key: str) -> None:
    below = f"{key}x" if key.endswith(("/", "-")) else key
    writers = [role.name for role in ROLES.values() if any(fnmatchcase(below, one) for one in role.writes)]
    assert writers, f"no role may write {below}; say in deploy/policies/roles.py who does"


def test_what_is_apart_stays_apart() -> None:
    def may(role: str, key: str) -> bool:
        found = ROLES[role]
        return any(fnmatchcase(key, one) for one in found.writes) and not any(fnmatchcase(key, n) for n in found.never)

    job = JobKeys("a-job")
    assert [role for role in ROLES if may(role, job.commit(1))] == ["worker"]
    assert [role for role in ROLES if may(role, job.tar(1))] == ["producer", "web"]
    assert [role for role in ROLES if may(role, schedule_record("nightly"))] == ["producer", "web"]
    assert [role for role in ROLES if may(role, model_record(MODEL, 2))] == ["worker"]
    assert [role for role in ROLES if may(role, model_record("birds", 2))] == ["producer", "web", "worker"]
    assert [role for role in ROLES if may(role, token_record("0" * 12))] == ["operator"]
    assert [role for role in ROLES if may(role, upload_prefix("ann", "x"))] == ["web"]
    assert [role for role in ROLES if may(role, job.review("0" * 24, "x"))] == ["producer", "web"]
    assert [role for role in ROLES if may(role, job.reviewed("0" * 16))] == ["producer", "web", "controller"]
    assert not any(fnmatchcase(job.review("0" * 24, "x"), one) for one in ROLES["web"].deletes), "append-only"


def test_a_policy_for_other_buckets_is_a_command() -> None:
    command = [sys.executable, "-m", "deploy.policies", "worker", "--bucket", "mill", "--source", "photos"]
    done = subprocess.run([*command, "--results", "s3://labels/2026/"], capture_output=True, text=True, check=True)
    listed, read, write, _ = json.loads(done.stdout)["Statement"]
    assert listed["Resource"] == [f"arn:aws:s3:::{name}" for name in ("mill", "photos", "labels")]
    assert "arn:aws:s3:::photos/*" in read["Resource"] and "arn:aws:s3:::photos/*" not in write["Resource"]
    assert "arn:aws:s3:::labels/2026/*" in write["Resource"]


MOVES = ("s3://photos/in/", "s3://cold/done/")
MOVER = ("KEYOFMOVER", "secret-of-the-mover")
"""A controller whose watch has an archive."""


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """A stack of three identities, each with its policy as it ships, on a server that enforces them."""
    data = tmp_path_factory.mktemp("mill")
    config = data / "identities.json"
    config.write_text(
        json.dumps(
            {
                "identities": [
                    {"name": role, "credentials": [{"accessKey": a, "secretKey": s}], "policyNames": [role]}
                    for role, (a, s) in {**SECRETS, "mover": MOVER}.items()
                ],
                "policies": [
                    *({"name": role, "content": (FOLDER / f"{role}.json").read_text()} for role in ROLES),
                    {"name": "mover", "content": to_json(document("controller", moves=[MOVES]))},
                ],
            }
        )
    )
    made = Mill(data, workers=1, s3_options=[f"-s3.config={config}"], identities=SECRETS)
    with made.running():
        yield made


def test_jobs_run_under_the_policies_that_ship(
    mill: Mill, photos: dict[str, Path], crops: Path, tmp_path: Path
) -> None:
    # Given producer, controller and worker, each with an identity of its own,
    client = mill.client
    folder = tmp_path / "photos"
    folder.mkdir()
    names = ["koala", "espresso", "goldfish"]
    for name in names:
        (folder / f"{name}.jpg").write_bytes(photos[name].read_bytes())
    (folder / "broken.jpg").write_bytes(b"no image")
    # if I label a folder, which the producer packs, I expect every row,
    packed = client.classify(folder, model=MODEL, max_errors="100%").id
    assert mill.finished(packed).state == "succeeded"
    check_complete(client, packed, [f"{name}.jpg" for name in [*names, "broken"]])
    # a page, which a worker makes, a retry, which reopens the job,
    assert "<html" in client.report(packed)
    client.retry(packed)
    assert mill.finished(packed).errors == 1
    # what came over the HTTP API and from the folder of a watch,
    with closing(ObjectStore(mill.settings)) as root:
        for place in (upload_prefix("ann", "0" * 16), watch_feed("camera")):
            root.put(f"{place}koala.jpg", photos["koala"].read_bytes())
            brought = client.classify(f"s3://{mill.settings.bucket}/{place}", model=MODEL).id
            assert (mill.finished(brought).state, mill.finished(brought).errors) == ("succeeded", 0)
    # and as much of a job that the controller plans, of a schedule, and of one that is canceled.
    prefix = f"s3://{mill.settings.bucket}/jobs/{packed}/in/"
    client.add_schedule(
        "nightly", "classify", {"source": prefix, "model": MODEL, "max_errors": "100%"}, cron="0 2 * * *"
    )
    planned = client.run_schedule("nightly").id
    assert mill.finished(planned).state == "succeeded"
    with mill.paused("worker-0"):
        client.cancel(client.classify(folder, model=MODEL).id)
    client.remove_schedule("nightly")
    # A producer may not delete what others wrote; it asks, and the controller deletes the job, which it may.
    (asked,) = client.remove_jobs([planned])
    assert asked.what == "left to the controller"
    wait_until(lambda: not client.backend.store.exists(deleting(planned)), 60, f"{planned} to be deleted")
    assert planned not in [one.id for one in client.jobs(limit=50)]
    # A training publishes a model, which generates images that the producer checks.
    settings = ["size=16", "batch_size=32", "latent=8", "ema=0.9"]
    assert (
        mill.finished(client.train("vae", crops, name="painter", epochs=1, settings=settings).id).state == "succeeded"
    )
    assert mill.finished(client.generate("painter", count=8).id).state == "succeeded"
    assert client.set_alias("painter@1", "live").ref == "painter@1"
    client.remove_alias("painter@live")
    client.remove_model("painter@1")
    for name in ("controller", "worker-0", "clock"):
        assert "AccessDenied" not in mill.log(name), name


def test_a_dataset_grows_under_the_policies_that_ship(mill: Mill) -> None:
    # Given a dataset that two jobs extend, of which the second compares with what the first wrote,
    client = mill.client
    asked: dict[str, Any] = {
        "gate": "fashion-cnn",
        "min_score": 0.5,
        "dedup": 0.001,
        "shard_size": 64,
        "classes": ["Sneaker"],
    }
    for seed in (1, 2):
        job = client.synthesize("fashion-gan", extend="garments", per_class=4, seed=seed, **asked).id
        end = mill.finished(job)
        assert (end.state, end.reason) == ("succeeded", None)
    # if it is verified, exported, judged by and removed, I expect all of it to be allowed.
    assert client.dataset("garments").images == 8
    assert mill.finished(client.verify("dataset:garments").id).state == "succeeded"
    assert mill.finished(client.evaluate("fashion-cnn", "dataset:garments@1").id).state == "succeeded"
    client.remove_dataset("garments")
    assert client.datasets() == []
    for name in ("controller", "worker-0", "clock"):
        assert "AccessDenied" not in mill.log(name), name


FORBIDDEN = {
    "producer": [
        "jobs/a-job/commit/shard-000000.json",
        "jobs/a-job/out/shard-000000.parquet",
        "jobs/a-job/train/history.json",
        *(model_record(name, 2) for name in BUILT_IN),
        "elsewhere/x",
    ],
    "web": ["jobs/a-job/commit/shard-000000.json", token_record("0" * 12), "elsewhere/x"],
    "operator": ["jobs/a-job/spec.json", schedule_record("nightly"), model_record("birds", 1), "elsewhere/x"],
    "controller": [
        "jobs/a-job/commit/shard-000000.json",
        "jobs/a-job/in/source.csv",
        model_record("birds", 1),
        schedule_record("nightly"),
        "elsewhere/x",
    ],
    "worker": [
        "jobs/a-job/spec.json",
        "jobs/a-job/in/source.csv",
        schedule_record("nightly"),
        schedule_tick("nightly", "20261124t0100"),
        "elsewhere/x",
    ],
}


@pytest.mark.parametrize(("role", "key"), [(role, key) for role in ROLES for key in FORBIDDEN[role]])
def test_each_role_is_refused_what_is_anothers(mill: Mill, role: str, key: str) -> None:
    # Given an object of another role,
    with (
        closing(ObjectStore(mill.settings)) as root,
        closing(ObjectStore(identified(mill.settings, *SECRETS[role]), patience=0)) as store,
    ):
        root.put(key, b"theirs")
        # I expect that this role can neither write nor make it, nor delete it unless it tidies up there.
        with pytest.raises(InvalidSettings):
            store.put(key, b"mine")
        with pytest.raises(InvalidSettings):
            store.put_if_absent(f"{key}-fresh", b"mine")
        if not any(fnmatchcase(key, one) for one in ROLES[role].deletes) or key.startswith(MODELS):
            with pytest.raises(InvalidSettings):
                store.delete(key)
        assert root.get(key) == b"theirs"
        root.delete(key)


@pytest.mark.parametrize("role", ROLES)
def test_no_role_sees_another_bucket_or_makes_one(mill: Mill, role: str) -> None:
    other = mill.settings.model_copy(update={"bucket": "other-bucket"})
    with closing(ObjectStore(other)) as root:
        root.ensure_bucket()
        root.put("x", b"theirs")
    with closing(ObjectStore(identified(other, *SECRETS[role]), patience=0)) as store:
        for act in (lambda: list(store.list("")), lambda: store.get("x"), lambda: store.put("x", b"mine")):
            with pytest.raises(InvalidSettings):
                act()
    fresh = other.model_copy(update={"bucket": "fresh-bucket"})
    with closing(ObjectStore(identified(fresh, *SECRETS[role]), patience=0)) as store, pytest.raises(InvalidSettings):
        store.ensure_bucket()


def test_a_controller_may_move_to_an_archive_and_nothing_more(mill: Mill) -> None:
    # Given a watch that moves from one bucket to another, and an object that has a label
    with closing(ObjectStore(mill.settings)) as root:
        for bucket in ("photos", "cold"):
            with closing(ObjectStore(mill.settings.model_copy(update={"bucket": bucket}))) as other:
                other.ensure_bucket()
        root.put("in/a.jpg", b"a", bucket="photos")
        root.put("in/b.jpg", b"b", bucket="photos")
        _, etag = root.stat("in/a.jpg", bucket="photos")
        with closing(ObjectStore(identified(mill.settings, *MOVER), patience=0)) as store:
            # I expect its controller to copy it and to delete it there,
            store.copy("in/a.jpg", "done/a.jpg", bucket="photos", to_bucket="cold", etag=etag)
            assert store.stat("done/a.jpg", bucket="cold") == (1, etag)
            store.delete("in/a.jpg", bucket="photos", etag=etag)
            assert not root.exists("in/a.jpg", bucket="photos")
            # and neither to write where images come in, nor to delete from the archive.
            for act in (
                lambda: store.put("in/b.jpg", b"mine", bucket="photos"),
                lambda: store.put("b.jpg", b"mine", bucket="cold"),
                lambda: store.delete("done/a.jpg", bucket="cold"),
            ):
                with pytest.raises(InvalidSettings):
                    act()
        # A worker reads both, and writes to neither.
        found = document("worker", moves=[MOVES])["Statement"]
        _, read, write, delete = (statement["Resource"] for statement in found)
        both = {"arn:aws:s3:::photos/in/*", "arn:aws:s3:::cold/done/*"}
        assert both <= set(read) and not both & {*write, *delete}
