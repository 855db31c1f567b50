"""Lists by name what others may remove meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from contract.errors import ImagemillError

T = TypeVar("T")


def without_gone(
    show: Callable[[list[str]], Sequence[T]], gone: type[ImagemillError]
) -> Callable[[list[str]], list[T]]:
    """Return `show` without the entries that were removed since their names were read, for which it raises `gone`."""

    def shown(names: list[str]) -> list[T]:
        try:
            return list(show(names))
        except gone:
            found: list[T] = []
            for name in names:
                with suppress(gone):
                    found += show([name])
            return found

    return shown
