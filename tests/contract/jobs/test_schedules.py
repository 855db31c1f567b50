"""When a cron line is due: on a real clock of a real place, through both nights on which clocks are changed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest

from contract.errors import InvalidSchedule
from contract.jobs.schedules import Schedules, check_cron, check_timezone, job_id, stamp, ticks
from contract.jobs.specs import JOB_ID

PARIS = "Europe/Paris"


def local(text: str, *, fold: int = 0) -> datetime:
    """A time on a clock in Paris; `fold` 1 is the second of two."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(PARIS), fold=fold)


def shown(cron: str, after: datetime, count: int) -> list[str]:
    """Its next ticks as a clock in Paris shows them."""
    found = islice(ticks(cron, PARIS, after), count)
    return [at.astimezone(ZoneInfo(PARIS)).strftime("%m-%d %H:%M %z") for at in found]


def test_a_time_of_day_that_spring_leaves_out_runs_once_right_after_the_gap() -> None:
    # Clocks go from 02:00 to 03:00 on 29 March 2026.
    assert shown("30 2 * * *", local("2026-03-28 00:00"), 3) == [
        "03-28 02:30 +0100",
        "03-29 03:00 +0200",
        "03-30 02:30 +0200",
    ]
    assert shown("15,45 2 * * *", local("2026-03-28 12:00"), 2) == ["03-29 03:00 +0200", "03-30 02:15 +0200"]
    # Seen from the tick itself, from just before it, and from just after.
    assert shown("30 2 * * *", local("2026-03-29 01:59"), 1) == ["03-29 03:00 +0200"]
    assert shown("30 2 * * *", local("2026-03-29 03:00"), 1) == ["03-30 02:30 +0200"]


def test_a_time_of_day_that_autumn_has_twice_runs_the_first_time() -> None:
    # Clocks go from 03:00 back to 02:00 on 25 October 2026.
    assert shown("30 2 * * *", local("2026-10-24 12:00"), 2) == ["10-25 02:30 +0200", "10-26 02:30 +0100"]
    # Between the two and after the second, the next one is tomorrow's.
    for after in (local("2026-10-25 02:45"), local("2026-10-25 02:10", fold=1), local("2026-10-25 02:45", fold=1)):
        assert shown("30 2 * * *", after, 1) == ["10-26 02:30 +0100"]


def test_a_line_that_runs_all_day_goes_by_elapsed_time() -> None:
    spring = list(islice(ticks("*/30 * * * *", PARIS, local("2026-03-29 00:45")), 5))
    autumn = list(islice(ticks("0 * * * *", PARIS, local("2026-10-25 01:30")), 4))

    assert {(b - a).total_seconds() for a, b in pairwise(spring)} == {1800}
    assert {(b - a).total_seconds() for a, b in pairwise(autumn)} == {3600}
    # So that no two of them have one id.
    assert len({job_id("hourly", at) for at in autumn}) == 4


def test_a_tick_is_never_the_time_that_it_is_asked_after() -> None:
    after = datetime(2026, 11, 24, 10, 15, tzinfo=UTC)

    for earlier in (after, after.replace(microsecond=1), after.replace(second=59, microsecond=999_999)):
        assert next(ticks("* * * * *", "UTC", earlier)) == after.replace(minute=16)
    assert next(ticks("* * * * *", "UTC", after.replace(minute=14, second=59, microsecond=500_000))) == after


def test_the_id_of_a_tick_is_its_minute_in_utc() -> None:
    assert job_id("nightly", local("2026-11-24 02:00")) == "nightly-20261124t0100"
    assert stamp(local("2026-10-25 02:30")) != stamp(local("2026-10-25 02:30", fold=1))


@pytest.mark.parametrize(
    ("cron", "why"),
    [
        ("61 * * * *", "bad minute"),
        ("0 2 * *", "five fields"),
        ("0 0 2 * * *", "five fields"),
        ("@daily", "five fields"),
        ("0 0 31 2 *", "bad day-of-month"),
        ("* * */20 * 1L", "never fires within 50 years"),
        ("", "five fields"),
    ],
)
def test_a_line_that_is_none(cron: str, why: str) -> None:
    with pytest.raises(InvalidSchedule, match=why) as raised:
        check_cron(cron)
    assert str(raised.value).startswith(repr(cron)) and "\n" not in str(raised.value)


def test_a_line_may_have_names_and_spaces() -> None:
    assert check_cron("  0  2 * jan-mar   mon,FRI ") == "0 2 * jan-mar mon,FRI"


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Pari", "Europe/Paris"),
        ("europe/paris", "Europe/Paris"),
        ("Europe", "write it as|did you mean"),
        ("", "write it as"),
        ("../../etc/passwd", "write it as"),
        ("Mars/Olympus Mons", "write it as"),
    ],
)
def test_a_time_zone_that_is_none(zone: str, hint: str) -> None:
    with pytest.raises(InvalidSchedule, match=rf"There is no time zone '{zone}'; .*({hint})"):
        check_timezone(zone)


def test_the_longest_name_leaves_room_for_the_tick() -> None:
    name = Schedules.check_name("x" * Schedules.longest)
    for id in (job_id(name, local("2026-11-24 00:00")), f"{name}-manual-20261124t101502-7f3a09"):
        assert re.fullmatch(JOB_ID, id)
