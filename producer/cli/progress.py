"""Shows the progress of a job on stderr: a live bar on a terminal, elsewhere a plain line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from contract.printable import printable
from producer.cli.common import duration, figures, on_terminal, say

if TYPE_CHECKING:
    from contract.jobs.status import Status
    from producer.sources.pack import Progress

_LINE_SECONDS = 5.0


@contextmanager
def packing_bar() -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows the progress of packing and uploading."""

    def what(p: Progress) -> str:
        return "packing" if p.packed < p.total else "uploading"

    if on_terminal():
        with _bar("{task.fields[speed]}") as update:
            # A shard is uploaded while the next one is packed: the bar is the mean of both.
            yield lambda p: update(what(p), (p.packed + p.uploaded) / 2, p.total, f"{p.uploaded:,} uploaded")
    else:
        due = _Due()

        def line(p: Progress) -> None:
            if due() or p.uploaded == p.total:
                say(f"{what(p)}: {p.uploaded:,} of {p.total:,} {p.unit} uploaded")

        yield line


@contextmanager
def export_bar() -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows how many images of a total are written."""
    if on_terminal():
        with _bar("") as update:
            yield lambda done, total: update("writing", done, total, "")
    else:
        due = _Due()

        def line(done: int, total: int) -> None:
            if due() or done == total:
                say(f"writing: {done:,} of {total:,} images")

        yield line


@contextmanager
def job_bar() -> Iterator[Callable[[Status], None]]:
    """Yield a function that shows the status of a job."""
    if on_terminal():
        with _bar("{task.fields[speed]}") as update:
            yield lambda s: update(_what(s), *_part(s), _speed(s))
    else:
        due, last = _Due(), ""

        def line(status: Status) -> None:
            nonlocal last
            if due() or status.state != last:
                last = status.state
                total = "?" if status.total is None else f"{status.total:,}"
                say(f"{status.state}: {status.done:,} of {total}{', ' * bool(_speed(status))}{_speed(status)}")

        yield line


def _what(status: Status) -> str:
    """Return the state of a job, or the epoch that a training is in."""
    metrics = status.metrics or {}
    return f"epoch {metrics['epoch']:.0f}/{metrics['epochs']:.0f}" if "epochs" in metrics else status.state


def _part(status: Status) -> tuple[int, int | None]:
    """Return what is done and the total: of the whole job, or of the epoch that a training is in."""
    metrics = status.metrics or {}
    if status.total is None or "epochs" not in metrics or status.ended:
        return status.done, status.total
    an_epoch = status.total // int(metrics["epochs"])
    return min(an_epoch, status.done - (int(metrics["epoch"]) - 1) * an_epoch), an_epoch


def _speed(status: Status) -> str:
    parts = [figures(status.metrics)] if status.metrics else []
    if status.images_per_second is not None:
        parts.append(f"{status.images_per_second:,.1f} images/s")
    if status.eta_seconds is not None:
        parts.append(f"{duration(status.eta_seconds)} left")
    if status.errors:
        parts.append(f"{status.errors:,} failed")
    return ", ".join(parts)


@contextmanager
def _bar(extra: str) -> Iterator[Callable[[str, float, int | None, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}"),
        TextColumn(extra),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None, count="", speed="")

        def update(what: str, done: float, total: int | None, speed: str) -> None:
            count = f"{int(done):,}/{'?' if total is None else f'{total:,}'}"
            progress.update(bar, description=printable(what), completed=done, total=total, count=count, speed=speed)

        yield update


class _Due:
    """Return True at the first call, and then once every few seconds."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _LINE_SECONDS
        return True
