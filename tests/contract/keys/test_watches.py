"""The numbers of segments in the keys of a watch."""

import pytest

from contract.keys.watches import (
    parse_archive,
    parse_segment,
    parse_segment_job,
    parse_then,
    segment_job,
    watch_archive,
    watch_segment,
    watch_state,
    watch_then,
    watch_then_begun,
)


@pytest.mark.parametrize("number", [0, 42, 999_999, 1_000_000, 12_345_678])
def test_a_segment_is_found_in_each_of_its_keys_after_the_millionth_too(number: int) -> None:
    root = watch_state("photos", "20261126t000000000")
    assert parse_segment(watch_segment(root, number)) == number
    assert parse_then(watch_then(root, number)) == (number, False)
    assert parse_then(watch_then_begun(root, number)) == (number, True)
    assert parse_archive(watch_archive(root, number)) == number
    job = segment_job("photos", "20261126t000000000", number)
    assert parse_segment_job(job) == ("photos", "20261126t000000000", number)
