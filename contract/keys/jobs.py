"""Object keys of a job."""

from __future__ import annotations

import re
from dataclasses import dataclass

from contract.keys.bucket import ACTIVE, JOBS
from contract.keys.shards import shard_stem

_RUN = re.compile(r"/runs/(\d+)-(start|end)\.json$")
_UNLABELLED = re.compile(r"/reviews/unlabelled/(\d{13}-[0-9a-f]{8})\.json$")
_REVIEW = re.compile(r"/reviews/([0-9a-f]{24}|many)/(\d{13}-[0-9a-f]{8})(-undone)?\.json$")


@dataclass(frozen=True)
class JobKeys:
    """Object keys of one job."""

    id: str

    @property
    def root(self) -> str:
        return f"{JOBS}{self.id}/"

    @property
    def spec(self) -> str:
        """The spec, and when it was submitted; never changed."""
        return f"{self.root}spec.json"

    @property
    def numerics(self) -> str:
        """Kind of device and precision of every shard; written once, by the first shard that needs it."""
        return f"{self.root}numerics.json"

    @property
    def sizes(self) -> str:
        """How large the shards of a local folder become, for `--shard-size auto`; written once, before the first."""
        return f"{self.root}sizes.json"

    @property
    def share(self) -> str:
        """Priority, weight and slots that `imagemill jobs set` gave the job since it was submitted."""
        return f"{self.root}share.json"

    @property
    def plan_prefix(self) -> str:
        return f"{self.root}plan/"

    @property
    def plan(self) -> str:
        """Number of shards, items and skipped files; written once every shard is planned."""
        return f"{self.plan_prefix}_PLAN.json"

    @property
    def review_prefix(self) -> str:
        """Prefix of what people said of the job's labels."""
        return f"{self.root}reviews/"

    def review(self, image: str, name: str, *, undone: bool = False) -> str:
        """What one person said of one image, or of a group where `image` is `many`, or that it no longer stands; both
        are written if absent."""
        return f"{self.review_prefix}{image}/{name}{'-undone' if undone else ''}.json"

    def unlabelled(self, name: str) -> str:
        """That an annotation of Label Studio gives no label up to a time, as it lost its single one or was deleted;
        written if absent."""
        return f"{self.unlabelled_prefix}{name}.json"

    @property
    def unlabelled_prefix(self) -> str:
        """Prefix of the annotations that give no label up to a time."""
        return f"{self.review_prefix}unlabelled/"

    def reviewed(self, digest: str) -> str:
        """A set of reviewed labels that jobs learn from, named by its hash; a JSON object a line, written if absent."""
        return f"{self.reviewed_prefix}{digest}.jsonl"

    @property
    def reviewed_prefix(self) -> str:
        """Prefix of the sets of reviewed labels."""
        return f"{self.root}reviewed/"

    def manifest(self, shard: int) -> str:
        """The items of a shard, one JSON object per line: key, address, place in a tar, frames of a sequence. Empty
        behind the last shard that a controller planned."""
        return f"{self.plan_prefix}shard-{shard:06d}.jsonl"

    @property
    def planning(self) -> str:
        """How often a planner of a run died or was ended over the source, and why the last one was."""
        return f"{self.root}planning.json"

    @property
    def candidate_plan(self) -> str:
        """Which classes and indices each shard of a generating job makes, a line a shard."""
        return f"{self.plan_prefix}portions.jsonl"

    @property
    def candidate_prefix(self) -> str:
        """Candidates of a synthesis, an index and a tar a shard; deleted once it has succeeded."""
        return f"{self.root}candidates/"

    @property
    def reference(self) -> str:
        """Features of the training images given by `--away-from`."""
        return f"{self.candidate_prefix}reference.safetensors"

    @property
    def input_prefix(self) -> str:
        """Uploads of the producer: packed shards, a manifest, or tars under their own names."""
        return f"{self.root}in/"

    def tar(self, shard: int) -> str:
        """Images of a local folder, packed by the producer."""
        return f"{self.input_prefix}shard-{shard:06d}.tar"

    def tar_manifest(self, number: int) -> str:
        """Manifest of such a tar, with labels, for a training or an evaluation."""
        return f"{self.input_prefix}shard-{number:06d}.jsonl"

    def source(self, suffix: str) -> str:
        """A manifest that the producer uploaded, with its own suffix."""
        return f"{self.input_prefix}source{suffix}"

    @property
    def commit_prefix(self) -> str:
        return f"{self.root}commit/"

    def commit(self, shard: int, retry: int = 0) -> str:
        """The commit of a shard, written last: counts, hash of its rows, worker, runtime, seconds."""
        return f"{self.commit_prefix}{shard_stem(shard, retry)}.json"

    @property
    def selected_prefix(self) -> str:
        return f"{self.root}selected/"

    def selected(self, shard: int) -> str:
        """The commit of what a synthesis selected from a shard of candidates: counts, address and hash of its index."""
        return f"{self.selected_prefix}{shard_stem(shard)}.json"

    @property
    def attempt_prefix(self) -> str:
        """What an attempt at an evaluation made; the finalizer copies what the commit names to the output prefix."""
        return f"{self.root}attempts/"

    @property
    def finishing(self) -> str:
        """How often ending a run that makes images raised an unforeseen error, and in which processes."""
        return f"{self.attempt_prefix}finish.json"

    @property
    def lost_prefix(self) -> str:
        return f"{self.root}lost/"

    def lost(self, shard: int, retry: int = 0) -> str:
        """A commit whose outputs were missing at the end, so that the shard ran once more."""
        return f"{self.lost_prefix}{shard_stem(shard, retry)}.json"

    @property
    def report(self) -> str:
        """The page of a job, a single HTML file."""
        return f"{self.root}out/report.html"

    @property
    def neighbours(self) -> str:
        """How the nearest images of each labelled image are labelled, in a job with embeddings; Parquet, made when
        first asked for."""
        return f"{self.root}neighbours.parquet"

    @property
    def training_prefix(self) -> str:
        """Checkpoints, history and pictures of a training."""
        return f"{self.root}train/"

    @property
    def checkpoint_prefix(self) -> str:
        return f"{self.training_prefix}checkpoint-"

    def checkpoint(self, images: int) -> str:
        """Everything a training needs to continue; the last two are kept."""
        return f"{self.checkpoint_prefix}{images:012d}.safetensors"

    @property
    def history(self) -> str:
        """Figures of each epoch so far, as a JSON list."""
        return f"{self.training_prefix}history.json"

    def picture(self, epoch: int) -> str:
        """Picture of an epoch: a confusion matrix or samples."""
        return f"{self.training_prefix}epoch-{epoch:04d}.png"

    def retry(self, number: int) -> str:
        """Which shards a `retry` ran again, as versions before runs recorded it."""
        return f"{self.root}retry/retry-{number:03d}.json"

    @property
    def retry_prefix(self) -> str:
        return f"{self.root}retry/"

    @property
    def end(self) -> str:
        """The final status of the first run, however it ended; absent until then, and never changed."""
        return f"{self.root}end.json"

    @property
    def run_prefix(self) -> str:
        return f"{self.root}runs/"

    def run_start(self, run: int) -> str:
        """Opens a later run of the job, after `resume` or `retry`: when, and which shards a retry runs again."""
        return f"{self.run_prefix}{run:04d}-start.json"

    def run_end(self, run: int) -> str:
        """The final status of a later run."""
        return self.end if run == 0 else f"{self.run_prefix}{run:04d}-end.json"

    @property
    def success(self) -> str:
        """Empty; present if the job succeeded."""
        return f"{self.root}_SUCCESS"

    @property
    def active(self) -> str:
        """Empty; present while the job has not ended, so that one listing finds all unfinished jobs."""
        return f"{ACTIVE}{self.id}"


OUTPUTS = {
    "shard-000042.parquet": "Rows of a shard: labels.",
    "shard-000042-r1.parquet": "Rows of a shard after the first `retry`, in place of the earlier ones.",
    "shard-000042-<digest>.parquet": "Index of a shard of generated images. Its commit names it; the digest is that of "
    "the content, so no attempt overwrites another's bytes.",
    "shard-000042-<digest>.tar": "The images of that index, each with a `.json`.",
    "labels.csv": "Number of images per label.",
    "summary.json": "Counts, model, source and times.",
    "evaluation.json": "Figures of an evaluation.",
    "README.md": "Dataset card of generated images.",
    "report.html": "Page of the job; always under `jobs/<id>/out/`. A classify job's is made when first asked for.",
    "_SUCCESS": "Empty; written last, for tools that wait for it.",
}
"""What a job writes below its output prefix; the reference prints it."""


def parse_run(key: str) -> tuple[int, str] | None:
    """Return the number of a later run and what the object tells of it, `start` or `end`; None for another key."""
    match = _RUN.search(key)
    return (int(match[1]), match[2]) if match else None


def parse_unlabelled(key: str) -> str | None:
    """Return the name by which an annotation gives no label; None for another key."""
    match = _UNLABELLED.search(key)
    return match[1] if match else None


def parse_review(key: str) -> tuple[str, str, bool] | None:
    """Return the image and the name of a verdict, and whether the object takes it back; None for another key."""
    match = _REVIEW.search(key)
    return (match[1], match[2], bool(match[3])) if match else None
