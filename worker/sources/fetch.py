"""Reads the bytes of items ahead of who needs them, within a budget of memory.

It knows the object store and the web, nothing of images. An item that cannot be read, or one of whose
frames cannot, becomes an ImageError in its place; a store that does not answer at all is raised, for then
no item is at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Literal, TypeAlias

from contract.backend.objects import ObjectStore
from contract.data.image_bytes import ImageBytes
from contract.data.items import Item, parse_s3
from contract.data.sequences import MAX_IMAGES
from contract.errors import (
    AddressRefused,
    FetchFailed,
    ImageDenied,
    ImageError,
    ImageNotFound,
    InvalidSettings,
    InvalidSource,
    ObjectChanged,
    ObjectNotFound,
    StoreRefused,
    TooManyBytes,
)
from contract.instruments import STAGE_SECONDS
from contract.jobs.reach import Reach
from contract.settings import Settings
from contract.web.client import WebClient, too_many_bytes
from worker.engine.budget import Reservation, budget, release_all
from worker.engine.images.decode import Frame, too_many_frames
from worker.engine.motion import carried
from worker.engine.pipeline import Encoded
from worker.sources.ahead import Arrived, Reading, Request, SizeRoom, Span, grouped, spans
from worker.sources.lanes import Lanes, host_of

Found: TypeAlias = list[bytes | ImageError]

_GRACE = 10.0
"""Seconds beyond its deadline that a fetch from the web may take to end."""

Fetched: TypeAlias = tuple[int, Encoded, Reservation]
Waits: TypeAlias = Literal["web", "memory"]


@dataclass(frozen=True)
class _StoreRequest:
    future: Future[Found]


class Fetcher:
    """Threads that read, shared by all shards of a process: `threads` for the store, the lanes for the web."""

    def __init__(
        self,
        store: ObjectStore,
        max_bytes: int,
        threads: int = 8,
        *,
        web: WebClient | None = None,
        lanes: Lanes[Found] | None = None,
        buckets: Collection[str] = (),
    ) -> None:
        """`buckets` are those that items may name beside the store's own and what their `Reach` says."""
        self._store = store
        self._max_bytes = max_bytes
        self._buckets = frozenset((store.bucket, *buckets))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fetch")
        self._web = web or WebClient()
        self._lanes = lanes or Lanes(threads, threads)
        self._bytes = ImageBytes(store, max_bytes, self._web)
        self._memory = budget().encoded

    @staticmethod
    def of(store: ObjectStore, settings: Settings) -> Fetcher:
        """Return a fetcher with the limits of the settings."""
        return Fetcher(
            store,
            settings.max_image_bytes,
            web=WebClient.of(settings),
            lanes=Lanes(settings.fetch_lanes, settings.fetch_host_lanes),
            buckets=[name.strip() for name in settings.fetch_buckets.split(",") if name.strip()],
        )

    def close(self) -> None:
        self._lanes.close()
        self._web.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def read(self, items: Sequence[Item], reach: Reach | None = None) -> Generator[tuple[Item, Encoded], None, None]:
        """Yield each item in order with its bytes, or with the error that it becomes.

        Only the `frames` of a sequence are read. Raises StoreUnavailable if the store does not answer.
        """
        with closing(self._reading([self._files(item) for item in items], items, reach, in_order=True)) as reading:
            files = _in_order(reading)
            for item in items:
                if item.length is None:
                    data, memory = next(files)
                    yield item, data
                    del data
                    memory.release()
                    continue
                parts: list[Reservation] = []
                yield item, self._sequence(item, _remembering(files, parts))
                release_all(parts)

    def read_any(self, items: Sequence[Item], reach: Reach | None = None) -> Generator[Fetched | Waits, None, None]:
        """Yield each item's place, bytes or error, and memory as they come: a slow one holds up no other.

        Whoever takes one must release its memory. Yield "memory" when that has run out, so that what was taken must be
        decoded first, and about once a second while it is short; yield "web" as often while nothing comes but the web
        is at work, within its deadlines. Raises StoreUnavailable if the store does not answer.
        """
        wanted = [self._files(item) for item in items]
        owners = [place for place, files in enumerate(wanted) for _ in files]
        for place, files in enumerate(wanted):
            if not files:
                yield place, self._sequence(items[place], iter(())), self._memory.nothing()
        parts: dict[int, dict[int, tuple[bytes | ImageError, Reservation]]] = {}
        with closing(self._reading(wanted, items, reach)) as reading:
            while not reading.done:
                with STAGE_SECONDS.seconds("fetch"):
                    arrived = reading.next()
                if arrived is None:
                    if reading.only_web and self._lanes.idle_for < self._web.seconds + _GRACE:
                        yield "web"
                    elif reading.waits:
                        yield "memory"
                    continue
                for number, memory in enumerate(arrived.memory):
                    place = owners[arrived.first + number]
                    if items[place].length is None:
                        reading.handed_over(memory)
                        yield place, arrived.take(number), memory
                        continue
                    part = parts.setdefault(place, {})
                    part[arrived.first + number] = arrived.take(number), memory
                    if len(part) == len(wanted[place]):
                        del parts[place]
                        held = [part[n][1] for n in sorted(part)]
                        for one in held:
                            reading.handed_over(one)
                        frames = iter([part[n][0] for n in sorted(part)])
                        part.clear()
                        yield place, self._sequence(items[place], frames), self._memory.joined(held)

    def _files(self, item: Item) -> Sequence[Item]:
        """Return the files to read for an item: itself or its frames; nothing for a sequence that is too large."""
        if item.length is None:
            return (item,)
        return item.frames if (item.size or 0) <= MAX_IMAGES * self._max_bytes else ()

    def _sequence(self, item: Item, files: Iterator[bytes | ImageError]) -> Encoded:
        """Return the frames of a sequence from `files`; the first unreadable frame becomes the sequence's error."""
        wanted = self._files(item)
        if not wanted:
            too_large = (item.size or 0) > MAX_IMAGES * self._max_bytes
            return _long_sequence(self._max_bytes) if too_large else too_many_frames(item.length or 0)
        frames: list[Frame] = []
        bad: ImageError | None = None
        read = 0
        for file in wanted:
            found = next(files)
            if bad is not None:
                continue  # the rest is under way already, and not kept
            if isinstance(found, ImageError):
                bad = found.of_frame(file.uri)
                continue
            read += len(found)
            if read > MAX_IMAGES * self._max_bytes:  # sizes were not known before
                bad = _long_sequence(self._max_bytes)
                frames.clear()
            else:
                frames.append(Frame(file.uri, found))
        return bad or tuple(frames)

    def _reading(
        self, wanted: list[Sequence[Item]], items: Sequence[Item], reach: Reach | None, *, in_order: bool = False
    ) -> Reading:
        def start(span: Span, room: SizeRoom | None, told: Callable[[], None]) -> Request:
            load = carried(partial(self._load, span, room, reach or Reach()))
            if span.web:
                return self._lanes.submit(host_of(span.items[0].uri), load, told)
            return _StoreRequest(self._pool.submit(load))

        def requests() -> Iterator[Span]:
            for sequences, run in groupby(range(len(items)), lambda place: items[place].length is not None):
                if sequences:
                    yield from grouped((wanted[place] for place in run), self._max_bytes)
                else:
                    yield from spans((file for place in run for file in wanted[place]), self._max_bytes)

        return Reading(requests(), start, self._memory, self._max_bytes, in_order=in_order)

    def _load(self, span: Span, room: SizeRoom | None, reach: Reach) -> Found:
        first = span.items[0]
        try:
            if (first.size or 0) > self._max_bytes:
                raise too_many_bytes(first.size or 0, self._max_bytes)
            reach.check(first, self._buckets)
            if first.tar is not None and span.end is not None:
                return self._members(span)
            if first.uri.startswith("file://"):
                raise _local(first.uri, reach.packed)
            return [self._bytes.read_item(first, room)]
        except ImageError as error:
            return [error] * len(span.items)
        except ObjectChanged:
            new = f"{first.uri} was overwritten before a worker read it; its new version has a row of its own."
            return [ImageNotFound(new)] * len(span.items)
        except (ObjectNotFound, InvalidSource):
            gone = f"{first.tar or first.uri} was gone when the worker asked for it; restore it and retry the job."
            return [ImageNotFound(gone)] * len(span.items)
        except StoreRefused as error:
            return [FetchFailed(str(error))] * len(span.items)
        except InvalidSettings as error:
            return [ImageDenied(str(error))] * len(span.items)

    def _members(self, span: Span) -> Found:
        assert span.items[0].tar is not None and span.end is not None
        bucket, key = parse_s3(span.items[0].tar)
        if span.end == span.start:
            return [b""] * len(span.items)
        data = self._store.get(key, bucket=bucket, offset=span.start, length=span.end - span.start)
        found: Found = []
        for item in span.items:
            start = (item.offset or 0) - span.start
            found.append(data[start : start + (item.size or 0)])
        return found


def _long_sequence(limit: int) -> TooManyBytes:
    return TooManyBytes(
        f"The frames that are looked at have more than {MAX_IMAGES * limit:,} bytes together; shrink them, or raise "
        "IMAGEMILL_MAX_IMAGE_BYTES."
    )


def _in_order(reading: Reading) -> Iterator[tuple[bytes | ImageError, Reservation]]:
    """Yield each file in order, with its memory."""
    early: dict[int, Arrived] = {}
    wanted = 0
    while early or not reading.done:
        arrived = early.pop(wanted, None) or reading.next()
        if arrived is None:
            continue
        if arrived.first != wanted:
            early[arrived.first] = arrived
            continue
        for number, memory in enumerate(arrived.memory):
            reading.handed_over(memory)
            yield arrived.take(number), memory
        wanted += len(arrived.memory)


def _remembering(
    files: Iterator[tuple[bytes | ImageError, Reservation]], memory: list[Reservation]
) -> Iterator[bytes | ImageError]:
    """Yield the files, and collect their memory."""
    for data, held in files:
        memory.append(held)
        yield data


def _local(uri: str, packed: bool) -> ImageError:
    """Return the error of a file that is not in the store."""
    if packed:
        return ImageNotFound(f"{uri} could not be read when the folder was packed; run the job again.")
    return AddressRefused(f"{uri} is refused: workers read no files; submit the folder, or a manifest of paths.")
