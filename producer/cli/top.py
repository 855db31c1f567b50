"""`imagemill top`: a live view of queues, jobs and workers."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live

from contract.errors import RedisUnavailable
from contract.fleet.snapshot import Fleet
from producer.cli.common import duration, print_json, say, shared_options
from producer.cli.frame import PROBLEM, as_object, frame, line


@click.command()
@click.option(
    "--every",
    metavar="SECONDS",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    help="Time between two frames.",
)
@click.option("--once", is_flag=True, help="Print one frame and exit; implied when stdout is not a terminal.")
@shared_options
def top(every: float, once: bool, as_json: bool) -> None:
    """Watch queues, jobs and workers; q or Ctrl-C quits.

    With --json, each frame is an object on its own line, until Ctrl-C or, with --once, a single one.

    \b
    Example:
      imagemill top
      imagemill top --json --every 10 >> fleet.jsonl
    """
    from producer.client import Client

    client = Client()
    console = Console(file=sys.stdout, highlight=False, force_terminal=sys.stdout.isatty())
    try:
        if as_json:
            _print_json(client.fleet, every, once)
        elif once or not console.is_terminal or console.is_dumb_terminal:
            console.print(frame(client.fleet(), console.width))
        else:
            _watch(client.fleet, console, every)
    except KeyboardInterrupt:
        return  # Quitting is no failure: nothing was interrupted.


def _print_json(read: Callable[[], Fleet], every: float, once: bool) -> None:
    while True:
        try:
            print_json(as_object(read()))
        except RedisUnavailable as error:
            if once:
                raise
            say(f"{error} Trying again.")
        if once:
            return
        time.sleep(every)


def _watch(read: Callable[[], Fleet], console: Console, every: float) -> None:
    fleet: Fleet | None = None
    with _keys() as quits, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            away = ""
            try:
                fleet = read()
            except RedisUnavailable as error:
                away = f"{error} Trying again."
            live.update(_screen(fleet, away, console), refresh=True)
            if quits(every):
                return


def _screen(fleet: Fleet | None, away: str, console: Console) -> RenderableType:
    """Return what fills the terminal: why Redis is away, if it is, and the last frame that was read."""
    parts: list[RenderableType] = [line(away, PROBLEM)] if away else []
    if fleet and away:
        parts.append(line(f"This was {duration(max(0.0, time.time() - fleet.at))} ago:"))
    if fleet:
        parts.append(frame(fleet, console.width, max_lines=console.height - 2 * bool(away)))
    return Group(*parts)


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits some seconds, and returns True at once when somebody types q."""
    try:
        import termios
        import tty
    except ImportError:  # not on Windows, where Ctrl-C quits
        termios = None  # type: ignore[assignment]
    if termios is None or not sys.stdin.isatty():
        yield _pause
        return
    import os

    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)

    def quits(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([stdin], [], [], left)[0]:
                typed = os.read(stdin, 64)
                if not typed or b"q" in typed.lower():  # nothing is read once the terminal has gone
                    return True
        return False

    try:
        yield quits
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _pause(seconds: float) -> bool:
    time.sleep(seconds)
    return False
