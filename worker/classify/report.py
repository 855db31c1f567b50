"""The page of a classify job that has ended: its labels, the images it is least certain of, what failed, its speed.

    rows, shard by shard → counts → thumbnails → page

Two million rows take no more memory than one shard and the counts. It knows neither the model nor Celery.
"""

from __future__ import annotations

import io
import logging
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from contract.data.items import Item, read_manifest
from contract.data.label_rows import ERROR, OK
from contract.errors import ImageError, ImagemillError, ObjectNotFound
from contract.jobs import results
from contract.jobs.lifecycle import Backend, read_classify, read_end
from contract.jobs.specs import Classify
from contract.jobs.status import ShardCommit, Status
from contract.keys import JobKeys
from worker.engine.images import decode
from worker.engine.pipeline import Encoded, sha256_of
from worker.execution.resources import Resources
from worker.pages import page, plots
from worker.pages.page import Cell, Picture, Section, Table, Tile
from worker.sources.fetch import Fetcher

log = logging.getLogger(__name__)

LEAST_CERTAIN = 24
"""Images that are shown, the least certain first."""
_LABELS = 30
_WORKERS = 20
_THUMBNAIL = 224  # pixels, twice what a tile has on a page
_EDGES = np.linspace(0, 1, plots.BINS + 1)


@dataclass(frozen=True, slots=True, order=True)
class Doubt:
    """A row that may be shown; in the order of its score, then of its place."""

    score: float
    shard: int
    place: int
    key: str = field(compare=False)
    uri: str = field(compare=False)
    sha256: str = field(compare=False)
    label: str = field(compare=False)
    second: tuple[str, float] | None = field(default=None, compare=False)
    """The next label and its score, where the job kept more than one."""


@dataclass(slots=True)
class Work:
    """What one worker did with one runtime."""

    shards: int = 0
    images: int = 0
    seconds: float = 0.0
    """From the begin to the end of each shard, together; several run at once."""


@dataclass
class Summary:
    """What a page says of rows, gathered a shard at a time."""

    ok: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Key and message of the first image with each error code."""
    scores: NDArray[np.int64] = field(default_factory=lambda: np.zeros(plots.BINS, np.int64))
    """How many lie in each of the bins between 0 and 1."""
    doubts: list[Doubt] = field(default_factory=list)
    """Sorted; an image that is there many times, by its sha256, is there once."""
    work: dict[tuple[str, str], Work] = field(default_factory=dict)
    """By worker and runtime."""

    def add(self, commit: ShardCommit, table: pa.Table) -> None:
        """Count the rows of a shard, with the columns of `contract.data.label_rows`."""
        done = self.work.setdefault((commit.worker, f"{commit.runtime}/{commit.precision}".strip("/")), Work())
        done.shards += 1
        done.images += commit.items
        done.seconds += commit.seconds
        failed = table.select(["key", "error_code", "error_message"]).filter(pc.equal(table["status"], ERROR))
        for row in failed.to_pylist():
            self.codes[row["error_code"]] += 1
            self.examples.setdefault(row["error_code"], (row["key"], row["error_message"]))
        good = table.select(["key", "uri", "sha256", "label", "score", "top_k"]).filter(pc.equal(table["status"], OK))
        self.ok += len(good)
        for label in pc.value_counts(good["label"]).to_pylist():
            self.labels[label["values"]] += label["counts"]
        scores = good["score"].to_numpy()
        self.scores += np.histogram(scores.clip(0, 1), _EDGES)[0]  # a softmax may be 1.0000001
        self._doubt(commit.shard, good, scores)

    def _doubt(self, shard: int, good: pa.Table, scores: NDArray[np.float32]) -> None:
        digests = good["sha256"].to_pylist()
        known = {doubt.sha256 for doubt in self.doubts}
        for place in np.argsort(scores, kind="stable").tolist():
            score = float(scores[place])
            if len(self.doubts) == LEAST_CERTAIN and score >= self.doubts[-1].score:
                return
            if digests[place] in known:
                continue
            (row,) = good.slice(place, 1).to_pylist()
            second = [(top["label"], top["score"]) for top in row["top_k"] or ()][1:2]
            doubt = Doubt(score, shard, place, row["key"], row["uri"], row["sha256"], row["label"], *second)
            insort(self.doubts, doubt)
            known.add(doubt.sha256)
            del self.doubts[LEAST_CERTAIN:]


def write(backend: Backend, fetcher: Fetcher, job: str, *, max_pixels: int) -> None:
    """Make the page of a classify job that has ended, well or not, and store it at `JobKeys(job).report`.

    Harmless when run twice. A job that has not ended, or does not stay so, gets none: its rows are not all. An image
    that is gone, or another one by now, is a gray tile; none has more than `max_pixels` decoded.

    Raises UnknownJob, JobConflict for a job of another kind, ObjectDamaged where rows are not what was committed, and
    StoreUnavailable.
    """
    spec = read_classify(backend.store, job)
    end = read_end(backend.store, job)
    if end is None:
        log.info("%s has not ended, so it gets no page yet", job)
        return
    found = Summary()
    try:
        for commit, table in results.tables(backend.store, job):
            found.add(commit, table)
        tiles = _tiles(backend, fetcher, job, found.doubts, max_pixels)
    except ObjectNotFound:
        if read_end(backend.store, job) == end:
            raise
        log.info("%s goes on, so its page is left", job)
        return
    html = page.render(
        f"Labels of {job}",
        model=spec.model,
        data=f"{spec.source.label}, {found.ok + found.codes.total():,} images",
        date=datetime.fromisoformat(end.finished_at or end.created_at),
        sections=sections(spec, end, found, tiles),
    )
    key = JobKeys(job).report
    backend.store.put(key, html.encode())
    # A retry removes first the end, then the page: whoever comes second here finds it, and none is left of old rows.
    if read_end(backend.store, job) != end:
        backend.store.delete(key)


def sections(spec: Classify, end: Status, found: Summary, tiles: Sequence[Tile]) -> tuple[Section, ...]:
    """What the page shows; a job without a row has its facts alone."""
    shown = [Section("The job", end.reason or "", tables=(_facts(end, found),))]
    if found.ok:
        shown += [
            Section("Labels", pictures=(Picture(_label_bars(found), "How many images have each label."),)),
            Section(
                "Scores",
                "The softmax probability of the label. It tells how sure the model is, not how right.",
                pictures=(
                    Picture(
                        plots.binned("Scores", "score of the label", {"labelled": found.scores}, _EDGES),
                        "The scores of all labelled images.",
                    ),
                ),
            ),
            Section(
                "Least certain images",
                "Those with the lowest scores, lowest first, cut to their centre squares. Files with the same bytes "
                "are shown once.",
                tiles=tuple(tiles),
            ),
        ]
    if found.codes:
        shown.append(
            Section(
                "Errors",
                f"The command imagemill errors {spec.id} lists them all, imagemill retry {spec.id} runs them again.",
                tables=(_errors(found),),
            )
        )
    if found.work:
        shown.append(Section("Throughput", tables=_throughput(end, found)))
    return tuple(shown)


def _facts(end: Status, found: Summary) -> Table:
    rows: list[tuple[Cell, ...]] = [
        ("state", end.state),
        ("images", end.total if end.total is not None else found.ok + found.codes.total()),
        ("labelled", found.ok),
        ("failed", found.codes.total()),
        ("files skipped", end.skipped),
        ("different labels", len(found.labels)),
        ("created", _time(end.created_at)),
        ("finished", _time(end.finished_at)),
    ]
    return Table(("fact", "value"), tuple(rows))


def _label_bars(found: Summary) -> bytes:
    # By name where they are as many, so that the page of the same rows is the same.
    ranked = sorted(found.labels.items(), key=lambda label: (-label[1], label[0]))
    rest = ranked[_LABELS:]
    others = (f"{len(rest):,} other labels", sum(count for _, count in rest)) if rest else None
    return plots.counts("Labels", "images", dict(ranked[:_LABELS]), others)


def _errors(found: Summary) -> Table:
    rows = tuple((code, *found.examples[code], count) for code, count in found.codes.most_common())
    return Table(("code", "an example", "what is wrong with it", "images"), rows, words=3)


def _throughput(end: Status, found: Summary) -> tuple[Table, ...]:
    rates: list[tuple[Cell, ...]] = [("rate", _rate(end.images_per_second)), ("started", _time(end.started_at))]
    if end.started_at and end.finished_at:
        seconds = (datetime.fromisoformat(end.finished_at) - datetime.fromisoformat(end.started_at)).total_seconds()
        rates.append(("took", f"{seconds:,.1f} s"))
    ranked = sorted(found.work.items(), key=lambda done: (-done[1].images, done[0]))
    rows: list[tuple[Cell, ...]] = [(*who, *_figures(done)) for who, done in ranked[:_WORKERS]]
    if rest := [done for _, done in ranked[_WORKERS:]]:
        others = Work(
            sum(done.shards for done in rest), sum(done.images for done in rest), sum(done.seconds for done in rest)
        )
        rows.append((f"{len(rest)} others", "", *_figures(others)))
    columns = ("worker", "runtime", "shards", "images", "seconds a shard")
    return Table(("fact", "value"), tuple(rates)), Table(columns, tuple(rows), words=2)


def _figures(done: Work) -> tuple[Cell, ...]:
    return done.shards, done.images, f"{done.seconds / done.shards:,.2f}"


def _rate(images_per_second: float | None) -> str | None:
    return None if images_per_second is None else f"{images_per_second:,.1f} images/s"


def _time(when: str | None) -> str | None:
    return f"{datetime.fromisoformat(when):%Y-%m-%d %H:%M:%S} UTC" if when else None


# Thumbnails


def _tiles(backend: Backend, fetcher: Fetcher, job: str, doubts: Sequence[Doubt], max_pixels: int) -> list[Tile]:
    wanted = {(doubt.key, doubt.uri): doubt for doubt in doubts}
    made: dict[tuple[str, str], Tile] = {}
    for item, encoded in fetcher.read(_items(backend, job, doubts)):
        place = item.key, item.uri
        made[place] = _tile(wanted[place], encoded, max_pixels)
    return [made[doubt.key, doubt.uri] for doubt in doubts]


def _items(backend: Backend, job: str, doubts: Iterable[Doubt]) -> list[Item]:
    """Where the bytes of these rows are; those of one tar in their order there, since neighbours are read together."""
    shards: dict[int, set[tuple[str, str]]] = {}
    for doubt in doubts:
        shards.setdefault(doubt.shard, set()).add((doubt.key, doubt.uri))
    found = {
        (item.key, item.uri): item
        for shard, places in shards.items()
        for item in read_manifest(backend.store.get(JobKeys(job).manifest(shard)))
        if (item.key, item.uri) in places
    }
    return sorted(found.values(), key=lambda item: (item.tar or "", item.offset or 0, item.uri))


def _tile(doubt: Doubt, encoded: Encoded, max_pixels: int) -> Tile:
    second = () if doubt.second is None else (f"or {doubt.second[0]}, {_score(doubt.second[1])}",)
    lines = (f"{doubt.label}, {_score(doubt.score)}", *second, doubt.key)
    if isinstance(encoded, ImageError):
        return Tile(None, lines, encoded.code)
    if sha256_of(encoded) != doubt.sha256:
        return Tile(None, lines, "changed")
    first = encoded[0].data if isinstance(encoded, tuple) else encoded  # of an animation the decoder takes the first
    try:
        found = decode.decode(first, _THUMBNAIL, crop=1.0, interpolation="bicubic", max_pixels=max_pixels)
    except ImageError as error:
        return Tile(None, lines, error.code)
    sink = io.BytesIO()
    # As PNG two dozen photos would be 2 MB.
    Image.fromarray(found.pixels).save(sink, "JPEG", quality=85)
    return Tile(sink.getvalue(), lines)


def _score(score: float) -> str:
    return f"{100 * score:.1f}\N{NO-BREAK SPACE}%"


def make_page(resources: Resources) -> Callable[[str], None]:
    """What writes the page of a job that labelled, in this process; a page that cannot be made does a job no harm."""

    def make(job: str) -> None:
        try:
            write(resources.backend, resources.fetcher, job, max_pixels=resources.settings.max_image_pixels)
        except ImagemillError as error:
            log.warning("The page of %s cannot be made: %s", job, error)

    return make
