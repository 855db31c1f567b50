"""Reads a `.pt2` archive as JSON and raw tensors, without unpickling or executing anything in it.

It knows the layout that `torch.export.save` writes since weights are raw bytes (schema 8), and not what a graph means.
Imports torch.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contract.errors import ModelError

Json = dict[str, Any]

_SCHEMA = 8
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_STRIDED = 7
_JSON_AT_MOST = 64 * 2**20
"""Bytes of a member that is JSON; the graph of a ViT-L takes 3 MB."""

DTYPES: Mapping[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    9: torch.complex32,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}
"""Keyed by the values of `torch._export.serde.schema.ScalarType`."""


@dataclass(frozen=True)
class Archive:
    """One exported program: its graph and signature as JSON, `weights` and `constants` by their full names."""

    program: Json
    weights: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]


def read_archive(path: Path) -> Archive:
    """Read the program in a file written by `torch.export.save`.

    Raises ModelError if the file is no such archive, or holds something that only unpickling could restore. An archive
    that breaks the schema raises KeyError, TypeError, ValueError or RuntimeError, which the caller maps.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return _read(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"It is no archive of torch.export.save ({error}).") from error


def _read(file: zipfile.ZipFile) -> Archive:
    members = {name.partition("/")[2]: name for name in file.namelist()}
    if "models/model.json" not in members:
        raise ModelError(
            "It holds no exported program as this Imagemill reads them; write the file with torch.export.save of "
            f"torch {torch.__version__.partition('+')[0]}."
        )

    def read(name: str) -> bytes:
        info = file.getinfo(members[name])
        if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses; a bomb does
            raise ModelError(f"{name} in it is compressed, which torch.export.save never does.")
        return file.read(info)

    def parsed(name: str) -> Json:
        if (taken := file.getinfo(members[name]).file_size) > _JSON_AT_MOST:
            raise ModelError(f"{name} in it has {taken:,} bytes, and {_JSON_AT_MOST:,} are the limit.")
        found: Json = json.loads(read(name))
        return found

    def tensors(folder: str, config: str) -> dict[str, Tensor]:
        if config not in members:
            raise ModelError(
                "Its weights are pickled, as older versions of torch do, and nothing is unpickled here; save it with "
                f"torch {torch.__version__.partition('+')[0]}."
            )
        storages: dict[str, bytearray] = {}
        found = {}
        for name, meta in parsed(config)["config"].items():
            payload = meta["path_name"]
            if meta["use_pickle"] or not _PAYLOAD.fullmatch(payload):
                raise ModelError(f"{name} in it is pickled, and nothing is unpickled here; make it a plain tensor.")
            if payload not in storages:
                storages[payload] = bytearray(read(f"{folder}/{payload}"))
            found[name] = _tensor(storages[payload], meta["tensor_meta"])
        return found

    program = parsed("models/model.json")
    if program["schema_version"]["major"] != _SCHEMA:
        raise ModelError(f"Its schema is {program['schema_version']['major']}, this Imagemill reads {_SCHEMA}.")
    return Archive(
        program=program,
        weights=tensors("data/weights", "data/weights/model_weights_config.json"),
        constants=tensors("data/constants", "data/constants/model_constants_config.json"),
    )


def _tensor(storage: bytearray, meta: Json) -> Tensor:
    """Return a tensor over the bytes of its storage; torch refuses a view that exceeds them."""
    if meta["layout"] != _STRIDED:
        raise ModelError("One of its tensors is sparse; make it dense.")
    dtype = DTYPES[meta["dtype"]]
    sizes = [size["as_int"] for size in meta["sizes"]]
    if not storage:
        if math.prod(sizes) != 0:
            raise ValueError(f"a tensor of {sizes} has no bytes")
        return torch.zeros(sizes, dtype=dtype)
    flat = torch.frombuffer(storage, dtype=dtype)
    return flat.as_strided(sizes, [stride["as_int"] for stride in meta["strides"]], meta["storage_offset"]["as_int"])
