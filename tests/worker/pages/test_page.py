"""A page is one file, shows what it was given, and lets nobody write HTML, styles or templates into it."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser

import pytest
from PIL import Image

from worker.pages.page import Picture, Section, Table, Tile, render
from worker.pictures import plots

PNG = plots.curves("t", "y", {"a": [1.0]})
ATTACKS = (
    "<script>alert(\"1\")</script> & '{x}'",
    '" onerror="alert(1)" x=\'',
    "</style></title><img src=x onerror=alert(1)>",
    "{{ 7*7 }} {% for x in y %} {{ self.__init__.__globals__ }} {# gone #}",
)
HARMLESS = Table(("a", "b"), (("c", "d"),), caption="e")
VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Check that a page is well formed, and collect its tags, text, tables, and what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.attributes: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
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
            # Indented lines of a template are no text of its page.
            self.text += data if data.strip() else ""


def read(*sections: Section, title: str = "A page", model: str = "m@1", data: str = "d") -> Reader:
    when = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
    return Reader(render(title, model=model, data=data, date=when, sections=sections))


def test_the_head_names_model_data_and_date() -> None:
    text = read(title="Evaluation of m@1", model="m@1 (cnn)", data="s3://b/test").text
    for fact in ("Evaluation of m@1", "m@1 (cnn)", "s3://b/test", "2026-02-28 22:30 UTC"):
        assert fact in text


def test_a_page_needs_nothing_else() -> None:
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


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_text_is_shown_as_it_is(attack: str) -> None:
    # Given a text that would be a tag, an attribute or a template wherever text can be,
    table = Table((attack, attack), ((attack, attack),), caption=attack)
    tiles = (Tile(PNG, (attack, attack)), Tile(None, (attack,), attack))
    section = Section(attack, attack, (Picture(PNG, attack),), tiles, (table,))
    reader = read(section, title=attack, model=attack, data=attack)
    # I expect it as text at each of these places, and no tag or attribute more than without it.
    harmless = read(
        Section("s", "t", (Picture(PNG, "c"),), (Tile(PNG, ("a", "b")), Tile(None, ("c",), "d")), (HARMLESS,)),
    )
    assert reader.text.count(attack) == 2 + 2 + 2 + 1 + 4 + 5
    assert reader.alts == [attack, attack]
    assert (reader.tags, reader.attributes) == (harmless.tags, harmless.attributes)


def test_code_in_a_paragraph_is_escaped_too() -> None:
    reader = read(Section("`s`", "Run `imagemill <b onclick='x'>`, or ` alone."))
    assert reader.tags.count("code") == 1 and "b" not in reader.tags
    assert "Run imagemill <b onclick='x'>, or ` alone." in reader.text
    assert "`s`" in reader.text, "a heading is shown as it is"


def test_the_policy_allows_the_style_of_the_page_and_nothing_else() -> None:
    html = render("t", model="m", data="d", date=datetime.now().astimezone(), sections=[])
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', html)
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert not re.search(r"<[^>]+ style=", html), "such a style would be refused"


def test_jpeg_and_png_have_their_types_and_a_missing_image_says_why() -> None:
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


def test_a_row_with_too_few_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        read(Section("s", tables=(Table(("a", "b"), (("x",),)),)))


def test_facts_have_column_heads_that_only_a_screen_reader_needs() -> None:
    html = render(
        "t",
        model="m",
        data="d",
        date=datetime.now().astimezone(),
        sections=[Section("s", tables=(Table(("fact", "value"), (("state", "done"),), facts=True),))],
    )
    assert '<table class="facts">' in html
    assert Reader(html).tables == [[["fact", "value"], ["state", "done"]]]
