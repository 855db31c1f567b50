"""Which layers of confinement this machine has."""

from __future__ import annotations

import sys

import pytest

from worker.confinement import layers, probe
from worker.confinement.confine import LAYERS


def test_a_child_tells_the_layers_that_confine_it() -> None:
    found = probe.probe()
    assert "rlimits" in found
    assert set(layers.missing()) >= set(LAYERS) - set(found), "heartbeats and doctor name what is missing"


def test_a_machine_on_which_no_child_starts_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_missing", {})
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert probe.probe() == ()
    assert set(layers.missing()) == set(LAYERS)
