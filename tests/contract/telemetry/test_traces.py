"""Traces of jobs: who finds which trace, what is sent, and what a process that traces nothing pays."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from contract.errors import InvalidSettings, JobStopped, StoreUnavailable
from contract.settings import Settings
from contract.telemetry import traces
from contract.telemetry.traces import Identity
from tests.mill import ROOT
from tests.otlp import Seen, Sink, collecting

CREATED = "2026-11-26T08:25:37.310Z"


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: pip install '.[otel]'")
    monkeypatch.setattr("contract.telemetry.spans._PATIENCE", 60.0)  # this collector answers, however busy the machine
    with collecting(monkeypatch) as found:
        yield found
        traces.close()


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_known", type(traces._known)())


def trace(share: float) -> None:
    traces.set_up(Settings(traces=share), "tests")


def created() -> str:
    return CREATED


def sent(sink: Sink, job: str) -> list[Seen]:
    """What was sent of a job, after the process has ended its tracing."""
    traces.close()
    return sink.spans(job)


def test_everybody_finds_the_same_trace_of_a_job() -> None:
    one = Identity.of("cats", CREATED)
    assert one == Identity.of("cats", "2026-11-26T09:25:37.310+01:00")
    assert one != Identity.of("dogs", CREATED)
    # A job that was deleted and submitted again is another one.
    assert one != Identity.of("cats", "2026-11-26T08:25:37.311Z")


def test_an_exception_makes_an_error_but_a_stop_does_not(sink: Sink) -> None:
    # Given a process that traces all jobs,
    trace(1.0)

    # if one shard fails and another one is stopped, each in a step of it,
    def run(error: Exception) -> None:
        with pytest.raises(type(error)), traces.span("shard", "cats", created, shard=3), traces.step("make"):
            raise error

    run(StoreUnavailable("The store \x1b[2J is away."))
    run(JobStopped("The job was stopped."))
    spans = sent(sink, "cats")

    # I expect an error without control characters, with the exception, and no error of the other one.
    assert [span.error for span in spans] == ["StoreUnavailable: The store \\x1b[2J is away.", ""]
    assert [span.events for span in spans] == [("exception",), ()]
    assert {span.attributes["imagemill.shard"] for span in spans} == {3}


def test_of_a_job_that_is_not_sampled_errors_are_sent(sink: Sink) -> None:
    trace(0.0)
    with traces.span("shard", "cats", created):
        traces.note(outcome="committed")
    with traces.span("shard", "cats", created):
        traces.fail("it raised")
    [span] = sent(sink, "cats")
    assert span.error == "it raised"


def test_a_job_is_sampled_whole_or_not_at_all(sink: Sink) -> None:
    # Given a process that traces a quarter of all jobs,
    trace(0.25)

    # if 200 jobs have three spans each, I expect all or none of them.
    jobs = [f"job-{n}" for n in range(200)]
    for name in ("plan", "shard", "finalize"):
        for job in jobs:
            with traces.span(name, job, created):
                pass
    traces.close()
    counts = [len(sink.spans(job)) for job in jobs]
    assert set(counts) == {0, 3}
    assert 25 <= counts.count(3) <= 75  # the ids are digests: the count is always the same


def test_the_span_of_a_job_is_the_one_that_the_others_are_below(sink: Sink) -> None:
    trace(1.0)
    with traces.span("shard", "cats", created):
        pass
    traces.ended("cats", CREATED, "2026-11-26T08:26:00.000Z", again=False, attributes={"state": "succeeded"})
    shard, job = sent(sink, "cats")
    assert (job.parent, shard.parent) == ("", job.id)
    assert job.trace == shard.trace
    assert (job.end - job.start) == pytest.approx(22.69e9, abs=1e6)


def test_work_goes_on_whatever_tracing_does(sink: Sink) -> None:
    # Given a job whose creation cannot be read,
    def unknown() -> str:
        raise StoreUnavailable("The store is away.")

    # if a shard of it runs, I expect it to run, and to be traced once it can be.
    trace(1.0)
    done = []
    for of in (unknown, lambda: "yesterday", created):
        with traces.span("shard", "cats", of), traces.step("make"):
            done.append(of)
    assert len(done) == 3
    assert len(sent(sink, "cats")) == 1


def test_a_collector_that_does_not_answer_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk")
    # Given a server that accepts and says nothing, and a patience of hours,
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100000")
        trace(1.0)
        with traces.span("shard", "cats", created):
            pass
        # if the process ends, I expect it to end.
        traces.close()


def test_without_opentelemetry_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "contract.telemetry.spans", None)
    with pytest.raises(InvalidSettings, match=r"pip install 'imagemill\[otel\]'"):
        trace(1.0)


def test_who_traces_nothing_does_not_import_it() -> None:
    code = (
        "import sys\n"
        "from contract.telemetry import traces\n"
        "from contract.settings import Settings\n"
        "import producer, worker.execution.job_runner, worker.control.finalize, worker.process.process\n"
        "traces.set_up(Settings(), 'tests')\n"
        "with traces.span('shard', 'cats', lambda: 1 / 0), traces.step('make'):\n"
        "    traces.note(images=3)\n"
        "    traces.fail('it raised')\n"
        # Redis' client imports parts of OpenTelemetry where it is installed.
        "print([name for name in sys.modules if 'otlp' in name or name == 'contract.telemetry.spans'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("given", "read"), [("", None), ("0", 0.0), ("0.1", 0.1), ("1", 1.0)])
def test_the_share_is_a_setting(monkeypatch: pytest.MonkeyPatch, given: str, read: float | None) -> None:
    monkeypatch.setenv("IMAGEMILL_TRACES", given)
    assert Settings().traces == read
