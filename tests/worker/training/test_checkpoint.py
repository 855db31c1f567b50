"""Checkpoints: what goes in comes out, and what was damaged is refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save

from contract.errors import ObjectDamaged
from worker.training.checkpoint import pack, snapshot, unpack


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "weight": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "half": torch.randn(3).bfloat16(),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 2),
        "mask": torch.tensor([True, False]),
        "grown": torch.randn(2, requires_grad=True),
    }


META = {"history": [{"loss": 0.1 + 0.2, "epoch": 1}], "best": None, "name": "köala"}


def test_what_goes_in_comes_out_bit_for_bit() -> None:
    found, meta = unpack(pack(tensors(), META))
    assert meta == META
    assert found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name


def test_a_snapshot_stays_what_it_was() -> None:
    live = tensors()
    copy = snapshot(live)
    for tensor in live.values():
        tensor.detach().zero_()
    # Not the bytes, for safetensors writes metadata in any order.
    found, expected = unpack(pack(copy, META))[0], unpack(pack(tensors(), META))[0]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_the_same_state_is_the_same_size() -> None:
    assert len(pack(tensors(), META)) == len(pack(tensors(), META))


def test_a_changed_byte_anywhere_is_noticed() -> None:
    data = pack(tensors(), META)
    for place in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(ObjectDamaged, match="is damaged"):
            unpack(bytes(damaged))


def test_a_checkpoint_that_ends_early_is_noticed() -> None:
    data = pack(tensors(), META)
    for length in range(0, len(data), 13):
        with pytest.raises(ObjectDamaged, match=f"of {length:,} bytes is damaged"):
            unpack(data[:length])


@pytest.mark.parametrize(
    "data",
    [
        save({"weight": torch.zeros(1)}),
        save({"weight": torch.zeros(1)}, {"meta": "{}"}),
        b"\x04\0\0\0\0\0\0\0null",
        b"\x80\x05K\x01.",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
    ],
    ids=["no metadata", "no digest", "no header", "a pickle", "a header without end"],
)
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(ObjectDamaged, match="delete it to start anew"):
        unpack(data)
