"""Prints the latencies of served models, beside what issue and documentation ask of two cores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from rich.table import Table

Figures: TypeAlias = Mapping[str, Any]

MORE_P50_MS, MORE_P99_MS = 3.0, 15.0
"""What a request of one client may take beyond decoding and the model."""
BESIDE_MS = 100.0
"""What a job may add to the 99th percentile: a chunk that runs is waited for."""
OF_SHARE, OF_BEST, REFUSAL_MS = 0.8, 0.9, 50.0


def serving_table(figures: Figures) -> Table:
    """Return a table with a row for each figure of `worker.bench.serving.measure`, and its bar if there is one."""
    table = Table(title="served, one image a request", caption="¹ before, the most in each half, after")
    table.add_column("what", no_wrap=True)
    table.add_column("measured", justify="right")
    table.add_column("bar", justify="right")
    for section in (_one(figures), _many(figures), _beside(figures), _overload(figures)):
        table.add_section()
        for row in section:
            table.add_row(*row)
    return table


def _one(figures: Figures) -> Iterator[tuple[str, str, str]]:
    found = figures["one_client"]
    bare = found["bare"]
    bar = f"≤ {bare['p50_ms'] + MORE_P50_MS:.1f} / {bare['p99_ms'] + MORE_P99_MS:.1f} ms"
    yield f"[bold]one client[/], {found['requests']} requests, p50 / p99", "", ""
    yield "  decode and forward alone", _both(bare), ""
    yield "  through the online Redis", _both(found["product"]) + _lost(found["product"]), bar
    yield "  over HTTP", _both(found["http"]) + _lost(found["http"]), ""


def _many(figures: Figures) -> Iterator[tuple[str, str, str]]:
    found = figures["clients"]
    yield f"[bold]{found['number']} clients[/] for {found['seconds']:g} s, p50 / p99", "", ""
    for name, meaning in _WAYS.items():
        if name in found:
            yield f"  {meaning}", _both(found[name]) + _lost(found[name]), ""


def _beside(figures: Figures) -> Iterator[tuple[str, str, str]]:
    found = figures["beside_a_job"]
    bar = figures["one_client"]["bare"]["p99_ms"] + BESIDE_MS
    yield f"[bold]one client beside a job[/], {found['client']:,.1f} a second", "", ""
    yield "  p50 / p99", _both(found), f"p99 ≤ {bar:.1f} ms"
    yield "  the job alone, beside, images/s", f"{found['job_alone']:,.1f}, {found['job_beside']:,.1f}", ""
    yield "  of alone", _ratio(found["of_alone"]), ""
    yield "  of what the client leaves", _ratio(found["of_its_share"]), f"≥ {OF_SHARE:.2f}"


def _overload(figures: Figures) -> Iterator[tuple[str, str, str]]:
    found = figures["overload"]
    yield f"[bold]overload[/] for {found['seconds']:g} s, deadline {found['deadline_seconds']:g} s", "", ""
    yield "  requests/s, meant and sent", f"{found['offered']:,.0f}, {found['sent']:,.0f}", ""
    yield "  answered/s", f"{found['goodput']:,.1f}", ""
    yield f"  of the {found['best']:,.1f} of 16 clients", _ratio(found["of_best"]), f"≥ {OF_BEST:.2f}"
    yield "  answered, p50 / p99", _both(found["admitted"]), f"p99 ≤ {1000 * found['deadline_seconds']:,.0f} ms"
    yield f"  refused ({found['refused']:,}), p50 / p99", _both(found["refusal"]), f"≤ {REFUSAL_MS:.0f} ms"
    yield "  too late", f"{found['expired']:,}", ""
    for name, meaning in _MEMORY.items():
        memory = found["memory_mb"][name]
        course = (memory["before"], memory["first_half"], memory["second_half"], memory["after"])
        yield f"  {meaning}, MB¹", ", ".join(f"{mb:,.0f}" for mb in course), "flat"


_WAYS = {
    "serve_clients": "through the online Redis",
    "serve_http": "over HTTP",
    "peer_litserve": "LitServe, over HTTP",
}
_MEMORY = {"online_redis": "online Redis", "worker": "worker"}


def _both(found: Figures) -> str:
    """Return the median and the 99th percentile."""
    return "-" if found["p50_ms"] is None else f"{found['p50_ms']:,.1f} / {found['p99_ms']:,.1f} ms"


def _ratio(found: float | None) -> str:
    return "-" if found is None else f"{found:.2f}"


def _lost(found: Figures) -> str:
    """Say how many requests had no label, if there are any: the latencies are of the others."""
    said = [f"{found[how]:,} {how}" for how in ("refused", "expired") if found.get(how)]
    return f" ({', '.join(said)})" if said else ""
