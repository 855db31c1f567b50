"""What the pages say exists: commands, options, links, targets. Their examples run in `test_examples.py`."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import (
    DOCS,
    README,
    ROOT,
    WRITTEN,
    anchors,
    blocks,
    check_command,
    command_lines,
    links,
    load_generator,
)

GENERATOR = load_generator()
NAMES = [path.relative_to(ROOT).as_posix() for path in WRITTEN]


@pytest.fixture(scope="session")
def reference() -> dict[str, str]:
    """The generated pages by their paths in `docs/`."""
    return {f"reference/{name}": make() for name, make in GENERATOR.PAGES.items()}


def test_the_readme_is_short_and_opens_with_purpose_commands_and_picture() -> None:
    text = README.read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) <= 200
    assert len(lines[2]) <= 130, "the purpose is one line"
    marks = [
        "# Imagemill\n",
        "make demo",
        "make test",
        "```text\n",
        "## A session",
        "## Install",
        "## What it promises",
    ]
    places = [text.find(mark) for mark in [*marks, "## Where to read on", "## Licences"]]
    assert places[0] == 0
    assert -1 not in places and places == sorted(places)


def test_the_picture_is_drawn_straight() -> None:
    """Upright lines stand under each other, whatever was edited last."""
    for above, below in itertools.pairwise(blocks(README.read_text("utf-8"), "text")[0].splitlines()):
        for column, sign in enumerate(above):
            if sign in "┌┐│├┤┬":
                assert below[column : column + 1] in set("│└┘├┤┴┬┼▼"), (above, below, column)


@pytest.mark.parametrize("path", WRITTEN, ids=NAMES)
def test_command_lines_use_what_exists(path: Path) -> None:
    for words in command_lines(path.read_text("utf-8")):
        check_command(GENERATOR.PROGRAMS, words)


def test_command_lines_are_found() -> None:
    found = [words for path in WRITTEN for words in command_lines(path.read_text("utf-8"))]
    assert len(found) > 60
    assert any("--" in words for words in found), "a schedule with its command"


@pytest.mark.parametrize("words", [["imagemill", "clasify", "x"], ["imagemill", "jobs", "--no-such-option"]])
def test_a_command_line_that_does_not_exist_is_noticed(words: list[str]) -> None:
    import click

    with pytest.raises(click.UsageError):
        check_command(GENERATOR.PROGRAMS, words)


@pytest.mark.parametrize("path", WRITTEN, ids=NAMES)
def test_links_lead_to_pages_and_anchors(path: Path, reference: dict[str, str]) -> None:
    """Zensical checks the same on the site; here the README is checked too, and without building anything."""
    for link in links(path.read_text("utf-8")):
        target, _, anchor = link.partition("#")
        there = (path.parent / target).resolve() if target else path
        generated = reference.get(there.relative_to(DOCS).as_posix()) if there.is_relative_to(DOCS) else None
        assert generated is not None or there.exists(), link
        if anchor:
            assert anchor in anchors(generated or there.read_text("utf-8")), link


def test_no_link_of_the_readme_leads_to_a_page_that_is_not_committed() -> None:
    assert not [link for link in links(README.read_text("utf-8")) if "reference/" in link]


def test_every_page_is_in_the_navigation(reference: dict[str, str]) -> None:
    navigation = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]
    named = re.findall(r"'([\w/-]+\.md)'", str(navigation))
    written = [path.relative_to(DOCS).as_posix() for path in WRITTEN if path != README]
    assert sorted(named) == sorted([*written, *reference])


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for path in WRITTEN:
        mentioned = re.findall(r"(?:`|^)make (?:PYTHON=\S+ )?([a-z-]+)", path.read_text("utf-8"), re.MULTILINE)
        assert set(mentioned) <= targets, path


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for path in WRITTEN:
        for named in re.findall(r"'\.\[([\w,]+)\]'", path.read_text("utf-8")):
            assert set(named.split(",")) <= set(extras), path


def test_every_variable_and_queue_that_is_mentioned_exists() -> None:
    from contract.keys.queues import QUEUES
    from contract.settings import Settings

    known = {f"IMAGEMILL_{name.upper()}" for name in Settings.model_fields}
    for path in WRITTEN:
        text = path.read_text("utf-8")
        assert set(re.findall(r"IMAGEMILL_[A-Z0-9_]+", text)) <= known, path
        assert {queue for found in re.findall(r"--queues ([\w,]+)", text) for queue in found.split(",")} <= set(QUEUES)


def test_the_log_has_its_newest_entries_first() -> None:
    dates = re.findall(r"^## (\d{4}-\d\d-\d\d)", (DOCS / "log.md").read_text("utf-8"), re.MULTILINE)
    assert dates and dates == sorted(dates, reverse=True)


def test_pages_load_nothing_from_elsewhere() -> None:
    """The site works without a network."""
    theme = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["theme"]
    assert theme["font"] is False
    for path in WRITTEN:
        assert not re.search(r"!\[[^\]]*\]\(https?://|<(?:script|img|link)\b", path.read_text("utf-8")), path
