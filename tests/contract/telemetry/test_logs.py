"""A line of JSON: one object with what is known of the work, whatever it tells of."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.printable import PrintableRecord
from contract.telemetry import logs

HOSTILE = [
    'a\n{"level": "CRITICAL", "message": "forged"}',
    "a\r\nb",
    "\x1b[2J\x1b]0;title\x07",
    "a\u2028b\u2029c\x85d\x0b\x0c\x1c",
    "half \ud800 of a pair",
    '"}, {"message": "forged"}',
    "\x00\x7f\x9b31m\u202e",
    "%s %d {}",
]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger of its own, and what it writes."""
    monkeypatch.setattr(logs, "_of_process", {})
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(PrintableRecord)
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.Logger("worker.test", logging.INFO)  # in no tree, so that other handlers see nothing
    logger.addHandler(handler)
    yield logger, out
    logging.setLogRecordFactory(before)


def only(out: io.StringIO) -> dict[str, Any]:
    """Read the only line, which no reader of lines takes for two, and in which no control character is left."""
    line = out.getvalue()
    assert line.endswith("\n") and len(line[:-1].splitlines()) == 1
    assert all(" " <= character <= "~" for character in line[:-1])
    return dict(json.loads(line))


def test_a_line_says_what_its_thread_works_on(written: tuple[logging.Logger, io.StringIO]) -> None:
    # Given a process with a name, and a thread of it that runs a shard,
    logger, out = written
    logs.tell_always(worker="worker-1@gpu-7")
    with logs.scope(job="cats"):
        logs.tell(shard=3, attempt=1)

        # if it logs, I expect the shard,
        logger.warning("Image %d is odd", 7)
        line = only(out)
        assert line.pop("time").endswith("Z")
        assert line == {
            "level": "WARNING",
            "logger": "worker.test",
            "message": "Image 7 is odd",
            "worker": "worker-1@gpu-7",
            "job": "cats",
            "shard": 3,
            "attempt": 1,
        }
        # and no word of it in another thread,
        out.truncate(out.seek(0))
        thread = threading.Thread(target=logger.info, args=("beside",))
        thread.start()
        thread.join()
        assert "job" not in only(out)

    # nor after the shard.
    out.truncate(out.seek(0))
    logger.info("idle")
    assert not {"job", "shard", "attempt"} & set(only(out))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_breaks_or_forges_a_line(written: tuple[logging.Logger, io.StringIO], text: str) -> None:
    # Given text from outside in every part of a record,
    logger, out = written
    logs.tell_always(worker=text)
    with logs.scope(job=text):
        try:
            raise ValueError(text)
        except ValueError:
            # if it is logged with the error, I expect one line, and an object whose fields are where they belong.
            logger.exception("Bad image: %s", text, stack_info=True)
    line = only(out)
    assert line["level"] == "ERROR" and line["message"].startswith("Bad image: ")
    assert "\n" not in line["message"], "what shows a field shows one line"
    assert line["exception"].startswith("Traceback") and "ValueError" in line["exception"]
    assert set(line) == {"time", "level", "logger", "message", "worker", "job", "exception", "stack"}


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_one_line_of_json(text: str) -> None:
    record = PrintableRecord("x", logging.INFO, "", 0, "%s", (text,), None)
    line = logs.JsonFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert all(" " <= character <= "~" for character in line)
    json.loads(line)


def test_a_line_fits_into_what_a_container_runtime_keeps_whole(
    written: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, out = written
    try:
        raise ValueError("\x1b" * 100_000)
    except ValueError:
        logger.exception("🐈" * 100_000)
    assert len(out.getvalue()) < 16 * 1024
    line = only(out)
    assert " … " in line["message"] and line["exception"].startswith("Traceback")


def test_a_record_whose_arguments_do_not_fit_is_not_lost(
    written: tuple[logging.Logger, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, out = written
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    logger.info("%d images", "many")
    assert only(out)["message"].startswith("%d images (TypeError")
