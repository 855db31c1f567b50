"""A real Prometheus that scrapes processes of a test: from `PROMETHEUS=FILE`, or on the path."""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode

import pytest
import yaml

from deploy.local import ports
from deploy.local.supervisor import Service, Supervisor
from tests.waiting import wait_until


class Prometheus:
    """Answers queries; `running` makes one."""

    def __init__(self, port: int) -> None:
        self._url = f"http://{ports.LOOPBACK}:{port}"

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer; a query that it cannot parse fails the test with what it says."""
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as answer:
                said = json.loads(answer.read())
        except HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        assert said["status"] == "success", said
        return said["data"]

    def values(self, query: str) -> list[float]:
        """Return the values of the series that a query finds now."""
        return [float(sample["value"][1]) for sample in self.ask("query", query=query)["result"]]

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


@contextmanager
def running(folder: Path, targets: Path, rules: Path) -> Iterator[Prometheus]:
    """Scrape, once a second, what a file for `file_sd_configs` lists, and evaluate rules."""
    found = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
    if found is None:
        pytest.skip("prometheus is not there; PROMETHEUS=FILE, from Debian's package, unpacked with dpkg-deb -x")
    [port] = ports.choose([None])
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": "imagemill", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        found,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={ports.LOOPBACK}:{port}",
    ]
    server = Prometheus(port)
    with Supervisor([Service(name="prometheus", command=command, ready=server.answers)], folder / "logs") as supervisor:
        supervisor.start()
        wait_until(lambda: server.values("up"), 30, "the first scrape")
        yield server
