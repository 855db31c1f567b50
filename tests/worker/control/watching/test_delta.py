"""The table of a watch as a Delta table: each segment is one version of it, whoever dies and whoever does it again."""

from __future__ import annotations

import ssl
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from contract.backend.objects import ObjectStore
from contract.backend.wire import store_address
from contract.errors import InvalidSettings, StoreUnavailable
from contract.jobs.results import rows as job_rows
from contract.settings import Settings
from tests.interleaved import KilledError, killed_at
from tests.wires import tls_before
from tests.worker.control.watching.test_table import BEGIN, MANIFEST, SCHEMA, commit, counted, labelled, row, table_of
from worker.control.watching.delta import DeltaLog
from worker.control.watching.table import compact, read_manifest

deltalake = pytest.importorskip("deltalake")


@pytest.fixture
def log(settings: Settings, store: ObjectStore) -> DeltaLog:
    return DeltaLog(settings, table_of(store))


def read(log: DeltaLog) -> list[dict[str, object]]:
    """The rows, as Delta's own reader sees them, each in the partition of its time."""
    table = log._open()
    assert table is not None
    batches = pa.RecordBatchReader.from_stream(deltalake.QueryBuilder().register("t", table).execute("select * from t"))
    found = batches.read_all().to_pylist()
    for one in found:
        assert (one.pop("dt"), one.pop("hour")) == (one["event_time"].date(), one["event_time"].hour)
    return found


def versions(log: DeltaLog) -> int:
    """Transactions that added files."""
    table = log._open()
    assert table is not None
    return sum(one["operation"] == "WRITE" for one in table.history())


def test_each_segment_is_one_version(store: ObjectStore, log: DeltaLog) -> None:
    made = [*labelled(store, "seg-0"), *labelled(store, "seg-1", hours=1)]
    # Later segments may end first.
    for number in (1, 0, 0, 1):
        compact(store, table_of(store), number, f"seg-{number}", 0, delta=log)
    rows = [*job_rows(store, "seg-0"), *job_rows(store, "seg-1")]
    assert counted(read(log)) == counted(rows) == counted(made)
    assert versions(log) == 2


def test_killed_anywhere_it_is_committed_once(store: ObjectStore, log: DeltaLog) -> None:
    # Given a process that dies before each object, before the commit, and between the commit and the manifest
    made = labelled(store, "seg-0")
    for step in range(1, 7):
        with pytest.raises(KilledError):
            compact(store, table_of(store), 0, "seg-0", 0, delta=log, check=killed_at(step))
        assert not store.exists(MANIFEST)
    assert log.committed(0) == 0, "the last one died behind the commit"
    before = {entry.key: entry.etag for entry in store.list("tables/camera/dt=")}
    # if it is done again, I expect one version, files that nobody wrote again, and a manifest that names them
    manifest = compact(store, table_of(store), 0, "seg-0", 0, delta=log)
    assert versions(log) == 1 and counted(read(log)) == counted(made)
    assert {entry.key: entry.etag for entry in store.list("tables/camera/dt=")} == before
    assert (manifest.rows, len(manifest.files)) == (600, 4) and read_manifest(store, table_of(store), 0) == manifest


def test_two_at_once_commit_once(store: ObjectStore, log: DeltaLog, settings: Settings) -> None:
    made = labelled(store, "seg-0")
    barrier, failed = threading.Barrier(2), list[StoreUnavailable]()

    def run() -> None:
        barrier.wait()
        try:
            compact(store, table_of(store), 0, "seg-0", 0, delta=DeltaLog(settings, table_of(store)))
        except StoreUnavailable as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Who was late finds the commit of the other when it is done again.
    compact(store, table_of(store), 0, "seg-0", 0, delta=log)
    assert counted(read(log)) == counted(made) and versions(log) == 1


def test_rows_of_a_retry_take_the_place_of_earlier_ones(store: ObjectStore, log: DeltaLog) -> None:
    made = labelled(store, "seg-0", shards=2, hours=1)
    other = labelled(store, "seg-1", shards=1, hours=1)
    for number in (0, 1):
        compact(store, table_of(store), number, f"seg-{number}", 0, delta=log)
    again = [{**one, "status": "ok", "score": 1.0} for one in made[50:]]
    commit(store, "seg-0", 1, again, retry=1)
    compact(store, table_of(store), 0, "seg-0", 1, delta=log)
    assert counted(read(log)) == counted([*made[:50], *again, *other])
    # Nobody else sees the old files either.
    keys = [entry.key for entry in store.list("tables/camera/dt=") if "/part-000000" in entry.key]
    assert keys and all("-r1-" in key for key in keys)
    # One that was late with the first run changes nothing.
    store.delete(MANIFEST)
    compact(store, table_of(store), 0, "seg-0", 0, delta=log)
    assert counted(read(log)) == counted([*made[:50], *again, *other])


def test_where_delta_is_not_installed_one_sentence_says_so(
    store: ObjectStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(InvalidSettings, match=r"pip install 'imagemill\[delta\]' for the controllers"):
        DeltaLog(settings, table_of(store))


def test_a_column_that_later_segments_have_is_added(store: ObjectStore, log: DeltaLog) -> None:
    # Given a segment whose rows have no embedding, as before an upgrade, and one whose rows have one and no score,
    commit(store, "seg-0", 0, [row(1, BEGIN)], columns=without("embedding"))
    commit(store, "seg-1", 0, [row(2, BEGIN)], columns=without("score"))
    for number in (0, 1):
        compact(store, table_of(store), number, f"seg-{number}", 0, delta=log)
    # I expect one table, with nothing where a segment has no such column,
    found = {str(one["key"]): one for one in read(log)}
    assert [found[key]["embedding"] for key in sorted(found)] == [None, [2.0] * 4]
    assert [found[key]["score"] for key in sorted(found)] == [1 / 8, None]
    # the column added once, and segments of the old form still taken.
    commit(store, "seg-2", 0, [row(3, BEGIN)], columns=without("embedding"))
    compact(store, table_of(store), 2, "seg-2", 0, delta=log)
    table = log._open()
    assert table is not None
    assert sum(one["operation"] == "ADD COLUMN" for one in table.history()) == 1
    assert len(read(log)) == 3 and versions(log) == 3


def without(column: str) -> pa.Schema:
    return pa.schema([field for field in SCHEMA if field.name != column])


def test_rows_without_a_time_are_in_the_null_partition(store: ObjectStore, log: DeltaLog) -> None:
    commit(store, "seg-0", 0, [row(1, None), row(2, BEGIN)])
    compact(store, table_of(store), 0, "seg-0", 0, delta=log)
    table = log._open()
    assert table is not None
    query = "select key from t where hour is null"
    found = pa.RecordBatchReader.from_stream(deltalake.QueryBuilder().register("t", table).execute(query)).read_all()
    assert found.to_pylist() == [{"key": "in/000001.jpg"}]


def test_a_store_behind_a_private_authority_is_trusted_by_its_file_alone(
    store: ObjectStore, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a store whose certificate a private authority has signed,
    trustme = pytest.importorskip("trustme")
    monkeypatch.setenv("SSL_CERT_FILE", "")  # restored behind the test
    monkeypatch.delenv("SSL_CERT_FILE")
    authority, ca_file = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    port = urlsplit(store_address(settings).url).port
    assert port is not None
    with tls_before(port, context) as wire:
        encrypted = settings.model_copy(update={"s3_endpoint": f"https://127.0.0.1:{wire.port}"})
        # I expect its table to be refused without the file, and written and read with it.
        with pytest.raises(StoreUnavailable, match="cannot be read or written"):
            DeltaLog(encrypted, table_of(store)).committed(0)
        made = labelled(store, "seg-0")
        log = DeltaLog(encrypted.model_copy(update={"ca_file": ca_file}), table_of(store))
        compact(store, table_of(store), 0, "seg-0", 0, delta=log)
        assert counted(read(log)) == counted(made)
    assert wire.connections and b"_delta_log" not in wire.seen
