"""Segments reach the table of their watch once their jobs have ended, by a child that may die."""

from __future__ import annotations

import os
from itertools import pairwise
from types import SimpleNamespace

import pytest

from contract.backend.objects import ObjectStore
from contract.jobs import lifecycle
from contract.jobs.commits import iter_listed
from contract.jobs.lifecycle import Backend
from contract.jobs.specs import Classify, parse_spec
from contract.settings import Settings
from contract.watches.segments import read_segment
from contract.watches.tables import forget_segment, table_of, written_segments
from tests.worker.control.watching.conftest import Camera
from tests.worker.control.watching.test_table import BEGIN, commit, row
from worker.control.watching import afterwards
from worker.control.watching import tables as module
from worker.control.watching.afterwards import DONE, FAILED, LATER
from worker.control.watching.delta import DeltaLog
from worker.control.watching.table import read_manifest
from worker.control.watching.tables import Tables


def killed(settings: Settings, table: str, segment: int, job: str, run: int) -> None:
    os.kill(os.getpid(), 9)


def refused(settings: Settings, table: str, segment: int, job: str, run: int) -> None:
    raise SystemExit(FAILED)


def closed(camera: Camera, backend: Backend) -> tuple[str, str]:
    """Plan, label and close a segment; return its job, whose end is left to the test, and the table."""
    camera.put("a.jpg", "b.jpg")
    controller = camera.controller(watch_segment_seconds=60)
    controller.round()
    camera.now += 100
    controller.round()
    job = camera.watch.job(0)
    commit(backend.store, job, 0, [row(1, BEGIN), row(2, BEGIN)])
    found = table_of(backend.store, job, f"s3://{backend.store.bucket}/jobs/{job}/out/")
    assert found is not None and found[1] == 0
    return job, found[0]


def test_a_segment_is_written_once_its_job_has_ended(camera: Camera, backend: Backend, settings: Settings) -> None:
    # Given a segment that is closed, whose job has not ended
    job, table = closed(camera, backend)
    tables = Tables(backend.store, settings)
    tables.look(camera.watch)
    assert written_segments(backend.store, table) == set()
    # if it ends, I expect the segment in the table
    lifecycle.close(backend, job, "succeeded")
    tables.look(camera.watch)
    manifest = read_manifest(backend.store, table, 0)
    assert manifest is not None and (manifest.job, manifest.rows) == (job, 2)
    # and again after its rows were made anew
    spec = parse_spec(read_segment(backend.store, camera.watch.root, 0).spec)
    assert isinstance(spec, Classify) and [found.shard for found in iter_listed(backend.store, job)] == [0]
    forget_segment(backend.store, job, spec.output)
    assert written_segments(backend.store, table) == set()
    tables.look(camera.watch)
    assert written_segments(backend.store, table) == {0}


def test_a_child_that_dies_is_no_harm(camera: Camera, backend: Backend, settings: Settings) -> None:
    job, table = closed(camera, backend)
    lifecycle.close(backend, job, "succeeded")
    for serve in (killed, refused):
        tables = Tables(backend.store, settings, serve=serve)
        tables.look(camera.watch)
        assert written_segments(backend.store, table) == set()
        # It is left alone for a while, and said to wait
        tables.serve = module.serve
        tables.look(camera.watch)
        assert written_segments(backend.store, table) == set()
        assert tables.figures(camera.watch) == {"table_waiting": 1}
    tables = Tables(backend.store, settings)
    tables.look(camera.watch)
    assert written_segments(backend.store, table) == {0}
    assert tables.figures(camera.watch) == {"table_waiting": 0}


def test_what_waits_is_tried_less_and_less_often(
    camera: Camera, backend: Backend, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a segment whose child says each time that it must wait, as it does if the fault is one for ever,
    job, table = closed(camera, backend)
    lifecycle.close(backend, job, "succeeded")
    now, tried = [1000.0], list[float]()
    monkeypatch.setattr(afterwards, "time", SimpleNamespace(monotonic=lambda: now[0]))
    tables = Tables(backend.store, settings)
    monkeypatch.setattr(tables, "_run", lambda *_: tried.append(now[0]) or LATER)
    for _ in range(100):
        tables.look(camera.watch)
        now[0] += 30
    # I expect it to be tried soon at first, and then every ten minutes,
    pauses = [after - before for before, after in pairwise(tried)]
    assert pauses == [30, 60, 120, 240, 480, 600, 600, 600]
    # and once it can be done, at once again.
    monkeypatch.undo()
    tables = Tables(backend.store, settings)
    tables._rest(job, LATER)
    tables._rest(job, DONE)
    tables.look(camera.watch)
    assert written_segments(backend.store, table) == {0}


def test_the_child_commits_to_the_delta_log_of_a_watch_that_has_one(
    camera: Camera, backend: Backend, settings: Settings
) -> None:
    pytest.importorskip("deltalake")
    job, table = closed(camera, backend)
    lifecycle.close(backend, job, "succeeded")
    Tables(backend.store, settings).look(camera.watch.model_copy(update={"delta": True}))
    assert written_segments(backend.store, table) == {0}
    (file,) = DeltaLog(settings, table).files(0)
    assert file.rows == 2 and DeltaLog(settings, table).committed(0) == 0


def test_the_table_lies_beside_the_rows(store: ObjectStore) -> None:
    job = "camera-20261126t083012000-000042"
    assert table_of(store, job, f"s3://lake/labels/{job}/") == ("s3://lake/labels/camera-20261126t083012000/", 42)
    own = f"s3://{store.bucket}/tables/camera-20261126t083012000/"
    assert table_of(store, job, f"s3://{store.bucket}/jobs/{job}/out/") == (own, 42)
    assert table_of(store, "nightly-20261126t0830", "s3://lake/x/") is None
