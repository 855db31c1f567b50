"""Reads the bytes of items ahead of who needs them, in order, within a budget of memory.

It knows the object store and the web, nothing of images. An item that cannot be read, or one of whose
frames cannot, becomes an ImageError in its place; a store that does not answer at all is raised, for then
no item is at fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from contract.backend.objects import ObjectStore
from contract.data.image_bytes import ImageBytes, too_many_bytes
from contract.data.items import Item, parse_s3
from contract.data.sequences import MAX_IMAGES
from contract.errors import (
    FetchFailed,
    ImageDenied,
    ImageError,
    ImageNotFound,
    InvalidSettings,
    InvalidSource,
    ObjectNotFound,
    StoreRefused,
    TooManyBytes,
)
from worker.engine.images.decode import Frame, too_many_frames
from worker.engine.pipeline import Encoded

_SPAN = 8 * 2**20  # one GET of 8 MiB costs the store as much CPU as eight of 100 KB
_FIRST_SPAN = 2**20  # so that the device has work early
_GAP = 64 * 2**10  # reading over a gap is cheaper than another request
_AHEAD = 32  # requests
_AHEAD_BYTES = 48 * 2**20
_UNKNOWN_SIZE = 2**20


@dataclass(frozen=True)
class _Span:
    """Adjacent members of one tar, or one object (`end` is None), read with one request."""

    items: tuple[Item, ...]
    start: int = 0
    end: int | None = None

    @property
    def cost(self) -> int:
        return self.end - self.start if self.end is not None else self.items[0].size or _UNKNOWN_SIZE


class Fetcher:
    """Threads that read; shared by all shards of a process."""

    def __init__(self, store: ObjectStore, max_bytes: int, threads: int = 8) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fetch")
        self._bytes = ImageBytes(store, max_bytes, threads)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def read(self, items: Sequence[Item]) -> Iterator[tuple[Item, Encoded]]:
        """Yield each item in order with its bytes, or with the error that it becomes.

        Only the `frames` of a sequence are read. Raises StoreUnavailable if the store does not answer.
        """
        files = self._read(file for item in items for file in self._files(item))
        for item in items:
            if item.length is None:
                yield item, next(files)
            else:
                yield item, self._sequence(item, files)

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

    def _read(self, items: Iterable[Item]) -> Iterator[bytes | ImageError]:
        """Yield the bytes of each file in order, read ahead within the budget."""
        spans = deque(self._spans(items))
        ahead: deque[tuple[_Span, Future[list[bytes | ImageError]]]] = deque()
        budget = _AHEAD_BYTES
        try:
            while spans or ahead:
                while spans and len(ahead) < _AHEAD and (not ahead or spans[0].cost <= budget):
                    span = spans.popleft()
                    budget -= span.cost
                    ahead.append((span, self._pool.submit(self._load, span)))
                span, future = ahead.popleft()
                yield from future.result()
                budget += span.cost
        finally:
            for _, future in ahead:
                future.cancel()

    def _spans(self, items: Iterable[Item]) -> Iterator[_Span]:
        run: list[Item] = []
        limit = _FIRST_SPAN

        def flush() -> Iterator[_Span]:
            nonlocal limit
            if run:
                last = run[-1]
                yield _Span(tuple(run), run[0].offset or 0, (last.offset or 0) + (last.size or 0))
                run.clear()
                limit = _SPAN

        for item in items:
            packed = item.tar is not None and item.offset is not None and item.size is not None
            if not packed or (item.size or 0) > self._max_bytes:
                yield from flush()
                yield _Span((item,))
                continue
            assert item.offset is not None and item.size is not None
            if run:
                first, last = run[0], run[-1]
                end = (last.offset or 0) + (last.size or 0)
                neighbour = item.tar == last.tar and 0 <= item.offset - end <= _GAP
                if not neighbour or item.offset + item.size - (first.offset or 0) > limit:
                    yield from flush()
            run.append(item)
        yield from flush()

    def _load(self, span: _Span) -> list[bytes | ImageError]:
        first = span.items[0]
        try:
            if (first.size or 0) > self._max_bytes:
                raise too_many_bytes(first.size or 0, self._max_bytes)
            if first.tar is not None and span.end is not None:
                return self._members(span)
            if first.uri.startswith(("http://", "https://", "s3://")):
                return [self._bytes.read(first.uri)]
            raise ImageNotFound(f"{first.uri} could not be read when the folder was packed; run the job again.")
        except ImageError as error:
            return [error] * len(span.items)
        except (ObjectNotFound, InvalidSource):
            gone = f"{first.tar or first.uri} was gone when the worker asked for it; restore it and retry the job."
            return [ImageNotFound(gone)] * len(span.items)
        except StoreRefused as error:
            return [FetchFailed(str(error))] * len(span.items)
        except InvalidSettings as error:
            return [ImageDenied(str(error))] * len(span.items)

    def _members(self, span: _Span) -> list[bytes | ImageError]:
        assert span.items[0].tar is not None and span.end is not None
        bucket, key = parse_s3(span.items[0].tar)
        if span.end == span.start:
            return [b""] * len(span.items)
        data = self._store.get(key, bucket=bucket, offset=span.start, length=span.end - span.start)
        found: list[bytes | ImageError] = []
        for item in span.items:
            start = (item.offset or 0) - span.start
            found.append(data[start : start + (item.size or 0)])
        return found


def _long_sequence(limit: int) -> TooManyBytes:
    return TooManyBytes(
        f"The frames that are looked at have more than {MAX_IMAGES * limit:,} bytes together; shrink them, or raise "
        "IMAGEMILL_MAX_IMAGE_BYTES."
    )
