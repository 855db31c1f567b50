"""A decoder that crashes on `poison`, never ends on `slow`, and is otherwise as good as any."""

from __future__ import annotations

import ctypes
from typing import Any

from worker.engine.images import decode, decode_child

_decode = decode.decode


def _dying(data: bytes, *args: Any, **kwargs: Any) -> decode.Decoded:
    if data == b"poison":
        ctypes.string_at(0)
    while data == b"slow":
        pass
    return _decode(data, *args, **kwargs)


decode.decode = _dying

if __name__ == "__main__":
    decode_child.main()
