"""Measures single requests to a served model: one client, many, more than it can do, and beside a bulk job.

Each figure stands beside a bare one of the same run, taken by turns: decoding and the model for one image, the ideal
loop of labelling for many, and the job alone.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from contract import settings as configuration
from contract.backend.objects import ObjectStore
from contract.errors import WorkerUnfit
from contract.garbage_collection import set_aside
from contract.models.registry import Preprocess
from contract.online.messages import DEADLINE_SECONDS
from contract.records import Precision
from contract.settings import Settings
from worker.bench import askers, litserve, overload
from worker.bench.clients import Ask, Seen, closed, spread, tasks
from worker.bench.cpu import CpuSeconds
from worker.bench.labelling import ideal_loop
from worker.bench.stack import Commands, say, stack, upload
from worker.bench.turns import in_turn
from worker.engine.images.decode import decode
from worker.engine.types import PromptRuntime, Runtime
from worker.zoo import builtin

Figures: TypeAlias = dict[str, Any]
Open: TypeAlias = Callable[[], AbstractAsyncContextManager[Ask]]
"""Opens connections of clients, which live as long as one event loop."""

REQUESTS = 300
"""Requests of the one client."""
CLIENTS = 16
MANY_SECONDS = 8.0
"""A run of 16 clients; the ideal loop takes about as long for 2,000 photos on two cores."""
_BLOCK = 20
"""Requests of one client before the next way has its turn: long enough for caches to be its own."""
_READY_SECONDS = 300.0
_NO_LIMIT = 2**62


@dataclass(frozen=True)
class _Bench:
    """What all measurements share."""

    imagemill: Commands
    settings: Settings
    """The settings of the stack."""
    photos: Sequence[Path]
    images: Sequence[bytes]
    runtime: Runtime
    """The one that this process runs itself."""
    preprocess: Preprocess
    precision: Precision
    repeat: int

    def online(self, deadline: float = DEADLINE_SECONDS) -> AbstractAsyncContextManager[Ask]:
        return askers.redis(self.settings, builtin.NAME, deadline)

    def api(self) -> AbstractAsyncContextManager[Ask]:
        return askers.api(self.settings, builtin.NAME, CLIENTS)

    def bare(self, image: bytes) -> None:
        """Decode one image and run the model on it, as a worker does that has nothing else to do."""
        how = self.preprocess
        pixels = decode(image, how.size, crop=how.crop, interpolation=how.interpolation, max_pixels=_NO_LIMIT).pixels
        submit = self.runtime.submit_first if isinstance(self.runtime, PromptRuntime) else self.runtime.submit
        submit(np.stack([pixels])).result()


def measure(
    base: Path,
    photos: Sequence[Path],
    runtime: Runtime,
    preprocess: Preprocess,
    weights: Path,
    precision: Precision,
    *,
    repeat: int,
    seconds: float,
    with_peers: bool,
) -> tuple[dict[str, list[float]], dict[str, dict[str, float]], Figures]:
    """Return images/s of many clients and their ideal, CPU seconds by process, and all other figures.

    `weights` is the model's file, for peers; an overload lasts for `seconds`.
    """
    if isinstance(runtime, PromptRuntime):
        runtime.prepare()
    with stack(base / "serving") as imagemill:
        settings = configuration.load(data=base / "serving" / "stack")
        upload(ObjectStore(settings), photos, base, objects=False)
        _serve(imagemill, precision)
        images = [path.read_bytes() for path in photos]
        set_aside()  # clients have no runtime that stops them at each collection
        bench = _Bench(imagemill, settings, photos, images, runtime, preprocess, precision, repeat)
        cpu = CpuSeconds(imagemill.supervisor)
        single = asyncio.run(_one_client(bench))
        runs, many = _many_clients(bench, cpu, weights if with_peers else None)
        best = statistics.median(runs["serve_clients"])
        beside = _beside_a_job(bench, best)
        over: list[Figures] = []

        def overloaded() -> float:
            memory = partial(overload.memory, settings, imagemill.supervisor)
            over.append(overload.measure(bench.online, images, best, seconds, memory))
            return float(over[0]["goodput"])

        cpu.of("overload", overloaded)()
    figures = {"one_client": single, "clients": many, "beside_a_job": beside, "overload": over[0]}
    return runs, cpu.medians(repeat), figures


def _serve(imagemill: Commands, precision: Precision) -> None:
    """Serve the model, and wait until a worker has it ready."""
    say("serving the model …")
    imagemill("serve", builtin.NAME, "--precision", precision)
    until = time.monotonic() + _READY_SECONDS
    while not imagemill("served")["ready"]:
        if time.monotonic() > until:
            raise WorkerUnfit(f"No worker serves {builtin.NAME} after {_READY_SECONDS:g} s; its log says why.")
        time.sleep(0.2)


async def _one_client(bench: _Bench) -> Figures:
    """Ask for one image after the other, and label them bare, by turns."""
    say(f"one client: {REQUESTS} requests each way …")
    bare: list[float] = []
    async with bench.online() as ask, bench.api() as post:
        seen = {"product": Seen(), "http": Seen()}
        ways = {"product": ask, "http": post}
        for n in range(-_BLOCK, REQUESTS, _BLOCK):  # the first block warms up
            if n == 0:
                bare.clear()
                seen = {name: Seen() for name in seen}
            block = [bench.images[k % len(bench.images)] for k in range(n, min(n + _BLOCK, REQUESTS))]
            for image in block:
                began = time.perf_counter()
                bench.bare(image)
                bare.append(time.perf_counter() - began)
            for name, way in ways.items():
                for image in block:
                    await seen[name].ask(way, image)
    return {
        "requests": REQUESTS,
        "bare": spread(bare),
        **{name: _described(found) for name, found in seen.items()},
    }


def _many_clients(bench: _Bench, cpu: CpuSeconds, weights: Path | None) -> tuple[dict[str, list[float]], Figures]:
    """Run the ideal loop and 16 clients by turns; with `weights` also clients of LitServe, and of the HTTP API."""
    found: dict[str, list[Seen]] = {}

    def clients(name: str, opened: Open) -> Callable[[], float]:
        def step() -> float:
            seen = asyncio.run(_closed(opened, bench.images))
            found.setdefault(name, []).append(seen)
            return seen.rate

        return step

    def peer() -> float:
        assert weights is not None
        with litserve.running(weights, bench.precision, bench.runtime) as port:
            return clients("peer_litserve", partial(askers.litserve, port, CLIENTS))()

    steps: dict[str, Callable[[], float]] = {
        "serve_ideal": cpu.of("ideal", lambda: ideal_loop(bench.photos, bench.runtime, bench.preprocess)),
        "serve_clients": cpu.of("clients", clients("serve_clients", bench.online)),
        "serve_http": cpu.of("http", clients("serve_http", bench.api)),
    }
    if weights is not None and litserve.installed():
        steps["peer_litserve"] = peer
    runs = in_turn(steps, bench.repeat)
    return runs, {"number": CLIENTS, "seconds": MANY_SECONDS} | {
        name: _described(*each[-bench.repeat :]) for name, each in found.items()
    }


async def _closed(opened: Open, images: Sequence[bytes]) -> Seen:
    async with opened() as ask:
        await closed(ask, images, CLIENTS, seconds=0.5)  # connections, and what a server does at first
        return await closed(ask, images, CLIENTS, seconds=MANY_SECONDS)


def _beside_a_job(bench: _Bench, best: float) -> Figures:
    """Run a job alone and beside a client that always waits for an answer, by turns.

    What the client gets is not there for the job, so the job's share is of what the client leaves: its rate alone,
    less the part that the client's rate is of the best.
    """
    alone, beside, left, asked = [], [], [], []
    latencies: list[float] = []
    for n in range(bench.repeat):
        say(f"run {n + 1} of {bench.repeat}: a job alone, and beside a client")
        alone.append(_rate(_job(bench)))
        job, seen = asyncio.run(_job_and_client(bench))
        beside.append(_rate(job))
        left.append(alone[-1] * max(0.0, 1 - seen.rate / best))
        asked.append(seen.rate)
        latencies += seen.latencies
    return {
        "job_alone": round(statistics.median(alone), 1),
        "job_beside": round(statistics.median(beside), 1),
        "client": round(statistics.median(asked), 1),
        "requests": len(latencies),
        "of_alone": _share(beside, alone),
        "of_its_share": _share(beside, left),
        **spread(latencies),
    }


def _job(bench: _Bench) -> Mapping[str, Any]:
    return bench.imagemill(
        "classify", "s3://imagemill/bench/tars/", "--model", builtin.NAME, "--precision", bench.precision
    )


async def _job_and_client(bench: _Bench) -> tuple[Mapping[str, Any], Seen]:
    """Return a job, and the answers to one client that were asked for and given while it ran."""
    async with bench.online() as ask, tasks() as group:
        running = group.create_task(asyncio.to_thread(_job, bench))
        seen = await closed(ask, bench.images, 1, until=running.done)
    job = running.result()
    since = time.time() - time.perf_counter()  # of this process' clock, to compare with the job's times
    began, ended = (datetime.fromisoformat(job[key]).timestamp() - since for key in ("created_at", "finished_at"))
    return job, seen.within(began, ended)


def _rate(job: Mapping[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(job[key]) for key in ("created_at", "finished_at"))
    return float(job["done"]) / (ended - began).total_seconds()


def _described(*runs: Seen) -> Figures:
    """Return what the clients of some runs saw: latencies of all, and how many requests had no label."""
    return spread([seconds for seen in runs for seconds in seen.latencies]) | {
        "refused": sum(len(seen.refusals) for seen in runs),
        "expired": sum(seen.expired for seen in runs),
    }


def _share(values: Sequence[float], of: Sequence[float]) -> float | None:
    """Return the median of some values as shares of others, run by run."""
    shares = [value / whole for value, whole in zip(values, of, strict=True) if whole > 0]
    return round(statistics.median(shares), 3) if shares else None
