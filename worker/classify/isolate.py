"""Finds the images that make a shard raise. It knows neither rows nor engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from contract.errors import ImagemillError

R = TypeVar("R")


def isolate(
    places: Sequence[int], run: Callable[[Sequence[int]], Mapping[int, R]], good: Callable[[], None]
) -> tuple[dict[int, R], dict[int, Exception]]:
    """Run images in halves of halves, and return the results by place, with the error of each that failed alone.

    `good` runs a known good image and raises if that fails: before the first half, and after each image that failed
    alone. What it raises, an error of our own tree and a lack of memory are faults of the place and pass through.
    """
    good()
    results: dict[int, R] = {}
    failures: dict[int, Exception] = {}
    parts = [list(places)]
    while parts:
        part = parts.pop()
        try:
            results.update(run(part))
        except (ImagemillError, MemoryError):
            raise
        except Exception as error:  # nobody foresaw it
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
                continue
            failures[part[0]] = error
        else:
            continue
        good()
    return results, failures
