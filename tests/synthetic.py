"""Jobs that generated images, made by hand: spec, tars, indices, commits and an end in the store, without a worker."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from contract.backend.objects import ObjectStore
from contract.data import image_index
from contract.data.dataset_card import image_suffix
from contract.jobs.specs import Generate, Synthesize
from contract.jobs.status import ShardCommit, State, Status
from contract.keys.jobs import JobKeys
from contract.keys.shards import shard_stem

LABELS = ("zero", "T-shirt/top", "T-shirt_top", "never asked for", "four")
WEIGHTS = hashlib.sha256(b"weights").hexdigest()
GATE = hashlib.sha256(b"gate").hexdigest()

Draw = Callable[[int, int], Image.Image]
"""The image of a class and an index."""


def gray(label: int, index: int, size: int = 8) -> Image.Image:
    """A gray image that no other class and index have."""
    return Image.frombytes("L", (size, size), bytes((label * 40 + index * 7 + n) % 256 for n in range(size * size)))


def colour(label: int, index: int) -> Image.Image:
    return Image.merge("RGB", [gray(label, index), gray(label, index + 1), gray(label, index + 2)])


def synthesize_spec(store: ObjectStore, id: str = "digits", **fields: Any) -> Synthesize:
    return Synthesize.model_validate(
        {
            "id": id,
            "model": "digits-gan@3",
            "weights_sha256": WEIGHTS,
            "classes": (0, 1, 2, 4),
            "seed": 7,
            "truncation": 2.0,
            "output": f"s3://{store.bucket}/{JobKeys(id).root}out/",
            "per_class": 5,
            "gate": "digits@1",
            "gate_sha256": GATE,
            "dedup": 0.01,
            **fields,
        }
    )


def generate_spec(store: ObjectStore, id: str = "sheet", **fields: Any) -> Generate:
    return Generate.model_validate(
        {
            "id": id,
            "model": "digits-gan@3",
            "weights_sha256": WEIGHTS,
            "classes": (0, 1, 2, 4),
            "output": f"s3://{store.bucket}/{JobKeys(id).root}out/",
            "count": 20,
            **fields,
        }
    )


def fabricate(
    store: ObjectStore,
    spec: Generate | Synthesize,
    *,
    shards: int = 2,
    draw: Draw = gray,
    state: State | None = "succeeded",
    old_layout: bool = False,
) -> list[dict[str, Any]]:
    """Write a job as its workers would have: five accepted images a class, and two rejected ones for a synthesis.

    Return the rows of accepted images. Without `state` the job has not ended. In the `old_layout` a synthesis commits
    what it selected as the first retry of a shard.
    """
    keys = JobKeys(spec.id)
    envelope = {"created_at": "2026-11-24T04:39:25.523Z", "spec": spec.model_dump()}
    store.put(keys.spec, json.dumps(envelope).encode())
    candidates = [(label, index) for index in range(7 if isinstance(spec, Synthesize) else 5) for label in spec.classes]
    accepted: list[dict[str, Any]] = []
    for shard in range(shards):
        portion = candidates[shard::shards]
        tar, rows = _shard(spec, portion, draw)
        index = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=image_index.schema()), index)
        stem = f"{keys.root}out/{shard_stem(shard)}"
        store.put(f"{stem}.tar", tar)
        store.put(f"{stem}.parquet", index.getvalue())
        kept = [row for row in rows if row["accepted"]]
        selected = isinstance(spec, Synthesize)
        retry = 1 if selected and old_layout else 0
        commit = ShardCommit(
            shard=shard,
            retry=retry,
            items=len(rows),
            ok=len(kept),
            errors=0,
            output=f"s3://{store.bucket}/{stem}.parquet",
            sha256=hashlib.sha256(index.getvalue()).hexdigest(),
        )
        key = keys.selected(shard) if selected and not old_layout else keys.commit(shard, retry)
        store.put(key, commit.to_json())
        accepted += kept
    if state is not None:
        store.put(keys.end, Status(id=spec.id, kind=spec.kind, state=state).to_json())
    return accepted


def fabricate_candidates(store: ObjectStore, spec: Synthesize) -> None:
    """Write a synthesis that was canceled before anything was selected."""
    fabricate(store, spec, state="canceled")
    keys = JobKeys(spec.id)
    for shard in range(2):
        selected = ShardCommit.model_validate_json(store.get(keys.selected(shard)))
        index = f"{keys.candidate_prefix}{shard_stem(shard)}.parquet"
        output = f"s3://{store.bucket}/{index}"
        store.put(index, b"with features")
        store.put(keys.commit(shard), selected.model_copy(update={"output": output}).to_json())
        store.delete(keys.selected(shard))


def _shard(
    spec: Generate | Synthesize, portion: Sequence[tuple[int, int]], draw: Draw
) -> tuple[bytes, list[dict[str, Any]]]:
    """A tar and the rows of its index."""
    gated = isinstance(spec, Synthesize)
    made = io.BytesIO()
    rows: list[dict[str, Any]] = []
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for label, index in portion:
            row: dict[str, Any] = {
                **dict.fromkeys(image_index.schema().names),
                "key": image_index.sample_key(label, index),
                "label": LABELS[label],
                "label_index": label,
                "seed": spec.seed,
                "index": index,
                "accepted": index < 5,
                "model": spec.model,
                "weights_sha256": spec.weights_sha256,
            }
            if gated:
                row |= {"predicted": LABELS[label], "score": 0.9 + index / 100, "duplicate_distance": 0.5}
            rows.append(row)
            if not row["accepted"]:
                row["reject_reason"] = "score" if index == 5 else "duplicate"
                continue
            image = draw(label, index)
            encoded = io.BytesIO()
            image.save(encoded, spec.image_format, **({"lossless": True} if spec.image_format == "webp" else {}))
            data = encoded.getvalue()
            row |= {"width": image.width, "height": image.height, "size": len(data)}
            row |= {"sha256": hashlib.sha256(data).hexdigest()}
            row["offset"] = _add(tar, f"{row['key']}{image_suffix(spec)}", data)
            names = ("label", "label_index", "seed", "index", "predicted", "score", "model", "weights_sha256")
            told = {name: row[name] for name in names if row[name] is not None}
            told |= {"truncation": spec.truncation, "job": spec.id}
            told |= {"synthetic": True, "DigitalSourceType": image_index.SYNTHETIC}
            _add(tar, f"{row['key']}.json", json.dumps(told).encode())
    return made.getvalue(), rows


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a member; where in the tar its bytes begin."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(info, io.BytesIO(data))
    return offset
