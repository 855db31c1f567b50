"""The learning rate as a pure function of the step: linear warm-up, then a cosine to 0."""

from __future__ import annotations

import math


def warm_cosine(step: int, steps: int, *, peak: float, warmup: float) -> float:
    """Return the learning rate of step `step` (0-based) of `steps`.

    It rises by equal amounts over the first `warmup` × `steps` steps, the last of which has the peak (Goyal et al.
    2017, arXiv:1706.02677), then falls along half a cosine that would reach 0 at step `steps` (Loshchilov & Hutter
    2017, arXiv:1608.03983, without restarts). No step has a rate of 0, which would be a step wasted.
    """
    rising = round(warmup * steps)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - rising) / (steps - rising)))
