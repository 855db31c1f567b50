"""Text from outside that would run in a spreadsheet, drive a terminal or forge a log line."""

from __future__ import annotations

import ast
import csv
import io
import json
import logging
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from contract.data.label_rows import schema
from contract.errors import InvalidSource
from contract.jobs.ends import _csv
from contract.printable import PrintableRecord, csv_line, printable, printable_json
from producer.cli import cli, common
from producer.exports.labels import csv as csv_labels
from producer.exports.labels.source import Labels

ROOT = Path(__file__).parents[2]
HOSTILE = [
    "\x1b[2J\x1b[1;1Hgone",  # clears the screen
    "\x1b]0;title\x07",
    "\x1b]52;c;cm0gLXJmIH4=\x07",  # writes the clipboard
    "\x9b31mred",  # C1 for ESC [
    "a\rb",
    "a\nforged line",
    "a\u2028b",
    "\u202egpj.exe",  # reads backwards
    "\u2066x\u2069",
    "\x00\x08\x7f",
    "half \ud800",
    "\U000e0041",
]
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "'", "＝1", '=HYPERLINK("http://x")']


def shows(text: str, also: str = "") -> bool:
    """Whether a terminal shows each character and obeys none."""
    return all(unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") or c in also for c in text) and not any(
        unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI") for c in text
    )


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_shown_and_obeyed_nowhere(text: str) -> None:
    assert shows(printable(text))
    printable(text).encode()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_can_be_read_back_from_json(text: str) -> None:
    line = printable_json(json.dumps({"key": text}, ensure_ascii=False))
    assert shows(line)
    assert json.loads(line) == {"key": text}


def test_what_people_write_stays() -> None:
    for text in ("photo é 猫 🐈‍⬛ naïve.jpg", "שלום", "a\u200db", "50 % of 1,000 × 3"):
        assert printable(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "\x00" not in text))
def test_a_cell_is_no_formula_and_can_be_undone(text: str) -> None:
    ((cell,),) = csv.reader(io.StringIO(csv_line([text]), newline="")) if text else [("",)]
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert (cell[1:] if cell.startswith("'") else cell) == text


def row(**changes: Any) -> dict[str, Any]:
    blank = dict.fromkeys(schema(embedding=False).names)
    return {
        **blank,
        "key": "k",
        "uri": "s3://b/k",
        "status": "ok",
        "label": "cat",
        "score": -0.5,
        "top_k": [],
        **changes,
    }


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_in_a_label_is_text_in_every_csv(text: str) -> None:
    # Given rows whose key and label are formulas,
    columns = schema(embedding=False)
    rows = [row(key=text, label=text)]
    labels = Labels(schema=columns, tables=list, shards=list, read=lambda item: b"", link=str)
    object.__setattr__(labels, "rows", lambda: rows)

    # if they are written, I expect cells that begin with an apostrophe, numbers as they were, and the text behind it.
    out = io.StringIO()
    csv_labels.write(labels, out)
    (read,) = csv.DictReader(io.StringIO(out.getvalue(), newline=""))
    assert read["key"] == read["label"] == f"'{text}"
    assert read["score"] == "-0.5"
    _, (label, images) = csv.reader(io.StringIO(_csv({text: 3}).decode(), newline=""))
    assert (label, images) == (f"'{text}", "3")


@pytest.mark.parametrize("text", HOSTILE)
def test_no_command_prints_control_characters(capsys: pytest.CaptureFixture[str], text: str) -> None:
    common.say(f"Wrote {text}.")
    common.print_json({"key": text})
    common.print_table(["key"], [[text]])
    common.print_fields({"source": text})
    common.echo(text)
    out, err = capsys.readouterr()
    assert shows(out, "\n\t") and shows(err, "\n\t")
    assert err.count("\n") == 1, "a line feed in a key forges no line"


def test_an_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InvalidSource("The key a\x1b[2J\nimagemill: all is well cannot be read.")

    monkeypatch.setattr("producer.client.Client.jobs", fail)
    monkeypatch.setattr("producer.client.Client.__init__", lambda self: None)
    said = CliRunner().invoke(cli, ["jobs"])
    assert said.exit_code == 2
    assert said.stderr.count("\n") == 1 and shows(said.stderr, "\n")


def test_commands_print_through_one_place() -> None:
    for path in sorted((ROOT / "producer" / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            assert name not in ("print", "sys.stdout.write", "sys.stderr.write", "click.secho"), f"{path}:{node.lineno}"
            if name == "click.echo":
                assert "printable" in ast.unparse(node), f"{path}:{node.lineno} prints what it did not check"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_log_line_is_one_line(text: str) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    try:
        raise ValueError(text)
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    handler.emit(PrintableRecord("x", logging.INFO, __file__, 1, "%s is bad", (text,), None))
    assert out.getvalue().count("\n") == 1
    handler.emit(PrintableRecord("x", logging.INFO, __file__, 1, "%s is bad", (text,), info))
    assert shows(out.getvalue(), "\n\t")
