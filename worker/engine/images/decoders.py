"""Decodes images in processes that hold no credentials and end with an image that takes too long, or in this one.

It knows neither formats nor models: `worker.engine.images.decode` does the work, there as here.
"""

from __future__ import annotations

import logging
import queue
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from contract.data.children.messages import Head
from contract.data.children.process import ending
from contract.errors import DecodeFailed, DecodeTimeout, EmptyFile
from contract.models.registry import Preprocess
from worker.engine.images import decode
from worker.engine.images.chunk import fitting
from worker.engine.images.decode import Decoded, Frame, Interpolation
from worker.engine.images.decoder import Decoder, Gone, error_of, extent_of
from worker.engine.images.device_decoder import DeviceDecoder

log = logging.getLogger(__name__)


@dataclass
class _How:
    """How this process decodes."""

    children: bool = False
    seconds: float = 10.0
    max_pixels: int = 100_000_000
    gpu: DeviceDecoder | None = None
    """What takes JPEG files first, where a GPU decodes them."""


_how = _How()
_idle: queue.LifoQueue[Decoder] = queue.LifoQueue()


def configure(*, children: bool, seconds: float, max_pixels: int, gpu: DeviceDecoder | None = None) -> None:
    """Say how this process decodes from now on: in children or itself, and how much CPU time an image may take.

    `gpu` takes JPEG files of classifiers before.
    """
    global _how
    close()
    _how = _How(children, seconds, max_pixels, gpu)


def beside_pillow() -> str:
    """Return what decodes images here beside Pillow, with its version, such as `nvimgcodec 0.9.0`, or nothing."""
    gpu = _how.gpu
    return f"nvimgcodec {gpu.version}" if gpu is not None and gpu.version and not gpu.given_up else ""


def close() -> None:
    """End the children that are idle, and the one on a GPU."""
    if _how.gpu is not None:
        _how.gpu.close()
    while True:
        try:
            _idle.get_nowait().end()
        except queue.Empty:
            return


def open_item(
    item: bytes | tuple[Frame, ...], how: Preprocess, *, max_pixels: int, frames: int, regions: bool = False
) -> Decoded:
    """Decode an image or a sequence as `decode.open_item` does; raises DecodeTimeout if it takes too long.

    Children that are given one image resize it, whatever `regions` says.
    """
    if not _how.children:
        return decode.open_item(item, how, max_pixels=max_pixels, frames=frames, regions=regions)
    head = {"op": "open", "size": how.size, "crop": how.crop, "interpolation": how.interpolation, "frames": frames}
    uris = [frame.uri for frame in item] if isinstance(item, tuple) else None
    files = [frame.data for frame in item] if isinstance(item, tuple) else [item]
    return _decoded({**head, "max_pixels": max_pixels, "uris": uris}, files)


def open_each(
    items: Sequence[bytes | tuple[Frame, ...]], how: Preprocess, *, max_pixels: int, frames: int, regions: bool = False
) -> Iterator[tuple[int, Decoded | Exception]]:
    """Decode each item as `open_item` does; yield its place and what became of it, in any order.

    With `regions` small images are not resized (`decode.decode`). Children are given several images at a time. What was
    yielded is not looked at again, and may be replaced.
    """
    together: list[int] = []
    head = {"size": how.size, "crop": how.crop, "interpolation": how.interpolation, "max_pixels": max_pixels}
    head["regions"] = regions
    done: set[int] = set()
    if _how.gpu is not None and not frames:
        # The list of files has no name here, or what was yielded would not come free.
        for place, found in _how.gpu.each([(n, item) for n, item in enumerate(items) if isinstance(item, bytes)], head):
            done.add(place)
            yield place, found
    for place in range(len(items)):
        if place in done:
            continue
        if _how.children and not frames and _fits(items[place], how.size):
            together.append(place)
        else:
            yield place, _tried(items[place], how, max_pixels, frames, regions)
    while together:
        child = _take()
        if child.memory is None:
            _idle.put(child)
            yield from ((place, _tried(items[place], how, max_pixels, frames)) for place in together)
            return
        try:
            several = child.ask_each(head, [file for place in together if isinstance(file := items[place], bytes)])
        except Gone as gone:
            # No other file suffers from the one that it was at; if it lies, the next one names another.
            log.warning("A decoder ended (%s)", gone)
            suspect = together.pop(child.at if child.at < len(together) else 0)
            late = gone.status == -signal.SIGPROF
            yield suspect, _late() if late else _tried(items[suspect], how, max_pixels, frames)
            continue
        _idle.put(child)
        answered, together = together[: len(several)], together[len(several) :]
        yield from zip(answered, several, strict=True)


def _fits(item: bytes | tuple[Frame, ...], size: int) -> bool:
    return isinstance(item, bytes) and fitting([len(item)], size) == 1


def _tried(
    item: bytes | tuple[Frame, ...], how: Preprocess, max_pixels: int, frames: int, regions: bool = False
) -> Decoded | Exception:
    try:
        return open_item(item, how, max_pixels=max_pixels, frames=frames, regions=regions)
    except Exception as error:
        return error


def decode_image(data: bytes, size: int, *, crop: float, interpolation: Interpolation, max_pixels: int) -> Decoded:
    """Decode an image as `decode.decode` does; raises DecodeTimeout if it takes too long."""
    if not _how.children:
        return decode.decode(data, size, crop=crop, interpolation=interpolation, max_pixels=max_pixels)
    head = {"op": "open", "size": size, "crop": crop, "interpolation": interpolation, "frames": 0, "uris": None}
    return _decoded({**head, "max_pixels": max_pixels}, [data])


def look(data: bytes) -> tuple[int, int, bool]:
    """Return width, height and whether the image is gray, as `decode.look` does."""
    if not _how.children:
        return decode.look(data)
    answer, _ = _ask({"op": "look"}, [data])
    return int(answer["width"]), int(answer["height"]), bool(answer["gray"])


def _decoded(head: Head, files: Sequence[bytes]) -> Decoded:
    answer, data = _ask(head, files)
    pixels = np.frombuffer(data, np.uint8).reshape(answer["shape"])
    wanted = (head["size"], head["size"], 3)
    if pixels.shape[-3:] != wanted:
        raise DecodeFailed("The decoder answered with other pixels than it was asked for; save the image anew.")
    return Decoded(pixels, *extent_of(answer, head["max_pixels"]))


def _ask(head: Head, files: Sequence[bytes]) -> tuple[Head, bytearray]:
    """Return the answer of a child; an image that ends two of them, each fresh or idle before, is at fault."""
    if not any(files):
        raise EmptyFile("The file has no bytes; upload it again or leave it out.")
    status = 0
    for _ in range(2):
        child = _take()
        try:
            answer, data = child.ask(head, files)
        except Gone as gone:
            status = gone.status
            if status == -signal.SIGPROF:
                raise _late() from None
            log.warning("A decoder ended (%s)", gone)
            continue
        _idle.put(child)
        if "error" in answer:
            raise error_of(answer)
        return answer, data
    if status == -signal.SIGKILL:  # by the system, or because it had been stopped
        raise OSError("The decoders of this machine are killed; see whether its memory is full.")
    raise DecodeFailed(f"The decoder ended twice on this image ({ending(status)}); save it anew in an image editor.")


def _late() -> DecodeTimeout:
    return DecodeTimeout(
        f"Decoding took more than {_how.seconds:g} s of CPU time; save the image anew, or raise "
        "IMAGEMILL_DECODE_SECONDS."
    )


def _take() -> Decoder:
    while True:
        try:
            child = _idle.get_nowait()
        except queue.Empty:
            return Decoder(seconds=_how.seconds, max_pixels=_how.max_pixels)
        if child.alive:
            return child
        child.end()
