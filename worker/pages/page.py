"""The page of a job: one HTML file that needs nothing else, and what it shows of an evaluation.

It knows no figures but those that it is given. Pictures are data URIs, there is no script, and a policy in
the head forbids both scripts and the network.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

import numpy as np
from numpy.typing import ArrayLike

from worker.metrics.classification import Classification
from worker.metrics.distances import Distances
from worker.metrics.neighbours import Memorisation
from worker.pages import plots

_MISTAKES = 10
_JPEG = b"\xff\xd8\xff"

Cell = str | int | float | None
"""An int has separators between thousands, a float four digits; None is a dash."""


@dataclass(frozen=True, slots=True)
class Picture:
    """PNG or JPEG and its caption; `pixelated` enlarges a small one to the width of the text, with hard edges."""

    image: bytes
    caption: str
    pixelated: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """A small picture among others, PNG or JPEG, with the lines under it; None is a gray square that says `why`."""

    image: bytes | None
    lines: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of as many cells as there are columns: the first `words` stand to the left, the others to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int = 1
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, and under it a paragraph, pictures, tiles and tables, in this order."""

    heading: str
    text: str = ""
    pictures: tuple[Picture, ...] = ()
    tiles: tuple[Tile, ...] = ()
    tables: tuple[Table, ...] = ()


def render(title: str, *, model: str, data: str, date: datetime, sections: Sequence[Section]) -> str:
    """The page; all text is escaped, and `date`, which has a zone, is told in UTC."""
    facts = (("model", model), ("data", data), ("date", f"{date.astimezone(UTC):%Y-%m-%d %H:%M} UTC"))
    head = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    body = "\n".join(_section(section) for section in sections)
    return _PAGE.format(title=escape(title), style=_STYLE, facts=head, body=body)


def classifier(result: Classification, scores: ArrayLike, right: ArrayLike) -> tuple[Section, ...]:
    """The sections of a classifier; `scores` and `right`, [n], are those of `classification.top_scores`."""
    score, hit = np.asarray(scores), np.asarray(right, dtype=bool)
    worst = result.worst_first()
    spread = plots.histogram(
        "Scores", "score of the predicted class", {"right": score[hit], "wrong": score[~hit]}, span=(0, 1)
    )
    matrix = plots.confusion(result.confusion, [one.name for one in result.classes])
    bars = plots.bars("F1 of each class, worst first", "F1 (%)", {one.name: one.f1 for one in worst})
    classes = tuple(
        (one.name, one.examples, one.predictions, percent(one.precision), percent(one.recall), percent(one.f1))
        for one in worst
    )
    columns = ("class", "examples", "predictions", "precision", "recall", "F1")
    return (
        Section("Headline figures", tables=(_classifier_figures(result),)),
        Section(
            "Confusion",
            pictures=(Picture(matrix, "A row is what the examples of one class were taken for."),),
            tables=(_mistakes(result),),
        ),
        Section(
            "Scores",
            "Of all predictions with a score of 80 %, a calibrated model has 80 % right.",
            pictures=(
                Picture(plots.reliability(result.bins, result.calibration_error), "Accuracy by score, in bins."),
                Picture(spread, "The scores of right and of wrong predictions."),
            ),
        ),
        Section(
            "Classes",
            pictures=(Picture(bars, "F1 is the harmonic mean of precision and recall."),),
            tables=(Table(columns, classes, caption="Worst F1 first. A dash: no prediction, or no example."),),
        ),
    )


def generator(
    distances: Distances,
    memorisation: Memorisation,
    *,
    features: str,
    samples: bytes,
    pairs: bytes,
    generated: ArrayLike,
    held_out: ArrayLike,
) -> tuple[Section, ...]:
    """The sections of a generator.

    `features` names the network whose features were compared; `samples` is a grid of generated images
    and `pairs` what `plots.pairs` drew, both PNG; `generated` [n] and `held_out` [m] are the distances
    to the nearest training image from which `memorisation` was made.
    """
    rank, rest = percent(memorisation.quantile), percent(1 - memorisation.quantile)
    spread = plots.histogram(
        "Distance to the nearest training image",
        "Euclidean distance of features",
        {"generated": generated, "held out": held_out},
        mark=(f"nearest {rank} of held-out images", memorisation.threshold),
    )
    return (
        Section(
            "Distances",
            f"Between features of {features}. They compare only with figures of the same network, the same data and "
            "as many images.",
            tables=(distance_figures(distances),),
        ),
        Section("Samples", pictures=(Picture(samples, "Generated images, not selected.", pixelated=True),)),
        Section(
            "Nearest training images",
            f"{percent(memorisation.share)} of the generated images are nearer to their nearest training image than "
            f"{rest} of the held-out images are to theirs. As new as these, it would be {rank}; copies make it more.",
            pictures=(
                Picture(pairs, "The generated images that are nearest to a training image, nearest first."),
                Picture(spread, "Generated images that copy pile up on the left."),
            ),
            tables=(
                Table(
                    ("images", "number", "median distance"),
                    (
                        ("generated", memorisation.generated, memorisation.generated_median),
                        ("held out", memorisation.held_out, memorisation.held_out_median),
                    ),
                ),
            ),
        ),
    )


def _classifier_figures(result: Classification) -> Table:
    rows: list[tuple[Cell, ...]] = [("top-1 accuracy", "the label has the highest score", percent(result.top1))]
    if result.k < len(result.classes):  # else it is 100 % whatever the model does
        rows.append((f"top-{result.k} accuracy", f"it is among the {result.k} highest", percent(result.top_k)))
    rows += [
        ("precision", "predictions of a class that are right; mean over classes", percent(result.precision)),
        ("recall", "examples of a class that are found; mean over classes", percent(result.recall)),
        ("F1", "harmonic mean of both; mean over classes", percent(result.f1)),
        ("calibration error", "how far score and accuracy are apart; 0 is best", percent(result.calibration_error)),
        ("examples", f"of {len(result.classes)} classes", result.examples),
    ]
    return Table(("figure", "what it is", "value"), tuple(rows), words=2)


def distance_figures(found: Distances) -> Table:
    """What `distances.measure` found, with a line on what each figure is."""
    kid, shape = found.kid, found.manifold
    kernel = f"{1000 * kid.mean:.3f} ± {1000 * kid.std:.3f}".replace("-", "−")
    rows: tuple[tuple[Cell, ...], ...] = (
        ("Fréchet distance", "of Gaussians fitted to both, squared; 0 is best", found.frechet),
        ("kernel distance", f"times 1,000, in {kid.subsets} subsets of {kid.size:,} images; 0 is best", kernel),
        ("precision", "generated images that lie among the real ones", percent(shape.precision)),
        ("recall", "real images that lie among the generated ones", percent(shape.recall)),
        ("density", "neighbourhoods of real images around a generated one; real ones have 1", shape.density),
        ("coverage", "real images with a generated one nearby", percent(shape.coverage)),
        ("real images", f"{found.dimensions:,} features each, neighbourhoods of {shape.k}", found.real),
        ("generated images", "", found.generated),
    )
    return Table(("figure", "what it is", "value"), rows, words=2)


def _mistakes(result: Classification) -> Table:
    names = [one.name for one in result.classes]
    counts = np.array(result.confusion)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:_MISTAKES]
    cells = [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, counts.shape), strict=True)]
    rows = tuple(
        (
            names[true],
            names[taken],
            int(counts[true, taken]),
            percent(counts[true, taken] / result.classes[true].examples),
        )
        for true, taken in cells
        if counts[true, taken]
    )
    columns = ("true class", "predicted class", "examples", "of the class")
    return Table(columns, rows, words=2, caption="The most frequent mistakes." if rows else "There are no mistakes.")


def percent(share: float | None) -> str | None:
    """A share of 1 as a cell."""
    return None if share is None else f"{100 * share:.2f}\N{NO-BREAK SPACE}%"


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>"]
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    parts += [_picture(picture) for picture in section.pictures]
    if section.tiles:
        parts.append('<div class="tiles">' + "".join(_tile(tile) for tile in section.tiles) + "</div>")
    parts += [_table(table) for table in section.tables]
    return "<section>" + "\n".join(parts) + "</section>"


def _picture(picture: Picture) -> str:
    caption = escape(picture.caption)
    kind = ' class="pixelated"' if picture.pixelated else ""
    return f'<figure><img{kind} src="{_uri(picture.image)}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _tile(tile: Tile) -> str:
    if tile.image is None:
        shown = f'<div class="gone">{escape(tile.why)}</div>'
    else:
        shown = f'<img src="{_uri(tile.image)}" alt="{escape(tile.lines[-1] if tile.lines else "")}">'
    lines = "".join(f"<div>{escape(line)}</div>" for line in tile.lines)
    return f"<figure>{shown}<figcaption>{lines}</figcaption></figure>"


def _uri(image: bytes) -> str:
    kind = "jpeg" if image.startswith(_JPEG) else "png"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _table(table: Table) -> str:
    def line(tag: str, cells: Sequence[Cell]) -> str:
        kinds = ("" if at < table.words else ' class="figure"' for at in range(len(table.columns)))
        return (
            "<tr>"
            + "".join(f"<{tag}{kind}>{_cell(cell)}</{tag.split()[0]}>" for kind, cell in zip(kinds, cells, strict=True))
            + "</tr>"
        )

    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    head, rows = line('th scope="col"', table.columns), "\n".join(line("td", row) for row in table.rows)
    return f'<div class="wide"><table>{caption}<thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return escape(cell)
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}"


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --pale: #5a6470; --line: #d9dee3; --paper: #fff; --band: #f5f7f9 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --pale: #9aa5b1; --line: #353c45; --paper: #14181d; --band: #1c2229 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 53rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere }
h1 { margin: 0 0 .75rem; font-size: 1.75rem; line-height: 1.2 }
h2 { margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); font-size: 1.2rem }
p { margin: .5rem 0 1rem; max-width: 42rem }
dl { display: flex; flex-wrap: wrap; gap: .25rem 2rem; margin: 0 }
dt, figcaption, caption, th { color: var(--pale); font-size: .875rem }
dd { margin: 0; font-weight: 600 }
figure { margin: 1rem 0 1.5rem }
figcaption { margin-top: .25rem }
img { display: block; width: 100%; max-width: 800px; border-radius: 6px; background: #fff }
img.pixelated { image-rendering: pixelated }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.2rem, 1fr)); gap: 1rem .75rem;
  margin: 1rem 0 }
.tiles figure { margin: 0; min-width: 0 }
.tiles figcaption { line-height: 1.3; font-size: .8rem }
.tiles figcaption div:first-child { color: var(--ink); font-weight: 600 }
.gone { display: flex; align-items: center; justify-content: center; aspect-ratio: 1; border-radius: 6px;
  background: #8a929b; color: #fff; font-size: .8rem; padding: .5rem; text-align: center }
.wide { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; min-width: 60%; font-variant-numeric: tabular-nums }
caption { caption-side: top; text-align: left; padding-bottom: .25rem }
th, td { padding: .3rem 1.25rem .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: break-word }
tbody tr:nth-child(even) { background: var(--band) }
th:first-child { min-width: 10.5rem }
.figure { padding: .3rem .5rem .3rem 1.25rem; text-align: right; white-space: nowrap }
@media print { figure, tr { break-inside: avoid } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><dl>{facts}</dl></header>
<main>
{body}
</main>
</body>
</html>
"""
