"""`imagemill up --metrics`: where the processes of an embedded stack show what they do."""

from __future__ import annotations

import json
import socket
import urllib.request
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from contract.errors import InvalidSettings
from contract.settings import Settings
from deploy import cli
from deploy.local import metrics, ports
from deploy.local.stack import Stack
from tests.waiting import wait_until


def targets(data: Path) -> list[str]:
    """What Prometheus reads."""
    [group] = json.loads((data / metrics.TARGETS_FILE).read_text())
    assert set(group) == {"targets"}
    return list(group["targets"])


def test_the_next_start_shows_them_at_the_same_ports(tmp_path: Path) -> None:
    # Given a stack that was up,
    first = metrics.choose(tmp_path, Settings(), ["controller", "worker-1"])
    assert targets(tmp_path) == list(first.values())

    # if it starts again with one more worker, I expect the ports of the others to stay,
    again = metrics.choose(tmp_path, Settings(), ["controller", "worker-1", "worker-2"])
    assert {name: again[name] for name in first} == first
    assert len(set(again.values())) == 3 and targets(tmp_path) == list(again.values())

    # but one that somebody took meanwhile,
    host, _, port = first["worker-1"].rpartition(":")
    with socket.create_server((host, int(port))):
        third = metrics.choose(tmp_path, Settings(), ["controller", "worker-1"])
    assert third["controller"] == first["controller"] and third["worker-1"] != first["worker-1"]
    assert host == ports.LOOPBACK

    # and a file that is damaged to be written anew.
    for damaged in ("", "{}", "[]", '[{"targets": ["x", 3]}]'):
        (tmp_path / metrics.TARGETS_FILE).write_text(damaged)
        assert list(metrics.choose(tmp_path, Settings(), ["controller"]).values()) == targets(tmp_path)


def test_ports_that_are_given_already_are_not_overruled_in_silence(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="leave out --metrics"):
        metrics.choose(tmp_path, Settings(metrics_port="9464-9495"), ["controller"])


def test_what_up_prints_answers(tmp_path: Path) -> None:
    # Given a stack that shows metrics, whose only worker was not asked for yet,
    data = tmp_path / "data"
    runner = CliRunner(env={"IMAGEMILL_DATA": None})
    with Stack(data, workers=0, most=1, metrics=True):
        # if I ask where, I expect the addresses that Prometheus has too, and that they answer,
        done = runner.invoke(cli.up, ["--data", str(data), "--metrics"])
        lines = [line.split()[1:] for line in done.stdout.splitlines() if "/metrics, " in line]
        found = {process: address.rstrip(",") for address, process in lines}
        assert [f"http://{target}/metrics" for target in targets(data)] == list(found.values())

        def shows(process: str, metric: bytes) -> bool:
            with urllib.request.urlopen(found[process], timeout=30) as answer:
                return metric in answer.read()

        wait_until(partial(shows, "controller", b"imagemill_workers"), 30, "the controller's figures of the fleet")
        with urllib.request.urlopen(found["controller"].replace("/metrics", "/scale/default"), timeout=30) as answer:
            assert {"wanted": 0, "min": 0, "max": 1}.items() <= json.load(answer).items(), "as the stack scales"
        wait_until(partial(shows, "web", b"imagemill_http_server_active_requests"), 30, "the figures of the HTTP API")
        assert "--metrics" not in done.stderr

    # and of one that was started without, to be told how.
    with Stack(data, workers=0, control=False):
        done = runner.invoke(cli.up, ["--data", str(data), "--metrics"])
        assert "watch" not in done.stdout
        assert "started without --metrics" in done.stderr
