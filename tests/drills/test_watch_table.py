"""A watch with everything that follows a segment: a Delta table, an archive, and a command; as a user reads them."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pytest
from PIL import Image

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from producer.jobs.watches import Watched
from tests.mill import Mill
from tests.waiting import wait_until

IMAGES = 5


def test_a_segment_is_in_the_table_the_archive_and_the_next_job(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    with Mill(tmp_path, 1, "tests.faults.eager", watch_segment_images=IMAGES).running() as mill:
        # Given a watch with `--delta`, `--archive` and `--then`,
        client = mill.client
        camera, cold = mill.bucket("camera"), mill.bucket("cold")
        command = {"model": "fashion-gan", "gate": "fashion-cnn", "per_class": 1, "classes": ["Bag"]}
        client.add_schedule("after", "synthesize", command, cron="0 0 29 2 *")
        words = ["s3://camera/in/", "--model", "fashion-cnn", "--every", "500ms", "--overwrites", "again"]
        code, _, told = mill.imagemill(
            *("watch", "add", "camera", *words, "--delta", "--archive", "s3://cold/kept/", "--then", "after")
        )
        assert code == 0, told
        before = shown(mill)
        assert (before.delta, before.delta_version, before.archived, before.then_job) == (True, None, 0, None)

        # if as many images come as a segment has,
        for n in range(IMAGES):
            camera.put(f"in/{n}.png", png(n))

        def done() -> Watched | None:
            found = shown(mill)
            return found if found.delta_version and found.archived == IMAGES and found.then_job else None

        found = wait_until(done, 120, "table, archive and command")

        # I expect all three, where `watch show` and the metrics say,
        assert (found.table_waiting, found.archive_waiting, found.delta_version) == (0, 0, 1)
        assert found.then_job is not None and client.status(found.then_job).kind == "synthesize"
        assert len(list(cold.list("kept/"))) == IMAGES and not list(camera.list("in/"))
        code, out, _ = mill.imagemill("watch", "show", "camera")
        for line in (f"table       {found.table}", "delta       version 1", f"{IMAGES} images moved", found.then_job):
            assert line in out, out
        # the same rows in the Delta table, in the Hive table and in the results.
        wanted = sorted((row["key"], row["label"], row["etag"]) for row in client.watched_rows("camera"))
        assert len(wanted) == IMAGES
        assert sorted(delta_rows(deltalake, mill, found.table)) == wanted
        folder = downloaded(mill.client.backend.store, found.table, tmp_path / "table")
        hive = pa.dataset.dataset(folder, partitioning="hive", exclude_invalid_files=True).to_table()
        assert sorted(zip(*(hive[name].to_pylist() for name in ("key", "label", "etag")), strict=True)) == wanted
        assert duck_rows(folder) in (None, wanted)


def shown(mill: Mill) -> Watched:
    """What `imagemill watch show --json` prints."""
    code, out, told = mill.imagemill("watch", "show", "camera", "--json")
    assert code == 0, told
    return Watched.model_validate(json.loads(out))


def png(value: int) -> bytes:
    target = io.BytesIO()
    Image.new("L", (28, 28), value * 40).save(target, "PNG")
    return target.getvalue()


def delta_rows(deltalake: Any, mill: Mill, table: str) -> list[tuple[str, str, str]]:
    """The rows of a Delta table, as `deltalake` reads it without us."""
    settings = mill.settings
    options = {
        "aws_endpoint_url": f"http://{settings.s3_endpoint}",
        "aws_region": "us-east-1",
        "aws_access_key_id": settings.s3_access_key,
        "aws_secret_access_key": settings.s3_secret_key.get_secret_value(),
        "allow_http": "true",
    }
    opened = deltalake.DeltaTable(table.rstrip("/"), storage_options=options)
    query = deltalake.QueryBuilder().register("t", opened).execute("select key, label, etag from t")
    return [(row["key"], row["label"], row["etag"]) for row in pa.table(query).to_pylist()]


def downloaded(store: ObjectStore, table: str, folder: Path) -> str:
    """The Parquet files of a table, on this machine."""
    bucket, prefix = parse_s3(table)
    for entry in store.list(prefix, bucket=bucket):
        if entry.key.endswith(".parquet"):
            path = folder / entry.key.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(entry.key, bucket=bucket))
    return str(folder)


def duck_rows(folder: str) -> list[tuple[str, str, str]] | None:
    """The rows of a Hive table as DuckDB reads it; None where it is not installed."""
    if importlib.util.find_spec("duckdb") is None:
        return None
    duckdb: Any = importlib.import_module("duckdb")
    source = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
    found: list[tuple[str, str, str]] = duckdb.sql(f"SELECT key, label, etag FROM {source} ORDER BY key").fetchall()
    return found
