"""The page of an evaluation is one file, shows what it was given, and lets nobody write HTML into it."""

from __future__ import annotations

import base64
import io
import re
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from worker.metrics import classification
from worker.metrics.distances import measure
from worker.metrics.neighbours import closest, memorisation, nearest
from worker.pages import page, plots
from worker.pages.page import Picture, Section, Table, Tile, render

PNG = plots.curves("t", "y", {"a": [1.0]})
NASTY = "<script>alert(\"1\")</script> & '{x}'"
VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Holds the page to be well formed, and keeps its tags, its text, its tables and what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.alts += [value or "" for name, value in attrs if name == "alt"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        if "style" not in self.open:
            self.text += data


def read(*sections: Section, title: str = "A page", model: str = "m@1", data: str = "d") -> Reader:
    when = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
    return Reader(render(title, model=model, data=data, date=when, sections=sections))


def test_it_says_of_what_and_when() -> None:
    text = read(title="Evaluation of m@1", model="m@1 (cnn)", data="s3://b/test").text
    for fact in ("Evaluation of m@1", "m@1 (cnn)", "s3://b/test", "2026-02-28 22:30 UTC"):
        assert fact in text


def test_it_needs_nothing_else() -> None:
    html = render(
        "t",
        model="m",
        data="d",
        date=datetime.now().astimezone(),
        sections=[Section("s", pictures=(Picture(PNG, "c"),))],
    )
    reader = Reader(html)
    assert [source[:22] for source in reader.sources] == ["data:image/png;base64,"]
    assert base64.b64decode(reader.sources[0][22:]) == PNG
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert not re.search(r"url\(|@import|https?://", html)
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html


def test_every_text_is_escaped() -> None:
    # Given a text that would be a script wherever text can be,
    table = Table((NASTY, NASTY), ((NASTY, NASTY),), caption=NASTY)
    tiles = (Tile(PNG, (NASTY, NASTY)), Tile(None, (NASTY,), NASTY))
    section = Section(NASTY, NASTY, (Picture(PNG, NASTY),), tiles, (table,))
    reader = read(section, title=NASTY, model=NASTY, data=NASTY)
    # I expect it to be text at each of these places.
    assert "script" not in reader.tags
    assert reader.text.count(NASTY) == 2 + 2 + 2 + 1 + 4 + 5
    assert reader.alts == [NASTY, NASTY]


def test_a_photo_is_told_from_a_drawing_and_a_gap_says_why() -> None:
    photo = io.BytesIO()
    Image.new("RGB", (4, 4)).save(photo, "JPEG")
    tiles = (Tile(photo.getvalue(), ("cat", "a.jpg")), Tile(PNG, ()), Tile(None, ("dog", "b.jpg"), "not_found"))
    reader = read(Section("s", tiles=tiles))
    assert [source.partition(";")[0] for source in reader.sources] == ["data:image/jpeg", "data:image/png"]
    assert reader.alts == ["a.jpg", ""]
    assert "not_founddogb.jpg" in reader.text


def test_cells_are_written_by_their_kind() -> None:
    reader = read(Section("s", tables=(Table(("a", "b", "c", "d"), (("x", 12345, 0.0123456, None),)),)))
    assert reader.tables == [[["a", "b", "c", "d"], ["x", "12,345", "0.01235", "–"]]]


def test_a_row_that_does_not_fit_its_columns_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="argument"):
        read(Section("s", tables=(Table(("a", "b"), (("x",),)),)))


def result(n: int = 3) -> tuple[classification.Classification, torch.Tensor, torch.Tensor]:
    """A model that takes a third of the last class for the first, among n classes, the second without examples."""
    labels = torch.tensor([0] * 30 + [n - 1] * 30)
    predicted = labels.clone()
    predicted[50:] = 0
    logits = 4.0 * torch.nn.functional.one_hot(predicted, n).float()
    names = [f"<class {c}>" for c in range(n)]
    return classification.measure(logits, labels, names), *classification.top_scores(logits, labels)


def test_the_page_of_a_classifier_has_figures_plots_and_classes_worst_first() -> None:
    reader = read(*page.classifier(*result()))
    headline, mistakes, classes = reader.tables
    assert headline[1] == ["top-1 accuracy", "the label has the highest score", "83.33\xa0%"]
    assert not any(row[0].startswith("top-3") for row in headline), "of three classes, that is always 100 %"
    assert mistakes[1] == ["<class 2>", "<class 0>", "10", "33.33\xa0%"]
    assert len(mistakes) == 2
    assert [row[0] for row in classes] == ["class", "<class 2>", "<class 0>", "<class 1>"]
    assert classes[3] == ["<class 1>", "0", "0", "–", "–", "–"]
    assert reader.tags.count("img") == 4


def test_with_more_than_five_classes_top_5_is_told() -> None:
    headline = read(*page.classifier(*result(7))).tables[0]
    assert headline[2][0] == "top-5 accuracy"


def test_a_model_without_mistakes_has_none_listed() -> None:
    labels = torch.arange(2).repeat(10)
    logits = 3.0 * torch.nn.functional.one_hot(labels, 2).float()
    found = classification.measure(logits, labels, ["a", "b"])
    reader = read(*page.classifier(found, *classification.top_scores(logits, labels)))
    assert len(reader.tables[1]) == 1
    assert "There are no mistakes." in reader.text


def test_the_page_of_a_generator_has_distances_samples_and_neighbours() -> None:
    # Given features and images of a generator, a third of whose images are copies,
    generator = torch.Generator().manual_seed(0)
    training, held_out, fresh = (torch.randn(n, 4, generator=generator) for n in (300, 200, 100))
    made = torch.cat([fresh, training[:50]])
    near, rows = nearest(made, training)
    others, _ = nearest(held_out, training)
    copies = memorisation(near, others)
    images = np.zeros((8, 4, 4, 1), np.uint8)
    pairs = plots.pairs(images, images, [one.distance for one in closest(near, rows, 8)])
    grid = io.BytesIO()
    Image.new("L", (40, 20)).save(grid, "PNG")
    # if I make its page,
    reader = read(
        *page.generator(
            measure(held_out, made),
            copies,
            features="the network <n@1>",
            samples=grid.getvalue(),
            pairs=pairs,
            generated=near,
            held_out=others,
        )
    )
    # I expect what was measured, the pictures that I gave and the spread of the distances.
    figures = {row[0]: row[2] for row in reader.tables[0][1:]}
    assert list(figures)[:6] == ["Fréchet distance", "kernel distance", "precision", "recall", "density", "coverage"]
    assert (figures["real images"], figures["generated images"]) == ("200", "150")
    assert "features of the network <n@1>" in reader.text
    assert f"{100 * copies.share:.2f}\xa0% of the generated images" in reader.text and copies.share > 0.3
    given = [base64.b64decode(source[22:]) for source in reader.sources]
    assert given[:2] == [grid.getvalue(), pairs] and len(given) == 3
