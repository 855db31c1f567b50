"""A real Prometheus scrapes a running stack: it parses and answers every query of dashboard and rules."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from contract.settings import load
from deploy.local.metrics import TARGETS_FILE
from deploy.local.stack import Stack
from producer import Client
from tests.deploy.test_dashboard import QUERIES
from tests.deploy.test_rules import ALERTS, RULES
from tests.drills import prometheus
from tests.synthetic import colour
from tests.waiting import wait_until

WINDOW = "2m"
"""In place of `$__rate_interval`, which Grafana makes of the interval of scrapes."""
FAILED = 'imagemill_jobs_ended_total{state="failed"}'
FAILS = 'imagemill_http_server_request_duration_seconds_count{status="5xx",route!~"/livez|/readyz|/v2/health/.+"}'
QUIET = {'imagemill_workers{state="unfit"}', "imagemill_watch_lag_seconds", FAILS}
"""What a healthy stack without watches does not show."""
PAGES = 'imagemill_http_server_request_duration_seconds_count{route="/console/sign-in"}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seen")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[prometheus.Prometheus]:
    """A Prometheus over an embedded stack that has labelled images, some of them bad, and failed a job."""
    data, photos = folder / "data", folder / "photos"
    photos.mkdir()
    for n in range(60):
        colour(n % 10, n).save(photos / f"{n:02d}.png")
    (photos / "bad.jpg").write_bytes(b"")
    with (
        Stack(data, workers=1, metrics=True) as stack,
        closing(Client(load(data=data))) as client,
        prometheus.running(folder, data / TARGETS_FILE, RULES) as found,
    ):

        def rows() -> float:
            return sum(found.values("imagemill_images_total"))

        # Its counters begin when they first count, so that a rate needs two jobs.
        def scraped(expected: int) -> bool:
            return rows() == expected

        def shown(expected: int) -> bool:
            return found.values(PAGES) == [expected]

        for time, expected in enumerate((61, 122), 1):
            client.classify(photos, model="efficientnet-lite0", shard_size=16)
            wait_until(partial(scraped, expected), 60, f"{expected} rows to be scraped")
            urllib.request.urlopen(f"{api_of(data)}/console/sign-in", timeout=30).close()
            wait_until(partial(shown, time), 60, f"{time} pages to be scraped")
        client.classify(photos, model="efficientnet-lite0", max_errors="0")
        wait_until(lambda: sum(found.values(FAILED)), 60, "a job to fail")
        # A job that is seen under way, however fast this machine is.
        stack.supervisor.kill("worker-1", signal.SIGSTOP)
        last = client.classify(photos, model="efficientnet-lite0").id
        wait_until(lambda: found.values("imagemill_job_idle_seconds"), 60, "the controller to see a job")
        stack.supervisor.kill("worker-1", signal.SIGCONT)
        wait_until(lambda: client.status(last).ended, 60, "the last job to end")
        wait_until(lambda: found.values("min(up)") == [1], 30, "the worker to answer again")
        wait_until(lambda: found.values("imagemill_workers_wanted"), 60, "the controller's answer for a pool")
        yield found


def api_of(data: Path) -> str:
    """Return the address of the HTTP API of an embedded stack."""
    return str(json.loads((data / "stack.json").read_text())["api_url"])


def queries_of(alerts: list[str]) -> list[str]:
    """The series that alerts are about, each with its labels."""
    return sorted({found for alert in alerts for found in re.findall(r"imagemill_\w+(?:\{[^}]*\})?", alert)})


def test_every_panel_has_something_to_show(server: prometheus.Prometheus) -> None:
    for query in QUERIES:
        asked = query.replace("$__rate_interval", WINDOW)
        if any(word in query for word in ('outcome!="committed"', "trained", "watch", "refusals", "upstream")):
            server.values(asked)  # nothing went wrong or was refused, trained, or is watched
            continue
        wait_until(partial(server.values, asked), 30, f"an answer to {asked}")


def test_the_figures_are_those_of_the_jobs(server: prometheus.Prometheus) -> None:
    assert sum(server.values('imagemill_images_total{status="ok"}')) >= 120
    assert server.values('sum(imagemill_image_errors_total{code="empty_file"})')[0] >= 2
    assert server.values('max(imagemill_workers{state="serving"})') == [1]
    assert server.values("min(up)") == [1]


def test_every_alert_is_evaluated_and_is_about_what_is_there(server: prometheus.Prometheus) -> None:
    # Given all rules, if Prometheus evaluates them, I expect no error,
    def rules() -> list[dict[str, str]]:
        return [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()), 30, "each rule to be evaluated")
    assert {rule["name"]: (rule["health"], rule.get("lastError")) for rule in rules()} == {
        alert["alert"]: ("ok", None) for alert in ALERTS
    }

    # that each series in them is shown by the stack, with the labels that are asked for,
    for query in queries_of([alert["expr"] for alert in ALERTS]):
        assert server.values(query) or query in QUIET, query

    # and that the one thing that has gone wrong here raises an alert.
    def raised() -> set[str]:
        alerts = server.ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    assert wait_until(raised, 30, "an alert") == {"ImagemillJobsFail"}
