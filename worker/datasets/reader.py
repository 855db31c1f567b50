"""Makes the arrays that a model is trained on, or judged by, of a labelled source: lists, reads, decodes.

It knows the store and the sources, not what learns. A bad image is left out and counted; it never stops the others.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contract.backend.objects import ObjectStore
from contract.data.items import Item, sharded
from contract.errors import ImageError, ImageNotFound, InvalidSource
from contract.import_paths import load
from contract.instruments import STAGE_SECONDS
from contract.jobs.reach import Reach
from contract.jobs.sources import source_kind
from contract.jobs.specs import Source
from contract.models.registry import Preprocess
from worker.datasets.dataset import Dataset
from worker.engine.budget import Reservation
from worker.engine.images import decoders, pixels
from worker.engine.images.decode import Decoded, Frame
from worker.engine.motion import carried, moved
from worker.engine.pipeline import Encoded, sha256_of
from worker.sources.fetch import Fetcher
from worker.sources.lister import Part, labelled_items, lister

log = logging.getLogger(__name__)

_CHUNK = 256  # images, or frames of sequences, whose bytes are held at a time
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601; a gray image stays what it is."""


_Pixels: TypeAlias = NDArray[np.uint8] | ImageError


@dataclass(frozen=True)
class Wanted:
    """The form of the arrays that a caller needs.

    `size` 0 is that of the images, which must then all agree; `channels` 0 is 1 where the first is gray, else 3;
    `preprocess` is that of a model in use, None that of a training; `frames` 0 are images, else sequences of at most so
    many frames. `classes` are the names in their order, empty: those that are found, sorted. Of an IDX folder that
    holds several pairs of files `part` is taken; of the labels of a job those that are `min_score` sure.
    """

    size: int = 0
    channels: int = 0
    frames: int = 0
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] = ()
    part: Part = "train"
    min_score: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """The arrays, and how many images were left out, by error code."""

    data: Dataset
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, eq=False)
class Block:
    """Some of the images of a source, in their order."""

    images: NDArray[np.uint8]
    """[n, size, size, c]."""
    labels: NDArray[np.int64]
    """[n]."""
    keys: tuple[str, ...]
    """The key of each image."""
    places: tuple[int, ...]
    """The place of each image among those that were asked for; an unreadable one is left out."""
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class DatasetReader:
    """Reads labelled sources; the pixels lie in a nameless file under `scratch`, which ends with the arrays."""

    store: ObjectStore
    fetcher: Fetcher
    scratch: Path
    max_pixels: int
    threads: int

    def read(self, source: Source, wanted: Wanted, seen: Callable[[int], None] = lambda _: None) -> Prepared:
        """Return the arrays of a source; `seen` is called now and then with the number of images read.

        Raises InvalidSource where it holds no images, an image has no label, or sizes differ that may not.
        """
        with STAGE_SECONDS.seconds("read"):
            if source_kind(source.kind).arrays is not None:
                return self._whole(source, wanted)
            with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
                return self._images(source, wanted, pool, seen)

    # Images one by one

    def _images(
        self, source: Source, wanted: Wanted, pool: ThreadPoolExecutor, seen: Callable[[int], None]
    ) -> Prepared:
        items = labelled_items(self.store, source, frames=wanted.frames, min_score=wanted.min_score)
        reach = Reach.of(self.store, source)
        how: _How | None = None
        labels: list[str] = []
        lengths: list[int] = []
        left_out: Counter[str] = Counter()
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            for chunk in sharded(items, repeat(_CHUNK), max_frames=_CHUNK):
                if how is None:
                    with closing(self.fetcher.read(chunk, reach)) as fetched:
                        how = _how(fetched, wanted, self.max_pixels)
                decoded = self._decoded(chunk, how or _refuse, reach, pool, lambda: seen(len(labels)))
                for item, found in zip(chunk, decoded, strict=True):
                    if isinstance(found, ImageError):
                        left_out[found.code] += 1
                        log.info("%s is left out: %s", item.key, found)
                        continue
                    assert item.label is not None
                    labels.append(item.label)
                    lengths.append(len(found))
                    file.write(found.tobytes())
                seen(len(labels))
            if how is None or not labels:
                bad = f"; {left_out.total():,} could not be read" if left_out else ""
                raise InvalidSource(f"{source.label} holds no images to learn from{bad}; check the address.")
            frame = (how.size, how.size, how.channels)
            if wanted.frames:
                images = _padded(file, lengths, frame, self.scratch)
            else:
                file.flush()
                images = np.memmap(file, np.uint8, "r", shape=(len(labels), *frame))
        classes = wanted.classes or self._classes(source, labels)
        numbers = _numbers(labels, classes, source)
        data = Dataset(images, numbers, classes, np.array(lengths, np.int64) if wanted.frames else None)
        return Prepared(data, left_out)

    def _decoded(
        self,
        chunk: Sequence[Item],
        how: Callable[[tuple[Item, Encoded]], _Pixels],
        reach: Reach,
        pool: ThreadPoolExecutor,
        waits: Callable[[], None],
    ) -> list[_Pixels]:
        """Fetch and decode items; return the pixels of each, or its error, in order.

        Files are decoded as they arrive, so that no more of them are held than the process has memory for; `waits` is
        called while none arrives from the web.
        """
        made: dict[int, Future[_Pixels]] = {}
        with closing(self.fetcher.read_any(chunk, reach)) as fetched:
            for arrived in fetched:
                if isinstance(arrived, str):
                    if arrived == "web":
                        waits()
                    continue
                made[arrived[0]] = pool.submit(carried(_then_release), how, chunk[arrived[0]], *arrived[1:])
                del arrived
        return [made[place].result() for place in range(len(chunk))]

    def _classes(self, source: Source, labels: list[str]) -> tuple[str, ...]:
        """Return the class names: of generated images in the order of the generator, else sorted."""
        found = set(labels)
        return lister(self.store, source).class_order(found) or _sorted(found)

    # Blocks of a source

    def block(
        self, source: Source, items: Sequence[Item], wanted: Wanted, seen: Callable[[int], None] = lambda _: None
    ) -> Block:
        """These images of a source, which `worker.sources.lister` lists; `wanted` says size, channels and classes.

        Raises InvalidSource for a label that is none of the classes.
        """
        how = _How(
            training_preprocess(wanted.size, wanted.channels), wanted.size, wanted.channels, 0, False, self.max_pixels
        )
        images: list[NDArray[np.uint8]] = []
        places: list[int] = []
        left_out: Counter[str] = Counter()
        reach = Reach.of(self.store, source)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
            for chunk in sharded(items, repeat(_CHUNK)):
                at = len(places) + left_out.total()
                decoded = self._decoded(chunk, how, reach, pool, lambda: seen(len(places)))
                for place, found in enumerate(decoded, at):
                    if isinstance(found, ImageError):
                        left_out[found.code] += 1
                        log.info("%s is left out: %s", items[place].key, found)
                        continue
                    images.append(found[0])
                    places.append(place)
                seen(len(places))
        shape = (len(images), wanted.size, wanted.size, wanted.channels)
        pixels_ = np.stack(images) if images else np.empty(shape, np.uint8)
        labels = _numbers([str(items[place].label) for place in places], wanted.classes, source)
        return Block(pixels_, labels, tuple(items[place].key for place in places), tuple(places), left_out)

    def array_block(self, source: Source, rows: Sequence[int], wanted: Wanted) -> Block:
        """These rows of a source that is read as a whole."""
        images, numbers = self._arrays(source, wanted.part)
        chosen = np.array(rows, np.int64)
        labels = numbers[chosen]
        if len(labels) and int(labels.max()) >= len(wanted.classes):
            raise InvalidSource(
                f"{source.label} has the label {labels.max()}, and there are {len(wanted.classes)} classes, counted "
                "from 0; take images of the classes that the model knows."
            )
        pixels_ = _fitted(images[chosen], wanted)
        return Block(pixels_, labels, tuple(str(row) for row in rows), tuple(range(len(rows))))

    # Sources that are read as a whole

    def has_test_part(self, source: Source) -> bool:
        """Return whether a source has a test part, as IDX folders with several pairs of files do."""
        return lister(self.store, source).has_test_part()

    def _arrays(self, source: Source, part: Part) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the images, uint8 [n, h, w, c], and labels, int64 [n], of a source."""
        images, labels = load(str(source_kind(source.kind).arrays))(self.store, source, part)
        return images, labels

    def _whole(self, source: Source, wanted: Wanted) -> Prepared:
        images, labels = self._arrays(source, wanted.part)
        if wanted.frames:
            raise InvalidSource(f"{source.label} holds single images; a model of sequences needs sequences.")
        classes = wanted.classes or tuple(str(n) for n in range(int(labels.max(initial=0)) + 1))
        return Prepared(Dataset(_fitted(images, wanted), labels, classes))


def _then_release(
    how: Callable[[tuple[Item, Encoded]], _Pixels], item: Item, encoded: Encoded, memory: Reservation
) -> _Pixels:
    try:
        return how((item, encoded))
    finally:
        memory.release()
        moved()


@dataclass(frozen=True)
class _How:
    """Decodes one item to the pixels that are wanted, uint8 [t, size, size, channels]; t is 1 of an image."""

    preprocess: Preprocess
    size: int
    channels: int
    frames: int
    exact: bool
    max_pixels: int

    def __call__(self, fetched: tuple[Item, Encoded]) -> _Pixels:
        item, encoded = fetched
        if isinstance(encoded, ImageError):
            return encoded
        if item.sha256 is not None and sha256_of(encoded) != item.sha256:
            return ImageNotFound(f"{item.uri} is no longer the image that was reviewed; restore it, or review it anew.")
        try:
            found = decoders.open_item(encoded, self.preprocess, max_pixels=self.max_pixels, frames=self.frames)
        except ImageError as error:
            return error
        if self.exact:
            self._check_size(item, encoded, found)
        frames = found.pixels if self.frames else found.pixels[None]
        return frames if self.channels == 3 else _gray(frames)

    def _check_size(self, item: Item, encoded: bytes | tuple[Frame, ...], found: Decoded) -> None:
        sizes = [(item.key, found.width, found.height)]
        if isinstance(encoded, tuple):
            sizes = [(frame.uri, *decoders.look(frame.data)[:2]) for frame in encoded]
        for name, width, height in sizes:
            if (width, height) != (self.size, self.size):
                raise InvalidSource(
                    f"{name} has {width} × {height} pixels, the first image {self.size} × {self.size}; "
                    "make them one size, or say which with --set size=N."
                )


def _how(fetched: Iterable[tuple[Item, Encoded]], wanted: Wanted, max_pixels: int) -> _How | None:
    """Return how to decode, from the first readable image; None if none is readable."""
    for item, encoded in fetched:
        if isinstance(encoded, ImageError):
            continue
        try:
            width, height, gray = decoders.look(_first(encoded))
        except ImageError:
            continue
        if not wanted.size and width != height:
            raise InvalidSource(
                f"{item.key} has {width} × {height} pixels, and models take squares; say which with --set size=N."
            )
        size, channels = wanted.size or width, wanted.channels or (1 if gray else 3)
        how = wanted.preprocess or training_preprocess(size, channels)
        return _How(how, size, channels, wanted.frames, not wanted.size, max_pixels)
    return None


def _refuse(fetched: tuple[Item, Encoded]) -> ImageError:
    """Stands for `_How` while nothing could be read."""
    _, encoded = fetched
    if isinstance(encoded, ImageError):
        return encoded
    try:
        decoders.look(_first(encoded))
    except ImageError as error:
        return error
    raise AssertionError("an image that can be read decides how")


def _first(encoded: bytes | tuple[Frame, ...]) -> bytes:
    return encoded[0].data if isinstance(encoded, tuple) else encoded


def training_preprocess(size: int, channels: int) -> Preprocess:
    """Return the preprocessing of training and inference: the whole centre square, scaled to −1..1."""
    return Preprocess(
        size=size, crop=1.0, interpolation="bicubic", mean=127.5, std=127.5, channels=1 if channels == 1 else 3
    )


def _fitted(images: NDArray[np.uint8], wanted: Wanted) -> NDArray[np.uint8]:
    """Gray images [n, h, w, 1] of the size and with the channels that are wanted."""
    if wanted.size:
        images = pixels.resized(images, wanted.size)
    return pixels.rgb(images) if wanted.channels == 3 else images


def _gray(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gray: NDArray[np.uint8] = np.rint(pixels.astype(np.float32) @ _LUMA).astype(np.uint8)[..., None]
    return gray


def _padded(file: BinaryIO, lengths: list[int], frame: tuple[int, int, int], scratch: Path) -> NDArray[np.uint8]:
    """Sequences that lie one behind the other in a file, as [n, t, size, size, c] with zeros behind the short ones."""
    longest, pixels = max(lengths), int(np.prod(frame))
    file.seek(0)
    with tempfile.TemporaryFile(dir=scratch) as target:
        for length in lengths:
            target.write(file.read(length * pixels).ljust(longest * pixels, b"\0"))
        target.flush()
        return np.memmap(target, np.uint8, "r", shape=(len(lengths), longest, *frame))


def _sorted(names: set[str]) -> tuple[str, ...]:
    """Class names in their order: numbers by value, and before words."""
    return tuple(sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name)))


def _numbers(labels: list[str], classes: tuple[str, ...], source: Source) -> NDArray[np.int64]:
    index = {name: number for number, name in enumerate(classes)}
    strange = sorted(set(labels) - set(index))
    if strange:
        raise InvalidSource(
            f"{source.label} has the label {strange[0]!r}, which is none of the {len(classes)} classes "
            f"({', '.join(classes[:5])}{' …' if len(classes) > 5 else ''}); correct the labels or the names."
        )
    return np.array([index[label] for label in labels], np.int64)
