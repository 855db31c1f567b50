"""Counts the cores that a stack may divide among its workers."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores of the affinity mask, at least 1. A container's quota is the worker's business."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return allowed or 1
