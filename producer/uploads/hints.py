"""Hints of the operating system that something in a folder has changed, by `watchfiles`: inotify on Linux.

They save waiting, and nothing rests on them: a network drive tells nothing of what others write to it, and a burst may
be more than the system remembers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)

_GATHER_MS, _STEP_MS = 200, 100


class Hints:
    """Tells `tell` each path that changes below a folder, from a thread of its own, from `follow` to `close`."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder, self._tell = folder, tell
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.reason = ""
        """Why there are none, in one sentence; empty if there are."""

    def follow(self, *, again: bool = False) -> None:
        """Begin if that was not done, or failed, or with `again` if the folder is another one now; return at once."""
        if again:
            self.close()
        elif self._thread is not None and self._thread.is_alive():
            return
        try:
            import watchfiles
        except ImportError:
            self.reason = "`watchfiles` is not installed: pip install 'imagemill[upload]'"
            return
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(watchfiles.watch, self._closing), name="hints", daemon=True
        )
        self._thread.start()

    def _run(self, watch: Callable[..., Iterator[set[tuple[int, str]]]], closing: threading.Event) -> None:
        found = watch(
            self._folder,
            watch_filter=None,
            debounce=_GATHER_MS,
            step=_STEP_MS,
            stop_event=closing,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )
        try:
            for changes in found:
                for _, path in changes:
                    self._tell(path)
        except Exception as error:  # it raises what the system answers: no folder, too many folders, no descriptors
            self.reason = str(error)[:200]
            log.debug("No hints of %s: %s", self._folder, error)

    def close(self) -> None:
        """Tell nothing more."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(5)
