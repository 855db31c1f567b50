"""`imagemill watch upload`: feed a watch from a folder of this machine, until it is stopped."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from producer.cli.common import print_json, say, shared_options

if TYPE_CHECKING:
    from producer.client import Client
    from producer.uploads.upload import Uploaded

_TELL_SECONDS = 10.0


@click.command()
@click.argument("name")
@click.argument("folder")
@click.option("--under", metavar="KEYS", default="", help="Folder of keys below the watch's prefix, one for each PC.")
@click.option(
    "--settle",
    metavar="TIME",
    default="2s",
    show_default=True,
    help="Send a file when its size and time have stood still for so long.",
)
@click.option("--once", is_flag=True, help="Send what is there, and end.")
@shared_options
def upload(name: str, folder: str, under: str, settle: str, once: bool, as_json: bool) -> None:
    """Upload the images that appear below FOLDER to the prefix of the watch NAME, until Ctrl-C or SIGTERM.

    What appeared while nobody ran is sent first. A file that changes is sent again; hidden ones are left out. It waits
    for a store that is away, and needs no Redis.

    \b
    Examples:
      imagemill watch upload camera /srv/ftp/camera
      imagemill watch upload camera /srv/ftp/gate-2 --under gate-2 --settle 500ms
    """
    from contract.watches.record import parse_every
    from producer.client import Client

    run(Client(), name, Path(folder), under, parse_every(settle, "--settle"), once=once, as_json=as_json)


def run(
    client: Client, name: str, folder: Path, under: str, settle: float, *, once: bool = False, as_json: bool = False
) -> None:
    """Upload until a signal comes; exit with 1 if with `once` some file could not be sent."""
    told = Telling()
    with _stopped_by_signals() as stop:
        done = client.upload_to_watch(
            name, folder, under=under, settle=settle, once=once, stop=stop, say=say, progress=told
        )
    if as_json:
        print_json(done.model_dump())
    else:
        say(f"Sent {told.text(done)}.")
    if once and done.refused:
        raise click.exceptions.Exit(1)


class Telling:
    """Prints how far an upload is, at most every ten seconds, and only if something was sent."""

    def __init__(self) -> None:
        self._at, self._sent = 0.0, 0

    def __call__(self, now: Uploaded) -> None:
        if now.sent != self._sent and time.monotonic() - self._at >= _TELL_SECONDS:
            self._at, self._sent = time.monotonic(), now.sent
            say(f"Sent {self.text(now)}.")

    @staticmethod
    def text(now: Uploaded) -> str:
        """Return the counts as people read them, without those that are 0."""
        parts = [f"{now.sent:,} {'file' if now.sent == 1 else 'files'}, {now.bytes / 1e6:,.1f} MB"]
        parts += [f"{now.unchanged:,} were there already"] if now.unchanged else []
        parts += [f"{now.waiting:,} wait"] if now.waiting else []
        parts += [f"{now.refused:,} cannot be sent"] if now.refused else []
        return "; ".join(parts)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Give an event that the first SIGINT or SIGTERM sets; the second does what it always does."""
    stop, signals = threading.Event(), (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.getsignal(one) for one in signals}

    def restore() -> None:
        for one in signals:
            signal.signal(one, before[one])

    def end(*_: object) -> None:
        stop.set()
        restore()
        say("Stopping; what is under way is sent to its end.")

    for one in signals:
        signal.signal(one, end)
    try:
        yield stop
    finally:
        restore()
