"""Render a page: one HTML file that needs nothing else. Knows no job, no figures and no plots.

The HTML and CSS are in `templates/`, and every text is escaped. Pictures are data URIs. A policy in the head forbids
scripts, the network, and every style but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

_TEMPLATES = Path(__file__).parent / "templates"
_JPEG = b"\xff\xd8\xff"

Cell = str | int | float | None
"""An int is shown with thousands separators, a float with four digits, None as a dash."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG or JPEG as wide as the text, and its caption."""

    image: bytes
    caption: str


@dataclass(frozen=True, slots=True)
class Tile:
    """A small PNG or JPEG among others, with lines of text below it; without an image a gray square says `why`."""

    image: bytes | None
    lines: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with one cell a column: the first `words` cells are aligned left, the others right.

    `facts` marks a table of names and values, whose column heads only a screen reader needs. Raises ValueError for a
    row with more or fewer cells than there are columns.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int = 1
    caption: str = ""
    facts: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"The row {row} has {len(row)} cells for {len(self.columns)} columns.")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, and below it a paragraph, pictures, tiles and tables, in this order.

    What stands between backticks in the paragraph is shown as code.
    """

    heading: str
    text: str = ""
    pictures: tuple[Picture, ...] = ()
    tiles: tuple[Tile, ...] = ()
    tables: tuple[Table, ...] = ()


def render(title: str, *, model: str, data: str, date: datetime, sections: Sequence[Section]) -> str:
    """Return the page as HTML; `date` must be aware, and is shown in UTC."""
    template = _environment().get_template("job.html.j2")
    return template.render(title=title, model=model, data=data, date=date.astimezone(UTC), sections=sections)


def percent(share: float | None) -> str | None:
    """Return a share from 0 to 1 as a cell."""
    return None if share is None else f"{100 * share:.2f}\N{NO-BREAK SPACE}%"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_TEMPLATES / "style.css").read_text()
    # By its hash, so that a style that somebody manages to inject is refused too.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    made.globals |= {"style": Markup(style), "style_hash": Markup(f"sha256-{digest}")}
    made.filters |= {"cell": _cell, "data_uri": _data_uri, "prose": _prose}
    return made


def _cell(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}"


def _prose(text: str) -> Markup:
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _data_uri(image: bytes) -> str:
    kind = "jpeg" if image.startswith(_JPEG) else "png"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
