"""Ports for the metrics of an embedded stack (`imagemill up --metrics`), and the file that tells Prometheus of them.

`DATA/metrics.json` is a file for Prometheus' `file_sd_configs`. The next start chooses the same ports if they are free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from contract.errors import InvalidSettings
from contract.settings import Settings
from deploy.local import ports
from deploy.local.private import write_private

TARGETS_FILE = "metrics.json"


def choose(data: Path, settings: Settings, processes: Sequence[str]) -> dict[str, str]:
    """Return an address on loopback for each process, and write them down for Prometheus.

    Raises InvalidSettings if `IMAGEMILL_METRICS_PORT` says something else.
    """
    if settings.metrics_port not in ("", "0"):
        raise InvalidSettings(
            f"IMAGEMILL_METRICS_PORT={settings.metrics_port} already gives each process a port; leave out --metrics, "
            "or unset the variable."
        )
    path = data / TARGETS_FILE
    before: list[int | None] = [None] * len(processes)
    with suppress(OSError, ValueError, LookupError, TypeError):  # none, or not ours
        known = [int(address.rpartition(":")[2]) for address in json.loads(path.read_text())[0]["targets"]]
        before = [*known, *before][: len(processes)]
    chosen = dict(zip(processes, ports.choose(before), strict=True))
    addresses = {process: f"{ports.LOOPBACK}:{port}" for process, port in chosen.items()}
    write_private(path, json.dumps([{"targets": list(addresses.values())}], indent=1))
    return addresses


def environment(address: str | None) -> Mapping[str, str]:
    """Return the variables that have a process listen on its address."""
    if address is None:
        return {}
    host, _, port = address.rpartition(":")
    return {"IMAGEMILL_METRICS_HOST": host, "IMAGEMILL_METRICS_PORT": port}
