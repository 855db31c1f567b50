"""Feeds a watch from a folder of this machine: where its files go, and which record says what was sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, InvalidSource, InvalidWatch
from contract.keys.watches import watch_feed
from contract.settings import Settings
from contract.watches.record import Watch, Watches
from producer.uploads.sent import SentFiles
from producer.uploads.upload import Uploaded, Uploader

SETTLE_SECONDS = 2.0
"""How long a file must stand still before it is sent."""


def own_prefix(store: ObjectStore, name: str) -> str:
    """Return the `s3://` prefix of a watch that is fed by uploads and has no other source."""
    return f"s3://{store.bucket}/{watch_feed(name)}"


def check_folder(folder: str | Path) -> Path:
    """Return the absolute path of a folder; raises InvalidSource if there is none."""
    found = Path(folder).expanduser()
    if not found.is_dir():
        raise InvalidSource(f"There is no folder {folder} on this machine; create it, or correct the path.")
    return found.resolve()


def feed(
    store: ObjectStore,
    settings: Settings,
    name: str,
    folder: str | Path,
    *,
    under: str = "",
    settle: float = SETTLE_SECONDS,
    once: bool = False,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[Uploaded], None] = lambda _: None,
) -> Uploaded:
    """Upload what appears in `folder` to the prefix of the watch `name`, until `stop` is set; return what was sent.

    Raises UnknownWatch, also when the watch is removed meanwhile, and InvalidSource, InvalidInput and InvalidSettings
    for what cannot be.
    """
    path, watch = check_folder(folder), Watches(store).get(name)
    address = _address(watch, under)

    def check() -> None:
        now = Watches(store).get(name)
        if now.stamp != watch.stamp:
            raise InvalidWatch(f"The watch {name} was removed and added again; start the upload again too.")

    # A watch that was added again may be one of another, empty bucket.
    record = SentFiles.path(path, f"{store.endpoint}/{address}#{watch.name}-{watch.stamp}", settings.state_dir)
    with closing(SentFiles(record)) as sent:
        uploader = Uploader(
            store,
            path,
            address,
            sent,
            settle=settle,
            max_bytes=settings.max_image_bytes,
            say=say,
            progress=progress,
            check=check,
        )
        say(f"Uploading what appears in {path} to {address} for the watch {name}.")
        return uploader.run(stop or threading.Event(), once=once)


def _address(watch: Watch, under: str) -> str:
    parts = [part for part in under.split("/") if part]
    if any(part.startswith(".") or not part.isprintable() for part in parts):
        raise InvalidInput(f"--under {under!r} cannot be a folder of keys; name one such as `gate-2`.")
    below = "".join(f"{part}/" for part in parts)
    prefix = watch.source if watch.prefix.endswith("/") or not watch.prefix else f"{watch.source}/"
    return f"{prefix.rstrip('/')}/{below}"
