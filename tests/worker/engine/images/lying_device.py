"""A decoder on a device that was taken over, and answers what its first file says."""

from __future__ import annotations

import json
from collections.abc import Sequence

from contract.data.children.messages import Head
from worker.confinement.serve import Handler, serve


def make(greeting: Head) -> tuple[Head, Handler]:
    def run(request: Head, files: list[bytes]) -> tuple[Head, Sequence[bytes]]:
        answer = json.loads(files[0][3:])
        return {"found": answer["found"]}, [bytes(size) for size in answer["sizes"]]

    return {"version": "lies"}, run


if __name__ == "__main__":
    serve(make)
