"""One worker process for each CUDA device: which devices there are, and processes that are kept running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from contract.settings import load
from tests.waiting import wait_until
from worker.cli import cli
from worker.process import per_device

LISTING = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aa11)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bb22)
  MIG 3g.40gb     Device  0: (UUID: MIG-cc33)
  MIG 3g.40gb     Device  1: (UUID: MIG-dd44)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-ee55)
"""


def test_the_parts_of_a_divided_gpu_take_its_place() -> None:
    assert per_device.listed_devices(LISTING) == ("GPU-aa11", "MIG-cc33", "MIG-dd44", "GPU-ee55")
    assert per_device.listed_devices("") == ()
    assert per_device.listed_devices("No devices were found\n") == ()


@pytest.mark.parametrize(
    ("shown", "ids"),
    [
        ("", ()),
        ("-1", ()),
        ("2", ("2",)),
        ("0, 3", ("0", "3")),
        ("0,-1,1", ("0",)),
        ("GPU-aa11,MIG-cc33", ("GPU-aa11", "MIG-cc33")),
    ],
)
def test_only_what_is_shown_is_used(shown: str, ids: tuple[str, ...]) -> None:
    assert per_device.devices({"CUDA_VISIBLE_DEVICES": shown}) == ids


def test_devices_are_those_that_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a machine without the program, then with one that fails, then with one that lists devices,
    monkeypatch.setenv("PATH", str(tmp_path))
    assert per_device.devices({}) == ()
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho broken driver\nexit 9\n")
    tool.chmod(0o755)
    assert per_device.devices({}) == ()
    tool.write_text(f"#!/bin/sh\ncat <<'EOF'\n{LISTING}EOF\n".replace("cat", "/bin/cat"))
    assert per_device.devices({}) == ("GPU-aa11", "MIG-cc33", "MIG-dd44", "GPU-ee55")


def test_each_process_sees_one_device_and_has_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_device, "cores", lambda: 9)
    monkeypatch.setattr(per_device, "default_total", lambda: 4000)
    free = load().model_copy(update={"threads": 0, "memory": 0})
    first, second = per_device.environments(["GPU-aa11", "MIG-cc33"], free, {"A": "1", "IMAGEMILL_DEVICE": "auto"})
    assert (first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]) == ("GPU-aa11", "MIG-cc33")
    shares = {"A": "1", "IMAGEMILL_DEVICE": "cuda", "IMAGEMILL_THREADS": "4", "IMAGEMILL_MEMORY": "2000"}
    assert {**first, "CUDA_VISIBLE_DEVICES": ""} == {**shares, "CUDA_VISIBLE_DEVICES": ""}
    # What was set holds for each.
    told = free.model_copy(update={"threads": 3, "memory": 700})
    assert per_device.environments(["0", "1"], told, {})[1] == {
        "IMAGEMILL_DEVICE": "cuda",
        "IMAGEMILL_THREADS": "3",
        "IMAGEMILL_MEMORY": "700",
        "CUDA_VISIBLE_DEVICES": "1",
    }


def test_names_stay_apart() -> None:
    assert per_device.named("worker-7@%h", 2) == "worker-7-2@%h"
    assert per_device.named("gpu", 0) == "gpu-0"


_CHILD = """
import os, pathlib, signal, sys, time
device = os.environ["CUDA_VISIBLE_DEVICES"]
lives = pathlib.Path(sys.argv[1]) / device
lives.open("a").write(f"{os.getpid()}\\n")
if device == "drained":
    sys.exit(0)
if device == "unsettled":
    sys.exit(2)
if device == "sick" and len(lives.read_text().split()) < 3:
    os._exit(71)
def leave(number, _):
    lives.with_suffix(".told").write_text(signal.Signals(number).name)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
lives.with_suffix(".up").touch()
time.sleep(100)
"""
_PARENT = """
import logging, os, sys
from worker.process import per_device
logging.basicConfig(stream=sys.stderr)
per_device._BACK_OFF = (0.05, 0.2)
devices = ["well", "sick", "drained", "unsettled"]
command = [sys.executable, "-c", sys.argv[1], sys.argv[2]]
environments = [{**os.environ, "CUDA_VISIBLE_DEVICES": device} for device in devices]
sys.exit(per_device.keep([command] * len(devices), environments))
"""


def started(folder: Path) -> subprocess.Popen[bytes]:
    """Start a parent that writes to the file `log`."""
    command = [sys.executable, "-c", _PARENT, _CHILD, str(folder)]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, stderr=log)


def test_a_sick_process_is_started_again_and_a_drained_one_is_not(tmp_path: Path) -> None:
    # Given four devices, one of them sick for a while, one drained and one with settings that are wrong,
    devices = ("well", "sick", "drained", "unsettled")
    running, log = started(tmp_path), tmp_path / "log"
    up = [tmp_path / f"{device}.up" for device in devices[:2]]
    try:
        wait_until(lambda: all(path.exists() for path in up), timeout=60)
        wait_until(lambda: log.read_text().count("stays down") == 2, 60, "the two that end by themselves to have ended")
        # if the whole is told to end,
        running.send_signal(signal.SIGTERM)
        running.wait(60)
    finally:
        running.kill()
        running.wait()
    # I expect each running process to be told, and none to have been started too often.
    said = log.read_text()
    lives = {device: len((tmp_path / device).read_text().split()) for device in devices}
    assert lives == {"well": 1, "sick": 3, "drained": 1, "unsettled": 1}
    assert {path.read_text() for path in tmp_path.glob("*.told")} == {"SIGTERM"}
    assert running.returncode == 2
    assert "The worker on sick ended with 71; it is started again" in said
    assert "The worker on drained has ended with 0 and stays down" in said


_NOTED = """
import json, os, pathlib, sys
shown = ("CUDA_VISIBLE_DEVICES", "IMAGEMILL_DEVICE", "IMAGEMILL_THREADS")
told = [os.environ[one] for one in shown] + sys.argv[2:]
(pathlib.Path(sys.argv[1]) / f"{os.getpid()}.json").write_text(json.dumps(told))
"""


def test_the_command_starts_a_worker_for_each_of_eight_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a machine with eight GPUs and a torch that could use them,
    listing = "".join(f"GPU {n}: NVIDIA H100 80GB HBM3 (UUID: GPU-{n})\\n" for n in range(8))
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{listing}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for variable in ("DEVICE", "THREADS", "MEMORY"):
        monkeypatch.setenv(f"IMAGEMILL_{variable}", "auto" if variable == "DEVICE" else "0")
    monkeypatch.setattr(per_device, "torch_has_cuda", lambda: True)
    monkeypatch.setattr(per_device, "cores", lambda: 16)
    keep = per_device.keep

    def noted(commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]]) -> int:
        started = [[sys.executable, "-c", _NOTED, str(tmp_path), *command] for command in commands]
        return keep(started, environments)

    monkeypatch.setattr(per_device, "keep", noted)
    # if I run a worker,
    done = CliRunner().invoke(cli, ["run", "--device", "auto", "--queues", "classify", "--name", "gpu@%h"])
    # I expect eight processes, each with a name, a device and an eighth of the cores of its own.
    assert done.exit_code == 0, done.output
    assert "each of 8 devices" in done.output
    found = sorted(json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert [one[:3] for one in found] == [[f"GPU-{n}", "cuda", "2"] for n in range(8)]
    assert [one[-1] for one in found] == [f"gpu-{n}@%h" for n in range(8)]
    assert all(one[4:][:5] == ["-m", "worker.cli", "run", "--queues", "classify"] for one in found)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_no_process_outlives_the_one_that_keeps_it(tmp_path: Path) -> None:
    running = started(tmp_path)
    wait_until((tmp_path / "well.up").exists, timeout=60)
    pid = int((tmp_path / "well").read_text())
    running.kill()
    running.wait(60)

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    wait_until(gone, timeout=60)
    assert os.getpid() != pid
