"""The report of a bench has a line for each figure, its bar, and what it is a figure of."""

from __future__ import annotations

import json
from typing import Any

import pytest

from worker.bench.report import report

SERVING: dict[str, Any] = {
    "one_client": {
        "requests": 300,
        "bare": {"p50_ms": 10.0, "p99_ms": 20.0},
        "product": {"p50_ms": 12.0, "p99_ms": 30.0, "refused": 0, "expired": 0},
        "http": {"p50_ms": 14.0, "p99_ms": 40.0, "refused": 0, "expired": 2},
    },
    "clients": {
        "number": 16,
        "seconds": 8.0,
        "serve_clients": {"p50_ms": 70.0, "p99_ms": 90.0, "refused": 0, "expired": 0},
        "serve_http": {"p50_ms": 75.0, "p99_ms": 95.0, "refused": 1234, "expired": 0},
    },
    "beside_a_job": {
        "job_alone": 230.0,
        "job_beside": 170.0,
        "client": 40.0,
        "requests": 400,
        "of_alone": 0.739,
        "of_its_share": 0.91,
        "p50_ms": 25.0,
        "p99_ms": 60.0,
    },
    "overload": {
        "seconds": 60.0,
        "deadline_seconds": 10.0,
        "best": 210.0,
        "offered": 630.0,
        "sent": 629.5,
        "goodput": 200.0,
        "of_best": 0.952,
        "admitted": {"p50_ms": 7800.0, "p99_ms": 8200.0},
        "refused": 25000,
        "refusal": {"p50_ms": 2.0, "p99_ms": 9.0},
        "expired": 3,
        "memory_mb": {
            "online_redis": {"before": 10.0, "first_half": 120.0, "second_half": 121.0, "after": 60.0},
            "worker": {"before": 900.0, "first_half": 910.0, "second_half": 910.0, "after": 905.0},
        },
    },
}
FIGURES: dict[str, Any] = {
    "images": {"serving": 2000},
    "cores": 2,
    "device": "cpu",
    "runtime": "openvino",
    "precision": "bf16",
    "cpu_seconds": {"ideal": {"bench": 15.0}, "overload": {"bench": 9.0, "web": 0.1}},
    "serving": SERVING,
    "compiles_each_time": False,
    "images_per_second": {"serve_ideal": 250.0, "serve_clients": 210.0, "serve_http": 190.0},
    "ratio_to_ideal": {"serve_ideal": 1.0, "serve_clients": 0.84, "serve_http": 0.76},
}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what a report prints, in lines without borders, on a terminal that is wide enough."""
    monkeypatch.setenv("COLUMNS", "160")

    def printed(figures: dict[str, Any]) -> list[str]:
        report(json.loads(json.dumps(figures)))
        return [
            " ".join(line.replace("│", " ").replace("┃", " ").split()) for line in capsys.readouterr().out.split("\n")
        ]

    return printed


def test_serving_stands_beside_its_bars(lines: Any) -> None:
    found = lines(FIGURES)
    for line in (
        "16 clients 210 0.84",
        "16 clients over HTTP 190 0.76",
        "decode and forward alone 10.0 / 20.0 ms",
        "through the online Redis 12.0 / 30.0 ms ≤ 13.0 / 35.0 ms",
        "over HTTP 14.0 / 40.0 ms (2 expired)",
        "over HTTP 75.0 / 95.0 ms (1,234 refused)",
        "p50 / p99 25.0 / 60.0 ms p99 ≤ 120.0 ms",
        "of alone 0.74",
        "of what the client leaves 0.91 ≥ 0.80",
        "requests/s, meant and sent 630, 630",
        "of the 210.0 of 16 clients 0.95 ≥ 0.90",
        "answered, p50 / p99 7,800.0 / 8,200.0 ms p99 ≤ 10,000 ms",
        "refused (25,000), p50 / p99 2.0 / 9.0 ms ≤ 50 ms",
        "online Redis, MB¹ 10, 120, 121, 60 flat",
        "web 0.0 0.1",
    ):
        assert line in found, f"{line!r} is not in the report"
    assert not any("LitServe" in line for line in found), "it was not measured"


def test_what_did_not_happen_has_no_figure(lines: Any) -> None:
    # Given an overload in which nothing was refused, and a job for which the client left nothing,
    none = {"p50_ms": None, "p99_ms": None}
    overload = SERVING["overload"] | {"refused": 0, "refusal": none}
    beside = SERVING["beside_a_job"] | {"of_its_share": None}

    # I expect dashes, not zeros.
    found = lines(FIGURES | {"serving": SERVING | {"overload": overload, "beside_a_job": beside}})
    assert "refused (0), p50 / p99 - ≤ 50 ms" in found
    assert "of what the client leaves - ≥ 0.80" in found


def test_labelling_says_what_a_job_is(lines: Any) -> None:
    # Given 5,000 photos at 250 and 200 a second,
    found = lines(
        {
            "images": {"labelling": 5000},
            "cores": 2,
            "images_per_second": {"ideal": 260.0, "product_tars": 250.0, "product_objects": 200.0},
            "ratio_to_ideal": {"ideal": 1.0, "product_tars": 0.96, "product_objects": 0.77},
            "compiles_each_time": True,
        }
    )

    # I expect how long the jobs took, what is part of that, and what else the figures hold.
    assert "labelling, 5,000 photos of 500×375" in found
    assert "whole product, tars in the bucket 250 0.96" in found
    assert any(line.startswith("A job took 20.0 to 25.0 s, from its record in the bucket to its end") for line in found)
    assert any(line.startswith("No .pyc files could be written") for line in found)
