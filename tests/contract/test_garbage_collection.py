"""What lives as long as a process is looked at once, and no garbage is kept for it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, weakref
from contract.garbage_collection import set_aside

class Node:
    pass

def cycle():
    node = Node()
    node.itself = node
    return node

old = cycle()
set_aside()
held = gc.get_freeze_count()
assert held > 1000, held

young, gone = cycle(), weakref.ref(old)
set_aside()
assert gc.get_freeze_count() <= held  # nothing was imported since
told = weakref.ref(young)
del old, young
gc.collect()
assert told() is None  # garbage that is not set aside is freed as ever
assert gone() is not None

import wave
set_aside()
assert gone() is None  # and what was set aside, with the next import
assert gc.get_freeze_count() > held
"""


def test_what_lives_is_set_aside_with_each_import_and_garbage_is_freed() -> None:
    # Given a process of its own, whose collector nobody else has told anything,
    # if it sets objects aside, and again after an import, I expect what the script asserts.
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
