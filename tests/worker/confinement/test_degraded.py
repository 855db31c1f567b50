"""On a kernel that refuses every layer, or some, children still work, and what is missing is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.confinement import layers
from worker.confinement.confine import LAYERS

ROOT = Path(__file__).parents[3]

REFUSING = """
import ctypes, json, sys
real = ctypes.CDLL
refused = set(sys.argv[1].split(","))

class Refusing:
    '''The C library of a kernel that knows some calls not (ENOSYS), or allows them not (EPERM).'''

    def __init__(self, *args, **more):
        self._real = real(*args, **more)

    def _failing(self, *_):
        ctypes.set_errno(38 if "ENOSYS" in refused else 1)
        return -1

    def unshare(self, *args):
        return self._failing() if "network" in refused else self._real.unshare(*args)

    def syscall(self, number, *args):
        capset = {"x86_64": 126, "aarch64": 91}.get(__import__("os").uname().machine)
        layer = "capabilities" if number == capset else "landlock"
        return self._failing() if layer in refused else self._real.syscall(number, *args)

    def prctl(self, option, *args):
        layer = {38: "no_new_privs", 22: "seccomp"}.get(option)
        return self._failing() if layer in refused else self._real.prctl(option, *args)

ctypes.CDLL = Refusing
"""
CONFINE = """
from worker.confinement.confine import Limits, confine
print(json.dumps(confine(Limits())))
"""
DECODER = """
from worker.confinement.confine import Limits, confine, only_pipes
print(json.dumps(only_pipes(confine(Limits()))))
"""


def run(program: str, refused: str) -> object:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", REFUSING + program, refused]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the layers are Linux's")
@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
@pytest.mark.parametrize("layer", [*LAYERS[1:], ",".join(LAYERS[1:])])
def test_a_layer_that_the_kernel_refuses_is_missing_from_the_answer(layer: str, error: str) -> None:
    # Given a kernel that refuses a layer, or all of them, if a process confines itself, I expect no error,
    found = run(CONFINE, f"{layer},{error}")
    # that it claims none of them, nor what hangs on them, and all others that this machine has.
    gone = set(layer.split(","))
    gone |= {"landlock", "seccomp"} if "no_new_privs" in gone else set()
    whole = run(CONFINE, "")
    assert isinstance(found, list) and isinstance(whole, list)
    assert set(found) == set(whole) - gone
    assert "rlimits" in found


@pytest.mark.parametrize("layer", ["no_new_privs", "seccomp"])
def test_a_decoder_says_that_its_calls_are_not_filtered(layer: str) -> None:
    found = run(DECODER, f"{layer},ENOSYS")
    assert isinstance(found, list) and "rlimits" in found and "seccomp" not in found


def test_what_is_missing_is_said_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_said", set())
    monkeypatch.setattr(layers, "_missing", {})
    # Given children on a machine without two of the layers,
    for _ in range(3):
        layers.note("a.module", LAYERS, [layer for layer in LAYERS if layer not in ("landlock", "seccomp")])
    # I expect one warning that names them, and the heartbeat to know.
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.getMessage() == "This machine cannot confine children such as a.module by landlock, seccomp"
    assert layers.missing() == ("landlock", "seccomp")
