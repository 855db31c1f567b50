"""The registry of output formats: what it names is there, and nothing is loaded before it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from contract.data.dataset_card import Layout
from contract.errors import InvalidInput
from producer.cli import cli
from producer.exports.formats import IMAGES, LABELS, Format, find


@pytest.mark.parametrize("one", [*LABELS.values(), *IMAGES.values()], ids=lambda one: one.module)
def test_every_format_has_a_module_that_writes_it(one: Format) -> None:
    assert callable(one.load().write)


@pytest.mark.parametrize("one", IMAGES.values(), ids=lambda one: one.name)
def test_a_format_of_images_says_where_its_records_are(one: Format) -> None:
    module = one.load()

    assert isinstance(module.LAYOUT, Layout)
    assert module.LAYOUT.name == one.name
    assert callable(module.records)


@pytest.mark.parametrize(("formats", "package"), [(LABELS, "labels"), (IMAGES, "images")])
def test_every_module_that_writes_is_in_the_registry(formats: dict[str, Format], package: str) -> None:
    # Given a module with `write` in the package, I expect a line for it.
    folder = Path(str(importlib.import_module(f"producer.exports.{package}").__file__)).parent
    writers = {path.stem for path in folder.glob("*.py") if "\ndef write(" in path.read_text("utf-8")}

    assert writers == set(formats)


@pytest.mark.parametrize(("command", "formats"), [("results", LABELS), ("export", IMAGES)])
def test_help_says_what_each_format_is(command: str, formats: dict[str, Format]) -> None:
    text = " ".join(CliRunner().invoke(cli, [command, "--help"]).output.split())

    for one in formats.values():
        assert f"{one.name}: {one.about}" in text


def test_an_unknown_format_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match="There is no format 'xml'; choose one of jsonl, csv, parquet"):
        find(LABELS, "xml")


def test_listing_the_formats_loads_none_of_them() -> None:
    code = "import sys, producer.exports.formats; print(sorted({'pyarrow', 'urllib3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
