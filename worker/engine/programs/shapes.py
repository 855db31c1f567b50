"""Runs a graph on fake tensors: shapes and dtypes alone, before any kernel runs. Imports torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from contract.errors import ModelError

_BATCH = 2
_BYTES_AT_MOST = 2**30
"""For each image, in one tensor; the widest layer of a ViT-L at 518 × 518 takes 0.2 GB."""


def check_shapes(module: fx.GraphModule, *, channels: int, size: int) -> None:
    """Raise ModelError if a node does not fit its inputs, or makes a tensor of more than a GiB for an image."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode(False), torch.no_grad():
        _Shapes(module).run(torch.empty(_BATCH, channels, size, size))


class _Shapes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        try:
            found = super().run_node(n)
        except ModelError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:200].rstrip(".")
            raise ModelError(f"Its {n.target!s:.60} does not fit its inputs ({said}).") from error
        for tensor in pytree.tree_leaves(found):
            if n.op == "call_function" and isinstance(tensor, Tensor):
                taken = tensor.numel() * tensor.element_size()
                if taken > _BATCH * _BYTES_AT_MOST:
                    raise ModelError(
                        f"Its {n.target!s:.60} makes a tensor of {taken // _BATCH:,} bytes for an image, and "
                        f"{_BYTES_AT_MOST:,} are the limit; make the model or its images smaller."
                    )
        return found
