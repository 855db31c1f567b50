"""The registry of job kinds: one record says everything that differs from kind to kind.

To add a kind, write its spec in `contract.jobs.specs`, and a record here. Whatever runs a job looks its record up and
asks no further what kind it is. Planner, runner, finalizer and finisher are import paths, because a producer has none
of them installed and the controller has no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from contract.errors import InvalidInput
from contract.import_paths import ImportPath
from contract.jobs.specs import (
    AnySpec,
    Classify,
    Evaluate,
    Generate,
    Interpolate,
    Reconstruct,
    Synthesize,
    Train,
    Verify,
)
from contract.jobs.status import Status
from contract.keys.queues import QUEUE_CLASSIFY, QUEUE_GENERATE, QUEUE_TRAIN
from contract.models.registry import Task


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """Everything that the product needs to know about one kind of job."""

    spec: type[AnySpec]
    makes: Literal["labels", "images", "model", "figures"]
    """What a finished job leaves: rows of labels, images with their index, a version of a model, or figures."""
    queue: str
    """The queue that workers take its shards from."""
    plan: ImportPath
    """`(Backend, spec) -> Plan | None`, on the controller: write the plan; None if there is nothing to complete now."""
    run: ImportPath
    """`(Resources) -> ShardWork`, on a worker: what runs a shard."""
    finalize: ImportPath
    """`(Ending, spec) -> None`, on the controller: end a job whose shards are all committed, or leave that to
    `finish`."""
    finish: ImportPath | None = None
    """`(Resources) -> Callable[[str], None]`, on a worker: what is done with a whole job that takes torch or Pillow."""
    provenance: ImportPath | None = None
    """`(spec) -> Provenance`: describes the images that it makes."""
    report: ImportPath | None = None
    """`(Resources) -> Callable[[spec, DatasetStats], dict[str, float]]`, on a worker: write the page of what was
    generated, and return figures for `show`."""
    bytes_promised: bool = False
    """Whether its output must not depend on which worker computes it (`contract.jobs.numerics`)."""
    class_from: str | None = None
    """The field of the spec that names the job whose numerics class counts; None: its own."""
    seeded: bool = False
    """Whether images are drawn from a seed, so that their records alone make them again."""
    page: Literal["with the job", "when asked for"] | None = None
    """When the page is written: before the job ends, or by `finish` when somebody asks for it. None: it has none."""
    model_tasks: tuple[Task, ...] = ()
    """What the model in the spec's field `model` must do; empty if the job runs no model."""
    judge: str | None = None
    """The field of the spec that names the classifier which judges a generator."""
    runs_while_planned: bool = False
    """Whether shards run as they are planned; otherwise none does before the plan is complete."""
    long: bool = False
    """Whether a shard may take hours, so that nothing may wait for its end."""
    trains: Literal["always", "if judged"] | None = None
    """When a shard trains something, which a process does one at a time: always, or if `judge` is named."""
    encoder_option: str | None = None
    """The option that asks for this kind, if its model needs an encoder."""
    done: str
    """What to do with a job that succeeded: a sentence for people, with {id} and {model}."""
    has: str
    """What a job of this kind has, in a message that it lacks something else: a clause, with {id}."""

    @property
    def name(self) -> str:
        """The `kind` of its specs."""
        return str(self.spec.model_fields["kind"].default)

    @property
    def speculative(self) -> bool:
        """Whether a second worker may run a shard that takes too long: its commit then names all that it made."""
        return self.makes in ("labels", "images") and not self.long

    def next_step(self, status: Status) -> str:
        """Return what to do with a job that ended, in sentences for people."""
        labels, failures = self.makes == "labels", self.makes == "labels" and status.errors
        steps: list[str] = []
        if status.state == "succeeded":
            steps.append(self.done)
        else:
            again = "retry" if status.state == "failed" and failures else "resume"
            steps.append(f"Go on with `imagemill {again} {{id}}`.")
            if labels:
                steps.append("Labels so far: `imagemill results {id}`.")
        if failures:
            steps.append("Failures: `imagemill errors {id}`.")
        return " ".join(steps).format(id=status.id, model=status.model)


_IMAGES_DONE = "Its images: `imagemill export {id} -o DIR`. Its page: `imagemill report {id} -o report.html`."
_IMAGES_HAS = "`imagemill export {id} -o DIR` writes its images"
_FIGURES_HAS = "`imagemill show {id}` shows what it has"

_KINDS = (
    JobKind(
        spec=Classify,
        makes="labels",
        queue=QUEUE_CLASSIFY,
        plan="worker.control.plan:cut_source",
        run="worker.classify.shard:make_work",
        finalize="worker.control.finalize:end_labels",
        finish="worker.classify.report:make_page",
        page="when asked for",
        runs_while_planned=True,
        model_tasks=("classify", "classify-sequence"),
        done="Labels: `imagemill results {id}`.",
        has="`imagemill results {id}` writes its labels",
    ),
    JobKind(
        spec=Train,
        bytes_promised=True,
        long=True,
        trains="always",
        makes="model",
        queue=QUEUE_TRAIN,
        plan="worker.control.plan:single_shard",
        run="worker.training.job:make_work",
        finalize="worker.control.finalize:end_single",
        done="Its card and curves: `imagemill models pull {model} -o DIR`.",
        has=_FIGURES_HAS,
    ),
    JobKind(
        spec=Evaluate,
        makes="figures",
        long=True,
        trains="if judged",
        queue=QUEUE_TRAIN,
        plan="worker.control.plan:single_shard",
        run="worker.evaluation.job:make_work",
        finalize="worker.control.finalize:end_single",
        page="with the job",
        model_tasks=("classify", "classify-sequence", "generate"),
        judge="features",
        done="Its page: `imagemill report {id} -o report.html`.",
        has=_FIGURES_HAS,
    ),
    JobKind(
        spec=Generate,
        bytes_promised=True,
        makes="images",
        queue=QUEUE_GENERATE,
        plan="worker.control.plan:cut_images",
        run="worker.generation.shard:make_generator",
        finalize="worker.control.finalize:hand_over",
        finish="worker.generation.finalize_images:make_finalizer",
        provenance="contract.data.provenance:Generated",
        report="worker.generation.report:make_generated_report",
        seeded=True,
        page="with the job",
        model_tasks=("generate",),
        done=_IMAGES_DONE,
        has=_IMAGES_HAS,
    ),
    JobKind(
        spec=Synthesize,
        bytes_promised=True,
        makes="images",
        queue=QUEUE_GENERATE,
        plan="worker.control.plan:cut_candidates",
        run="worker.generation.shard:make_candidates",
        finalize="worker.control.finalize:hand_over",
        finish="worker.generation.select_images:make_finalizer",
        provenance="contract.data.provenance:Synthesized",
        report="worker.generation.report:make_synthesized_report",
        seeded=True,
        page="with the job",
        model_tasks=("generate",),
        judge="gate",
        done=_IMAGES_DONE,
        has=_IMAGES_HAS,
    ),
    JobKind(
        spec=Reconstruct,
        bytes_promised=True,
        makes="images",
        queue=QUEUE_GENERATE,
        plan="worker.control.plan:cut_blocks",
        run="worker.generation.encoded:make_reconstructor",
        finalize="worker.control.finalize:hand_over",
        finish="worker.generation.finalize_images:make_finalizer",
        provenance="contract.data.provenance:Reconstructed",
        report="worker.generation.report_encoded:make_reconstructed_report",
        page="with the job",
        model_tasks=("generate",),
        encoder_option="--reconstruct",
        done=_IMAGES_DONE,
        has=_IMAGES_HAS,
    ),
    JobKind(
        spec=Interpolate,
        bytes_promised=True,
        makes="images",
        queue=QUEUE_GENERATE,
        plan="worker.control.plan:cut_steps",
        run="worker.generation.encoded:make_interpolator",
        finalize="worker.control.finalize:hand_over",
        finish="worker.generation.finalize_images:make_finalizer",
        provenance="contract.data.provenance:Interpolated",
        report="worker.generation.report_encoded:make_interpolated_report",
        page="with the job",
        model_tasks=("generate",),
        encoder_option="--interpolate",
        done=_IMAGES_DONE,
        has=_IMAGES_HAS,
    ),
    JobKind(
        spec=Verify,
        bytes_promised=True,
        class_from="job",
        makes="figures",
        queue=QUEUE_GENERATE,
        plan="worker.control.plan:single_shard",
        run="worker.generation.verify:make_work",
        finalize="worker.control.finalize:end_single",
        done="What was compared: `imagemill show {id}`.",
        has=_FIGURES_HAS,
    ),
)

KINDS: dict[str, JobKind] = {kind.name: kind for kind in _KINDS}
"""Every kind by its name."""


def makes_labels(kind: str) -> bool:
    """Return whether jobs of this kind label images; not so those of a kind that only a newer version has."""
    return kind in KINDS and KINDS[kind].makes == "labels"


def kind_of(job: AnySpec | str) -> JobKind:
    """Return the record of a spec's kind, or of the kind with this name; raises InvalidInput for an unknown one."""
    name = job if isinstance(job, str) else job.kind
    try:
        return KINDS[name]
    except KeyError:
        raise InvalidInput(
            f"There is no job kind {name!r} in this version of Imagemill; the kinds are {', '.join(KINDS)}."
        ) from None
