"""Lines and rows that anybody may have written."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.data.items import Item
from contract.data.text import MAX_LINE, bounded_lines, parse_json, rows_of_csv
from contract.errors import InvalidSource


@given(st.lists(st.binary(max_size=40)))
def test_lines_are_those_of_the_whole(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert list(bounded_lines(pieces, "m.jsonl")) == expected


def test_a_line_without_an_end_is_refused_before_it_is_held() -> None:
    def endless() -> Iterator[bytes]:
        yield b"first\n"
        while True:
            yield b"x" * 2**16

    with pytest.raises(InvalidSource, match=r"Line 2 of m\.jsonl has more than 1,048,576 bytes"):
        list(bounded_lines(endless(), "m.jsonl"))


def test_a_row_that_goes_on_over_its_lines_is_refused() -> None:
    def endless() -> Iterator[str]:
        yield "uri\n"
        yield '"\n'
        while True:
            yield '","\n'

    with pytest.raises(csv.Error, match=f"more than {MAX_LINE:,} characters"):
        list(rows_of_csv(endless()))


def test_a_byte_order_mark_is_none_of_the_data() -> None:
    assert list(rows_of_csv(["\ufeffuri,label\n", "a,b\n"])) == [{"uri": "a", "label": "b"}]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "nonsense", "9" * 5000])
def test_what_cannot_be_parsed_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested|Expecting|Exceeds"):
        parse_json(text)


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b'"text"',
        b"{}",
        b'{"key": 1, "uri": "s3://b/k"}',
        b'{"key": "k", "uri": "s3://b/k", "offset": -1}',
        b'{"key": "k", "uri": "s3://b/k", "size": 1.5}',
        b'{"key": "k", "uri": "s3://b/k", "size": true}',
        b'{"key": "k", "uri": "s3://b/k", "tar": ["s3://b/t"]}',
        b'{"key": "k", "uri": "s3://b/k", "strange": 1}',
        b'{"key": "k", "uri": "s3://b/k", "frames": [[1]]}',
        b'{"key": "k", "uri": "s3://b/k", "frames": 5}',
        b'{"key": "k", "uri": "s3://b/k", "frames": [[]]}',
    ],
)
def test_a_line_that_is_no_item_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="it is no"):
        Item.from_line(line)
