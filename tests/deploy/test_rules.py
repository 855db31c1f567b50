"""The alert rules: their metrics exist, each says what to do, and Prometheus' own test of them passes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from contract.instruments import INSTRUMENTS
from contract.telemetry.meters import Histogram
from tests.deploy.chart import NEEDED, OPERATOR, render
from tests.mill import ROOT

RULES = ROOT / "deploy" / "observability" / "rules.yml"
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
BY_NAME = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])


def series() -> dict[str, set[str]]:
    """Return every series that `/metrics` shows, with its labels."""
    found: dict[str, set[str]] = {}
    for one in INSTRUMENTS:
        labels = {label.name for label in one.labels}
        if isinstance(one, Histogram):
            found |= {f"{one.name}_bucket": {*labels, "le"}, f"{one.name}_count": labels, f"{one.name}_sum": labels}
        else:
            found[one.name] = labels
    return found


@BY_NAME
def test_an_alert_asks_for_metrics_and_labels_that_exist(alert: dict[str, Any]) -> None:
    known = series()
    named = re.findall(r"imagemill_\w+", alert["expr"])
    assert named and set(named) <= set(known)
    labels = set().union(*(known[name] for name in named))
    asked = re.findall(r"by \(([^)]*)\)", alert["expr"])
    assert {label.strip() for some in asked for label in some.split(",")} <= labels
    assert set(re.findall(r"(\w+)=", alert["expr"])) <= labels
    shown = " ".join(alert["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", shown)) <= labels


def test_limits_of_buckets_in_rules_are_buckets() -> None:
    limits = {f"{bound}" for one in INSTRUMENTS if isinstance(one, Histogram) for bound in one.buckets}
    assert set(re.findall(r'le="([^"]+)"', RULES.read_text())) <= limits


@BY_NAME
def test_an_alert_says_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    page, anchor = alert["annotations"]["runbook"].split("#")
    headings = re.findall(r"^### (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in [heading.lower().replace(" ", "-") for heading in headings]
    assert f"`{alert['alert']}`" in (ROOT / page).read_text()
    assert alert["annotations"]["summary"].endswith(".") and alert["annotations"]["description"].endswith(".")


def test_the_chart_makes_a_prometheus_rule_of_them(tmp_path: Any) -> None:
    [rule] = [one for one in render(NEEDED, OPERATOR, tmp_path) if one["kind"] == "PrometheusRule"]
    assert rule["spec"]["groups"][0]["rules"] == ALERTS


def test_a_fleet_in_trouble_raises_every_alert_and_one_at_work_none() -> None:
    promtool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not there; PROMTOOL=FILE, from Debian's package prometheus, unpacked with dpkg-deb -x")
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(RULES.with_name("rules.test.yml"))]):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
