"""A Parquet manifest that ends the process that reads it: that process is a child, and its parent names the file."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.backend.objects import ObjectStore
from contract.data.children import parquet as parquet_child
from contract.data.children import process
from contract.data.children.parquet import rows_apart
from contract.errors import InvalidSource
from contract.jobs.specs import Source
from producer.sources.manifests import rows
from tests.drills.fuzz import MemoryStore, manifests, mutated
from worker.sources import manifest as worker_manifest
from worker.sources.lister import labelled_items

ADDRESS = "s3://b/m.parquet"


def listed(data: bytes) -> list[str]:
    """What a worker that trains from a manifest gets."""
    store = cast("ObjectStore", MemoryStore({"m.parquet": data}))
    return [item.uri for item in labelled_items(store, Source(kind="manifest", uri=ADDRESS, label=ADDRESS))]


def parquet(path: Path, count: int = 3) -> Path:
    uris = [f"s3://b/{n}.png" for n in range(count)]
    pq.write_table(pa.table({"uri": uris, "label": ["cat"] * count}), path)
    return path


def fatal() -> bytes:
    """The case of the fuzzer on which Arrow throws where nothing can catch it."""
    rng = random.Random("manifests 9415")
    _, _, data = rng.choice(manifests())
    return mutated(data, rng, [data for _, _, data in manifests()])


def outcome(read: Callable[[], list[Any]], name: str) -> bool:
    """Return whether reading gives rows, or an error of ours that names the file."""
    try:
        return len(read()) > 0
    except InvalidSource as error:
        return name in str(error)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes of every child, of the producer's and of the worker's."""
    found: list[int] = []
    popen = subprocess.Popen

    def noted(*args: Any, **more: Any) -> Any:
        process = popen(*args, **more)
        found.append(process.pid)
        return process

    monkeypatch.setattr(subprocess, "Popen", noted)
    return found


def test_a_file_that_aborts_arrow_ends_neither_worker_nor_producer(tmp_path: Path, started: list[int]) -> None:
    data = fatal()
    path = tmp_path / "m.parquet"
    path.write_bytes(data)

    # Given a file that ends the process of some builds of Arrow, if a worker or a producer reads it, I expect this
    # process to live, and a sentence that names the file, or rows where Arrow can read it.
    assert outcome(lambda: listed(data), ADDRESS)
    assert outcome(lambda: list(rows(path)), str(path))
    assert len(started) == 2, "one child each"


@pytest.mark.parametrize("side", ["worker", "producer"])
def test_a_child_that_is_killed_is_a_sentence(
    tmp_path: Path, side: str, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given more rows than a pipe holds, so that the child is at work when it is killed behind the first row,
    path = parquet(tmp_path / "m.parquet", 200_000)
    if side == "worker":
        store = cast("ObjectStore", MemoryStore({"m.parquet": path.read_bytes()}))
        source = Source(kind="manifest", uri=ADDRESS, label=ADDRESS)
        found: Iterator[object] = labelled_items(store, source)
    else:
        found = rows(path)
    next(found)
    (pid,) = started
    os.kill(pid, signal.SIGKILL)

    # I expect a sentence that names the file and the reason, and no child left behind.
    name = ADDRESS if side == "worker" else path
    with pytest.raises(InvalidSource) as refused:
        list(found)
    assert str(refused.value) == (
        f"{name} is no readable Parquet file: reading it ended the process that tried (SIGKILL); try again if the "
        "machine was short of memory, else write it again."
    )
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def child_that(code: str) -> parquet_child.Start:
    """A child that was taken over: `say` writes what it likes as a message."""
    lines = "import os, sys, time\nfrom contract.data.children.messages import send\n"
    lines += "def say(head, data=b''): send(1, head, [data])\n"
    return lambda file, columns: process.start(["-c", lines + code], stdin=file)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("os.abort()", "ended the process that tried (SIGABRT)"),
        ("say({'rows': 1}, b'[{}]'); os.write(1, b'\\x09\\0\\0\\0cu')", "ended the process that tried (status 0)"),
        ("print(17)", "ended the process that tried"),
        ("say({'rows': 1}, b'[' * 100_000)", "ended the process that tried"),
        ("say({'rows': 1}, b'[17]')", "ended the process that tried"),
        ("say({'rows': 1}, b'{}')", "ended the process that tried"),
        ("say({})", "ended the process that tried"),
        ("say({'rows': 1}, bytes(2**25))", "ended the process that tried"),
        ("while True: sys.stdout.write('x' * 2**20)", "ended the process that tried"),
        ("time.sleep(600)", "took 2 s without a row"),
    ],
)
def test_nothing_that_a_child_does_harms_its_parent(tmp_path: Path, code: str, says: str) -> None:
    # Only the one that says nothing meets a deadline: the others have time to start on a busy machine.
    stall_seconds = 2.0 if "sleep" in code else 60.0
    with parquet(tmp_path / "m.parquet").open("rb") as file:
        found = rows_apart(file, ["uri"], "m.parquet", start=child_that(code), stall_seconds=stall_seconds)
        with pytest.raises(InvalidSource) as refused:
            list(found)
    assert "m.parquet" in str(refused.value)
    assert says in str(refused.value)


def test_a_column_of_another_type_is_no_address(tmp_path: Path) -> None:
    # Given addresses that are bytes, which JSON lacks, if I read them, I expect the row to be refused by its number.
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"uri": pa.array(["s3://b/1.png", b"s3://b/2.png"], pa.binary()), "label": [1, 2]}), path)
    with pytest.raises(InvalidSource, match=r"^Row 1 of .* has neither"):
        list(rows(path))
    with pytest.raises(InvalidSource, match=r"^Row 1 of .* has neither"):
        listed(path.read_bytes())


def test_a_worker_confines_the_child(tmp_path: Path) -> None:
    # Given the child of a worker and more rows than a pipe holds, if I look at its limits, I expect those of memory.
    with parquet(tmp_path / "m.parquet", 200_000).open("rb") as file:
        child = process.Process(worker_manifest._confined(file, ["uri"]))
        try:
            assert child.receive(seconds=60.0)[0] == {"columns": ["uri"]}
            limits = Path(f"/proc/{child.pid}/limits")
            if not limits.exists():
                pytest.skip("this system does not show the limits of a process")
            (line,) = [line for line in limits.read_text().splitlines() if line.startswith("Max data size")]
            assert int(line.split()[3]) <= 2 * 2**30
        finally:
            child.end(0)


def test_a_planner_reads_in_its_own_process(
    started: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(worker_manifest, "is_expendable", lambda: True)
    assert listed(parquet(tmp_path / "m.parquet").read_bytes()) == [f"s3://b/{n}.png" for n in range(3)]
    assert started == []
