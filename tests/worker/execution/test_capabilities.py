"""What this worker says it can do, by its settings and its machine."""

from __future__ import annotations

from typing import Any

import pytest

from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend
from contract.jobs.numerics import Capabilities, Needs
from contract.keys.models import model_record
from contract.models.rules import Rule
from contract.settings import Settings
from tests.parity import MODEL
from tests.worker.conftest import Jobs
from worker.confinement.confine import LAYERS
from worker.execution import capabilities
from worker.execution.capabilities import Fit, rule_of


def settings(**given: Any) -> Settings:
    return Settings(redis_url="redis://r", s3_endpoint="http://s", **given)


def test_a_worker_loads_everything_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "probe", lambda: pytest.fail("nobody asked for confinement"))
    assert rule_of(settings()).id == ""
    assert rule_of(settings(trusted_models="a*")).id == ""
    assert rule_of(settings(models="b, a*")).models == ("a*", "b")
    off = rule_of(settings(programs="off", trusted_models="mine"))
    assert (off.programs, off.trusted) == (False, ("mine",))


def test_a_machine_that_lacks_a_layer_of_confinement_takes_no_programs_if_asked_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capabilities, "probe", lambda: LAYERS)
    assert rule_of(settings(programs="confined")).id == ""
    monkeypatch.setattr(capabilities, "probe", lambda: tuple(layer for layer in LAYERS if layer != "landlock"))
    rule = rule_of(settings(programs="confined"))
    assert not rule.programs
    assert str(rule) == "no programs (this machine lacks landlock)"


def test_a_shard_that_failed_here_is_left_to_a_worker_that_may_load_its_model(backend: Backend, job: Jobs) -> None:
    backend.store.put(model_record(MODEL.name, MODEL.version), MODEL.to_json())
    spec, kind = job(b"\x01"), kind_of("classify")
    can = Capabilities(device="cpu", precisions=("fp32",))
    fit = Fit(backend, can)
    for name, pattern, there in (("other", "others", False), ("same", MODEL.name, True)):
        rule = Rule(models=(pattern,))
        fields = can.model_copy(update={"rule": rule}).heartbeat()
        backend.ledger.beat(name, 60.0, queues=kind.queue, process=name, **fields)
        assert fit.elsewhere(kind, Needs(), frozenset({"mine"}), spec) == there
    assert not Fit(backend, can.model_copy(update={"rule": Rule(models=("others",))})).loads(spec)
