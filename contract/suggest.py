"""Suggest the names that somebody who mistyped one may have meant. Knows nothing of what the names stand for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 5


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.4) -> list[str]:
    """Return up to three of the known names that resemble `name`, the most similar first, upper and lower case alike.

    `cutoff` is the least similarity from 0 to 1, a ratio of `difflib`: 0.4 suits short lists of names.
    """
    by_folded = {other.casefold(): other for other in known}
    return [by_folded[match] for match in difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=cutoff)]


def did_you_mean(
    name: str, known: Iterable[str], *, cutoff: float = 0.4, quoted: bool = False, otherwise: str | None = None
) -> str:
    """Return the half sentence that follows "There is no …;", with its stop.

    It reads "did you mean cnn?" where a name is near, else `otherwise`, which by default lists the first five names.
    `quoted` puts the names in quotation marks, for names that are several words.
    """
    names = list(known)
    spelled = repr if quoted else str
    if near := nearest(name, names, cutoff=cutoff):
        return f"did you mean {' or '.join(map(spelled, near))}?"
    if otherwise is not None:
        return otherwise
    return f"there are: {', '.join(map(spelled, names[:_LISTED]))}{', …' if len(names) > _LISTED else ''}."
