"""Writes a job's rows and its end to the bucket, as workers and the controller would."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.data.items import Item
from contract.data.label_rows import schema
from contract.jobs import lifecycle
from contract.jobs.ends import publish, write_end
from contract.jobs.status import ShardCommit, Status
from contract.keys.jobs import JobKeys
from contract.keys.names import content_name
from contract.keys.shards import shard_stem
from contract.settings import Settings


def commit_rows(store: ObjectStore, id: str, rows: Sequence[Mapping[str, Any]], shard: int = 0) -> None:
    """Commit a shard; a row has the columns that are given, and is `ok` unless it says otherwise."""
    keys = JobKeys(id)
    full = [{"status": "ok", "uri": f"s3://{store.bucket}/photos/{row['key']}", **row} for row in rows]
    store.put(keys.manifest(shard), "\n".join(Item(row["key"], row["uri"]).to_line() for row in full).encode())
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(full, schema=schema(embedding=any("embedding" in row for row in full))), buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    name = f"{keys.root}out/{content_name(shard_stem(shard), digest, '.parquet')}"
    store.put(name, buffer.getvalue())
    errors = sum(row["status"] == "error" for row in full)
    commit = ShardCommit(
        shard=shard,
        items=len(full),
        ok=len(full) - errors,
        errors=errors,
        error_codes=dict(Counter(str(row["error_code"]) for row in full if row.get("error_code"))),
        labels=dict(Counter(str(row["label"]) for row in full if row.get("label"))),
        output=f"s3://{store.bucket}/{name}",
        sha256=digest,
    )
    store.put(keys.commit(shard), commit.to_json())


def end(settings: Settings, store: ObjectStore, id: str, **fields: Any) -> None:
    """End a job, as succeeded unless told otherwise."""
    spec = lifecycle.read_spec(store, id)
    source = getattr(spec, "source", None)
    named = {"source": getattr(source, "label", ""), "owner": lifecycle.read_owner(store, id), "kind": spec.kind}
    times = {"created_at": "2026-11-24T04:00:00.000Z", "finished_at": "2026-11-24T05:00:00.000Z"}
    write_end(store, id, 0, Status.model_validate({"id": id, "state": "succeeded", **named, **times, **fields}))
    publish(store, spec)
    with closing(Ledger(settings)) as ledger:
        ledger.drop(id)
