"""Whether this process can be relied upon: nothing is blamed for a fault of the place.

It knows neither what is tested (`worker.engine.canary`) nor how a process ends (`worker.process.leaving`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from contract.errors import WorkerUnfit

log = logging.getLogger(__name__)


class Health:
    """Runs the self-test of a process, and has the process started again if it must be."""

    def __init__(
        self,
        test: Callable[[], None],
        leave: Callable[[str], None] = lambda _: None,
        leaving: threading.Event | None = None,
    ) -> None:
        self._test, self._leave = test, leave
        self._lock = threading.Lock()
        self.leaving = leaving or threading.Event()
        """Set when the process is about to end."""
        self.unfit = ""
        """Why the last test failed; empty if it passed."""

    def check(self) -> None:
        """Test whether known good input passes here; raise WorkerUnfit, which says why, if it does not."""
        with self._lock:
            try:
                self._test()
            except Exception as error:  # a broken device raises anything
                self.unfit = f"a known good image fails on it ({type(error).__name__}: {error})"
                raise WorkerUnfit(f"This worker is unfit: {self.unfit}.") from error
            self.unfit = ""

    def leave(self, why: str) -> None:
        """Have the process give its shards back and end, to be started again."""
        self._leave(why)
