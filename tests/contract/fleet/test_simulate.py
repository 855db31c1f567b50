"""Golden traces: what the autoscaler makes of them, to the tenth of a minute, and what queue length makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from contract.errors import InvalidInput
from contract.fleet.chart import draw, table
from contract.fleet.scalers import ByQueueLength
from contract.fleet.simulate import Outcome, compare, simulate
from contract.fleet.trace import Arrival, Eviction, Trace, read_trace
from worker.cli import cli

TRACES = Path(__file__).parents[3] / "docs" / "traces"
GOLDEN = Path(__file__).with_name("golden.json")
"""Made by `imagemill-worker simulate docs/traces/*.json --json`, one line an outcome."""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Outcome]]:
    """Each trace of the documentation, under both policies."""
    return {path.stem: compare(read_trace(path)) for path in sorted(TRACES.glob("*.json"))}


def test_every_trace_gives_the_figures_written_down(outcomes: dict[str, list[Outcome]]) -> None:
    found = [outcome.figures() for row in outcomes.values() for outcome in row]
    assert found == [json.loads(line) for line in GOLDEN.read_text().splitlines()]


def test_ten_million_images_take_a_quarter_of_the_time_that_queue_length_takes(
    outcomes: dict[str, list[Outcome]],
) -> None:
    ours, theirs = outcomes["ten-million"]
    assert ours.minutes < theirs.minutes / 3


def test_bursts_take_a_fifth_of_the_pod_hours(outcomes: dict[str, list[Outcome]]) -> None:
    ours, theirs = outcomes["bursts"]
    assert ours.pod_hours < theirs.pod_hours / 5


def test_a_steady_load_has_a_steady_number_of_workers(outcomes: dict[str, list[Outcome]]) -> None:
    ours, theirs = outcomes["steady"]
    assert (ours.turns, theirs.turns > 10) == (1, True)


def test_evicted_shards_run_again_and_the_workers_are_replaced(outcomes: dict[str, list[Outcome]]) -> None:
    ours, _ = outcomes["evictions"]
    whole, _ = outcomes["million"]
    assert ours.shards_again > 0
    assert ours.minutes < whole.minutes + 2


def test_every_image_is_done_and_the_fleet_goes_to_its_least(outcomes: dict[str, list[Outcome]]) -> None:
    for row in outcomes.values():
        for outcome in row:
            last = outcome.samples[-1]
            assert (last.workers, last.busy_slots, last.backlog_images) == (0, 0, 0), outcome.trace


def test_a_worker_that_is_always_there_has_no_cold_start() -> None:
    trace = Trace(name="one", jobs=(Arrival(images=1000),), least=1, most=1)
    assert simulate(trace).worst_wait_minutes == 0
    # 1,000 images on two slots of 50 images a second, in two shards.
    assert simulate(trace).minutes == pytest.approx(512 / 50 / 60, abs=0.1)


def test_a_rate_is_assumed_until_the_first_shard_is_done() -> None:
    # Given workers ten times slower than the prior, I expect more of them once that is known, and the job to end.
    trace = Trace(name="slow", jobs=(Arrival(images=200_000),), images_per_second=5.0)
    counts = [sample.workers for sample in simulate(trace).samples]
    assert max(counts) > 4 * counts[4]


def test_a_worker_taken_away_gives_back_what_it_cannot_end_in_its_grace() -> None:
    # Given shards of 100 s, a fleet that shrinks while they run, and a grace of 5 s,
    jobs = (Arrival(images=500_000),)
    trace = Trace(name="long", jobs=jobs, shard_size=5000, grace_seconds=5.0, evictions=(Eviction(at=200, workers=3),))
    outcome = simulate(trace, ByQueueLength(stabilisation_seconds=0.0))
    # I expect some to run again and all to be done.
    assert outcome.shards_again > 3
    assert outcome.samples[-1].backlog_images == 0


def test_a_trace_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    bad = tmp_path / "trace.json"
    bad.write_text('{"name": "x", "jobs": [{"images": 0}]}')
    with pytest.raises(InvalidInput, match=r"trace.json is no trace: jobs.0.images: .*greater than or equal to 1"):
        read_trace(bad)


def test_the_command_prints_a_table_and_draws_a_plot(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    arguments = ["simulate", str(TRACES / "million.json"), str(TRACES / "small.json"), "--plot", str(plot)]
    said = CliRunner().invoke(cli, arguments)
    assert said.exit_code == 0, said.output
    assert said.output.count("| queue length / 5 |") == 2
    assert plot.read_text() == draw([compare(read_trace(TRACES / f"{name}.json")) for name in ("million", "small")])
    faster = CliRunner().invoke(cli, ["simulate", str(TRACES / "million.json"), "--target", "60", "--json"])
    figures = [json.loads(line) for line in faster.output.splitlines()]
    assert figures[0]["most_workers"] > 100


def test_the_page_shows_the_figures_and_the_plot_of_its_traces(outcomes: dict[str, list[Outcome]]) -> None:
    page = (TRACES.parent / "howto" / "autoscaling.md").read_text()
    order = ["small", "million", "ten-million", "bursts", "steady", "evictions"]
    rows = [outcomes[name] for name in order]
    assert table(rows) in page
    assert (TRACES.parent / "howto" / "autoscaling.svg").read_text() == draw(rows)
