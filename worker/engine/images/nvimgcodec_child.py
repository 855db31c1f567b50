"""The child of `DeviceDecoder`: decodes the JPEG files of a request together by nvImageCodec.

    python -m worker.confinement.run … worker.engine.images.nvimgcodec_child

It answers with the squares of those that it decodes and nothing for the others, which Pillow decodes and says what is
wrong with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from contract.data.children.messages import Head
from worker.confinement.serve import Handler, serve
from worker.engine.images import decode
from worker.engine.images.nvimgcodec import Codec

PIXELS_AT_MOST = 48 * 2**20
"""Bytes of the images of a request, in full."""


def make(greeting: Head) -> tuple[Head, Handler]:
    """Load nvImageCodec on the device of the greeting; return its version, and what decodes the files of a request."""
    device, room = greeting["device"], int(greeting["room"])
    codec = Codec(None if device is None else int(device), threads=int(greeting["cores"]))

    def run(request: Head, files: list[bytes]) -> tuple[Head, Sequence[bytes | memoryview]]:
        asked = {name: request[name] for name in ("size", "crop")}
        headers: list[tuple[int, int, int] | None] = []
        full = 0
        for file in files:
            header = decode.plain_header(file, **asked, max_pixels=request["max_pixels"])
            size = 0 if header is None else 3 * header[0] * header[1]
            if size > PIXELS_AT_MOST:
                header, size = None, 0
            if full + size > PIXELS_AT_MOST:
                break  # the rest is asked for again
            full += size
            headers.append(header)
        plain = [n for n, header in enumerate(headers) if header is not None]
        extents = [header[:2] for header in headers if header is not None]
        decoded = dict(zip(plain, codec.decode([files[n] for n in plain], extents), strict=True))
        found: list[Head | None] = []
        blobs: list[memoryview] = []
        held = 0
        for n, header in enumerate(headers):
            pixels = decoded.pop(n, None)
            if header is None or pixels is None:
                found.append(None)
                continue
            how = {**asked, "interpolation": request["interpolation"], "regions": request["regions"]}
            one = decode.squared_array(pixels, header[2], **how)
            held += one.pixels.nbytes
            if held > room:
                break
            about: Head = {"width": one.width, "height": one.height}
            if one.region is not None:
                about |= {"open": one.region.extent, "orientation": one.region.orientation}
            found.append(about)
            blobs.append(memoryview(np.ascontiguousarray(one.pixels).data).cast("B"))
        return {"found": found}, blobs

    return {"version": codec.version}, run


if __name__ == "__main__":
    serve(make)
