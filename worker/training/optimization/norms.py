"""Measures the statistics of batch norms for weights that no step ran with, such as averages. It knows no data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def measuring(module: nn.Module) -> Iterator[bool]:
    """Within it, forward passes set the statistics of all batch norms to their plain mean over the passes.

    For averaged weights, as for stochastic weight averaging (Izmailov et al. 2018, arXiv:1803.05407, section 3.2):
    an average of weights has activations of its own, less wide than the average of those that the norms have seen.
    Yields whether there are batch norms at all, and leaves all of `module` in eval mode.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    before = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for the plain mean
            norm.train()
        yield bool(norms)
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        module.eval()
