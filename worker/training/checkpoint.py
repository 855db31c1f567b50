"""Checkpoints as bytes: tensors as safetensors, everything else as JSON in its metadata; nothing is pickled.

It knows neither what the tensors mean nor where the bytes are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from contract.errors import ObjectDamaged


def pack(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """Tensors of any device and layout, and JSON values, as the bytes of one safetensors file.

    Floats of `meta` come back bit for bit. A SHA-256 over all of it goes along, since safetensors itself does not
    notice a changed weight.
    """
    found = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(meta)
    return save(found, {"meta": text, "sha256": _digest(found, text)})


def snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors of any device and layout as `pack` takes them, so that a thread can pack while they change.

    In the memory of the host: a device that is full of the training has no room for a second state.
    """
    return {
        name: torch.empty_like(tensor, device="cpu", memory_format=torch.contiguous_format).copy_(tensor.detach())
        for name, tensor in tensors.items()
    }


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what `pack` was given; raises ObjectDamaged if the bytes are not as it wrote them."""
    try:
        tensors = load(data)  # first: it bounds the header, which Python's own JSON reader would follow to any depth
        metadata = _metadata(data)
        text = metadata["meta"]
        if metadata["sha256"] == _digest(tensors, text):
            return tensors, json.loads(text)
        reason = "its SHA-256 is not the one written down in it"
    except KeyError:
        reason = "it was written by something else"
    except (SafetensorError, ValueError) as error:
        reason = str(error)
    raise ObjectDamaged(f"The checkpoint of {len(data):,} bytes is damaged ({reason}); delete it to start anew.")


def _metadata(data: bytes) -> dict[str, str]:
    """Return the metadata in the header: 8 bytes of its length, little-endian, then JSON (safetensors, "Format")."""
    length = int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return found


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
