"""Folds batch norms into the convolutions before them, which inference need not compute apart. Imports torch."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_norms(model: nn.Module) -> None:
    """Replace each convolution and the batch norm after it by one convolution, in fp32 and in place.

    A module of the zoo registers a norm right after the convolution whose output it normalises. Folding comes before a
    cast to bf16, which would otherwise round the scale of the norm and the weights apart.
    """
    for module in model.modules():
        children = list(module.named_children())
        for (name, conv), (after, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, after, nn.Identity())
