"""The operators of torch that a program may call: those that classifiers of images infer with.

An allowlist, because torch has operators that trust their caller: `max_pool2d_with_indices_backward` writes where its
indices say, and `empty` shows what a process had in memory. It knows no archive and no graph. Imports torch.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch

from contract.errors import ModelError

_OPERATOR = re.compile(r"torch\.ops\.aten\.([A-Za-z_]\w*)\.(\w+)")


def _names(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


# Arithmetic on sizes, with Python integers.
_SYMBOLIC: Mapping[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge")
    },
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
    "torch.sym_not": torch.sym_not,
    "torch.sym_int": torch.sym_int,
    "torch.sym_float": torch.sym_float,
}
_SIZES = _names("sym_size sym_stride sym_numel sym_storage_offset")
_POINTWISE = _names(
    """
    abs acos add addcdiv addcmul asin atan bitwise_and bitwise_not bitwise_or ceil celu clamp clamp_max clamp_min cos
    div elu eq erf exp expm1 floor fmod ge gelu gt hardsigmoid hardswish hardtanh isinf isnan le leaky_relu lerp log
    log1p log2 logical_and logical_not logical_or logical_xor logit lt masked_fill maximum minimum mish mul ne neg pow
    prelu reciprocal relu relu6 remainder round rsqrt rsub selu sigmoid sign silu sin softplus sqrt square sub tan tanh
    trunc where
    alpha_dropout dropout feature_dropout
    """
)
_IN_PLACE = frozenset(f"{name}_" for name in _POINTWISE) | {"copy_", "detach_", "fill_", "zero_"}
_LAYERS = _names(
    """
    addmm baddbmm bmm conv1d conv2d conv3d convolution einsum linear matmul mm scaled_dot_product_attention
    batch_norm _native_batch_norm_legit_no_training group_norm instance_norm layer_norm linalg_vector_norm
    native_group_norm native_layer_norm norm rms_norm
    adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d avg_pool1d avg_pool2d max_pool1d
    max_pool2d max_pool2d_with_indices
    pixel_shuffle pixel_unshuffle upsample_bicubic2d upsample_bilinear2d upsample_nearest2d
    constant_pad_nd pad reflection_pad2d replication_pad2d
    """
)
_REDUCTIONS = _names(
    """
    all amax amin any argmax argmin cumsum log_softmax _log_softmax logsumexp max mean min prod softmax _softmax
    _safe_softmax std sum var var_mean
    """
)
# Views stay inside their storage: torch checks `as_strided` too.
_LAYOUT = _names(
    """
    alias as_strided cat chunk clone col2im contiguous copy detach diagonal expand expand_as flatten flip im2col
    lift_fresh_copy movedim narrow permute repeat reshape reshape_as roll select select_scatter slice slice_scatter
    split split_with_sizes squeeze stack t tile to _to_copy transpose tril triu type_as unbind unflatten unfold
    _unsafe_view unsqueeze view view_as
    """
)
_CREATION = _names(
    """
    arange eye full full_like linspace meshgrid new_full new_ones new_zeros ones ones_like scalar_tensor zeros
    zeros_like
    """
)
INDEXED: Mapping[str, str] = {
    "embedding": "indices",
    "gather": "index",
    "index": "indices",
    "index_put": "indices",
    "index_select": "index",
}
"""Operators that read or write where an argument says. A CPU checks such indices, and CUDA ends the process."""
_ALLOWED = _SIZES | _POINTWISE | _IN_PLACE | _LAYERS | _REDUCTIONS | _LAYOUT | _CREATION | INDEXED.keys()


def function(target: str) -> Callable[..., Any]:
    """Return the function that a node names: arithmetic on sizes, or an operator of the allowlist.

    Raises ModelError for anything else.
    """
    if target in _SYMBOLIC:
        return _SYMBOLIC[target]
    match = _OPERATOR.fullmatch(target)
    if match and match[1] in _ALLOWED:
        found = getattr(getattr(torch.ops.aten, match[1], None), match[2], None)
        if isinstance(found, torch._ops.OpOverload) and not any(one.is_out for one in found._schema.arguments):
            return cast("Callable[..., Any]", found)
    raise ModelError(
        f"It calls {target!r:.80}, which is none of the operators that a program may use here; where it is torch's "
        "own, `program.run_decompositions()` before saving may replace it."
    )


def aliases(target: Callable[..., Any]) -> bool:
    """Return whether a function may return a view of its input, or the input itself."""
    if not isinstance(target, torch._ops.OpOverload):
        return target is operator.getitem
    return any(value.alias_info is not None for value in target._schema.returns)


def measures(target: Callable[..., Any]) -> bool:
    """Return whether a function returns a size of a tensor, which the content of an image does not change."""
    return isinstance(target, torch._ops.OpOverload) and target._opname in _SIZES
