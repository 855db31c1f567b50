"""The sections of a classify job's page: facts, labels, scores, least certain images, errors, throughput."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from contract.jobs.specs import Classify
from contract.jobs.status import Status
from worker.classify.summary import EDGES, Summary, Work
from worker.pages.page import Cell, Picture, Section, Table, Tile
from worker.pictures import plots

_LABELS = 30
_WORKERS = 20


def sections(spec: Classify, end: Status, found: Summary, tiles: Sequence[Tile]) -> tuple[Section, ...]:
    """Return the sections of the page; a job without rows has only its facts, and a hint what to do."""
    shown = [Section("The job", _verdict(spec, end, found), tables=(_facts(end, found),))]
    if found.ok:
        shown += [
            Section("Labels", pictures=(Picture(_label_bars(found), "Images with each label."),)),
            Section(
                "Scores",
                "The softmax probability of the label. It says how sure the model is, not how often it is right.",
                pictures=(
                    Picture(
                        plots.binned("", "score of the label", {"labelled": found.scores}, EDGES),
                        "Share of the labelled images at each score.",
                    ),
                ),
            ),
            Section(
                "Least certain images",
                "The labelled images with the lowest scores, lowest first, cropped to the centre square. Identical "
                "files are shown once.",
                tiles=tuple(tiles),
            ),
        ]
    if found.codes:
        shown.append(
            Section(
                "Errors",
                f"`imagemill errors {spec.id}` lists all failed images; `imagemill retry {spec.id}` runs them again.",
                tables=(_errors(found),),
            )
        )
    if found.work:
        shown.append(Section("Throughput", tables=_throughput(end, found)))
    return tuple(shown)


def _verdict(spec: Classify, end: Status, found: Summary) -> str:
    if end.reason:
        return end.reason
    if not found.ok and not found.codes:
        return f"The job has no image. Check that {spec.source.label} holds images, and submit the job again."
    return ""


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
    return Table(("fact", "value"), tuple(rows), facts=True)


def _label_bars(found: Summary) -> bytes:
    # Ties are ordered by name, so that the same rows give the same page.
    ranked = sorted(found.labels.items(), key=lambda label: (-label[1], label[0]))
    rest = ranked[_LABELS:]
    others = (f"{len(rest):,} other labels", sum(count for _, count in rest)) if rest else None
    return plots.counts("", "images", dict(ranked[:_LABELS]), others)


def _errors(found: Summary) -> Table:
    rows = tuple((code, *found.examples[code], count) for code, count in found.codes.most_common())
    return Table(("code", "example", "problem", "images"), rows, words=3)


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
    return Table(("fact", "value"), tuple(rates), facts=True), Table(columns, tuple(rows), words=2)


def _figures(done: Work) -> tuple[Cell, ...]:
    return done.shards, done.images, f"{done.seconds / done.shards:,.2f}"


def _rate(images_per_second: float | None) -> str | None:
    return None if images_per_second is None else f"{images_per_second:,.1f} images/s"


def _time(when: str | None) -> str | None:
    return f"{datetime.fromisoformat(when):%Y-%m-%d %H:%M:%S} UTC" if when else None
