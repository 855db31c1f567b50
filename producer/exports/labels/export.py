"""Writes the labels of a job in a format of the registry; a file appears under its name only once it is complete."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO, cast

from contract.errors import InvalidInput
from producer.exports.formats import LABELS, find
from producer.exports.labels.source import Labels


@dataclass(frozen=True)
class Written:
    """How many rows or images were written, and how many were left out because the format has no place for failures."""

    written: int
    left_out: int = 0


class LabelExporter(Protocol):
    """What a module in `producer.exports.labels` provides."""

    def write(self, labels: Labels, output: Any, /) -> tuple[int, int]:
        """Write the rows; return how many were written and how many were left out.

        `output` is a `TextIO`, or the `Path` of a new file or of a folder, as `Format.writes` says.
        """


def export(labels: Labels, format: str, output: Path | TextIO) -> Written:
    """Write the labels to a file, a folder, or (text formats only) an open stream.

    Raises InvalidInput if there is no such format, or if it cannot be written to a stream.
    """
    found = find(LABELS, format)
    exporter = cast(LabelExporter, found.load())
    if not isinstance(output, Path):
        if found.writes != "text":
            raise InvalidInput(f"{format} cannot be written to a terminal or a pipe; name a place with -o.")
        return Written(*exporter.write(labels, output))
    if found.writes == "folder":
        return Written(*exporter.write(labels, output))
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.part")
    try:
        if found.writes == "file":
            exported = Written(*exporter.write(labels, partial))
        else:
            with partial.open("w", encoding="utf-8", newline="") as file:
                exported = Written(*exporter.write(labels, file))
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return exported
