"""Names that every file system takes, for folders of classes."""

from __future__ import annotations

import re


class FolderNames:
    """Gives each class a folder of its own, also when file systems cannot tell two labels apart.

    ImageNet has two classes called `crane` (bird and machine), and `a/b` and `a:b` become the same once they are made
    safe. The first keeps the name; every other one gets its class number as a suffix.
    """

    def __init__(self) -> None:
        self._owner: dict[str, int] = {}

    def of(self, label: str, index: int) -> str:
        """Return the folder of the class `index`, which is called `label`."""
        name = safe(label)
        # Compare in lower case, because some file systems do not tell `Crane` from `crane`. Loop, because a label may
        # itself be called `crane-517`.
        while self._owner.setdefault(name.lower(), index) != index:
            name = f"{name}-{index}"
        return name


def safe(name: str) -> str:
    """Reduce a name to letters, digits, `-`, `_`, spaces and inner dots, at most 100 characters."""
    return re.sub(r"[^\w\- .]+", "_", name).strip(" ._")[:100] or "unnamed"
