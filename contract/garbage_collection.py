"""Spares Python's garbage collector what lives as long as the process.

A full collection looks at every object while all threads wait: 100 to 200 ms in a process that has imported a runtime
or a web framework, again and again while it answers requests.
"""

from __future__ import annotations

import gc
import sys

_seen = 0
"""Modules that there were when objects were set aside."""


def set_aside() -> None:
    """Take all that lives now out of later collections, if modules were imported since the last call.

    Call it where nothing hurries, and again at times: modules are what fills a process. Each such call is itself a full
    collection, which frees what became garbage among the objects that were set aside before.
    """
    global _seen
    if len(sys.modules) != _seen:
        _seen = len(sys.modules)
        gc.unfreeze()
        gc.collect()
        gc.freeze()
