"""Recognises torch's out-of-memory errors, and gives memory back. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from contract.errors import DeviceOutOfMemory


@contextmanager
def out_of_memory() -> Iterator[None]:
    """Map torch's out-of-memory errors to DeviceOutOfMemory, without the frames that keep the batch's tensors alive."""
    try:
        yield
        return
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        named = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not named and "not enough memory" not in str(error):  # the message of torch's CPU allocator
            raise
        message = f"The device has no memory for this batch ({error})."
    raise DeviceOutOfMemory(message)


def free() -> None:
    """Give unused memory of torch back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
