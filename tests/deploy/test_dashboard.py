"""The dashboard: its metrics exist, it fits on a screen, and chart and compose file carry it as it is."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import NEEDED, of_kind, render
from tests.deploy.test_rules import series
from tests.mill import ROOT

FILE = ROOT / "deploy" / "observability" / "dashboard.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES: list[str] = [target["expr"] for panel in PANELS for target in panel["targets"]]
UNITS = {"s", "short", "percentunit"}
"""Grafana's names of units."""


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_metrics_and_labels_that_exist(panel: dict[str, Any]) -> None:
    known = series()
    for target in panel["targets"]:
        named = re.findall(r"imagemill_\w+", target["expr"])
        assert named and set(named) <= set(known)
        labels = set().union(*(known[name] for name in named))
        grouped = {label.strip() for some in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in some.split(",")}
        assert grouped | set(re.findall(r"(\w+)[!=]~?=?\"", target["expr"])) <= labels
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= grouped
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["description"].endswith(".")


def test_the_figures_of_the_fleet_are_never_added_up_over_controllers() -> None:
    # Given two controllers, which show the same figures, I expect each query of a gauge to take their maximum first.
    for query in QUERIES:
        for name in re.findall(r"imagemill_(?:backlog|workers|oldest|job|jobs|redis)_?\w*", query):
            before = query[: query.index(name)]
            assert name.endswith("_total") or re.search(r"max( by \([^)]*\))? \($|max\($", before), query


def test_it_fits_on_a_screen() -> None:
    places = [panel["gridPos"] for panel in PANELS]
    # 24 columns; a unit of height has 38 pixels.
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert max(place["y"] + place["h"] for place in places) * 38 <= 1000
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_the_chart_carries_it_for_grafanas_sidecar(tmp_path: Path) -> None:
    maps = of_kind(render(NEEDED, (), tmp_path), "ConfigMap")
    found = maps["mill-dashboard"]
    assert json.loads(found["data"]["imagemill.json"]) == DASHBOARD
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    without = render({**NEEDED, "monitoring": {"dashboard": False}}, (), tmp_path)
    assert "mill-dashboard" not in of_kind(without, "ConfigMap")


def test_grafana_of_the_compose_file_finds_it_and_prometheus() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "docker" / "compose.yaml").read_text())["services"]
    grafana = services["grafana"]
    mounted = {entry.split(":")[0].rpartition("/")[2]: entry.split(":")[1] for entry in grafana["volumes"]}
    folder = FILE.parent / "grafana"
    [source] = yaml.safe_load((folder / "datasources.yml").read_text())["datasources"]
    host, port = source["url"].removeprefix("http://").split(":")
    assert services[host]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert set(services[host]["networks"]) & set(grafana["networks"])
    assert source["type"] == DASHBOARD["templating"]["list"][0]["query"]
    [provider] = yaml.safe_load((folder / "dashboards.yml").read_text())["providers"]
    assert mounted["dashboard.json"].startswith(provider["options"]["path"] + "/")
    assert mounted["dashboard.json"] == grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
