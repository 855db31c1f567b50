"""What a shard needs of the worker that computes it, and what a worker can do.

A *numerics class* is a kind of device and a precision, such as `cpu/bf16`: within it, the same inputs give the same
images up to rounding. Jobs whose bytes are promised run in one class, which the first shard decides and the bucket
keeps. It knows no device: workers say what they can in their heartbeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import cast

from pydantic import Field

from contract.backend.heartbeats import Worker
from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, ObjectNotFound
from contract.jobs.commits import iter_listed, read_commit
from contract.jobs.kinds import kind_of
from contract.jobs.loads import memory_of, models_of
from contract.jobs.specs import AnySpec
from contract.keys.jobs import JobKeys
from contract.models.rules import ANY, Rule
from contract.records import Computed, Precision, Record


class NumericsClass(Record):
    """`jobs/<id>/numerics.json`: what every shard of a job computes on and in."""

    device: str = Field(description="cpu or cuda.")
    precision: Computed

    def __str__(self) -> str:
        return f"{self.device}/{self.precision}"


class Needs(Record):
    """What a shard needs; None: anything will do."""

    device: str | None = None
    precision: Computed | None = None
    long: bool = False
    """Whether it may take hours."""
    trains: bool = False
    memory: int = 0
    """GiB that the device must have for the largest model; 0: any device will do."""
    runtime: str | None = None
    """The only runtime that can run the model, as a worker found."""
    rules: tuple[str, ...] = ()
    """Ids of the rules of workers that admit the models; a worker without a rule loads any."""

    @property
    def signature(self) -> str:
        """The needs as the ledger compares them with what a worker can do, `device=cuda precision=bf16 long=1`."""
        parts = {
            "device": self.device,
            "precision": self.precision,
            "long": self.long,
            "trains": self.trains,
            "memory": self.memory,
            "runtime": self.runtime,
            "rules": ",".join(self.rules),
        }
        return " ".join(f"{name}={1 if value is True else value}" for name, value in parts.items() if value)

    @classmethod
    def parse(cls, signature: str) -> Needs:
        """Return the needs with this signature."""
        parts: dict[str, object] = {**dict(part.split("=", 1) for part in signature.split())}
        if "rules" in parts:
            parts["rules"] = tuple(str(parts["rules"]).split(","))
        return cls.model_validate(parts)

    def __str__(self) -> str:
        parts = [f"{self.device or 'any device'}/{self.precision or 'any precision'}"]
        parts += [f"{self.memory} GiB of device memory"] if self.memory else []
        parts += [f"the runtime {self.runtime}"] if self.runtime else []
        return ", ".join(parts)


class Capabilities(Record):
    """What a worker computes on and in, and which models it loads."""

    device: str
    precisions: tuple[Computed, ...]
    memory: int | None = None
    """GiB of its device; None: unknown."""
    runtimes: tuple[str, ...] = ()
    """What may run its classifiers; empty: unknown."""
    rule: Rule = ANY

    def meet(self, needs: Needs) -> bool:
        """Return whether a shard with these needs can run here."""
        return self.computes(needs) and (not self.rule.id or self.rule.id in needs.rules)

    def computes(self, needs: Needs) -> bool:
        """Return whether the device and its runtimes can run such a shard, whatever models may be loaded."""
        return (
            needs.device in (None, self.device)
            and (needs.precision is None or needs.precision in self.precisions)
            and (self.memory is None or needs.memory <= self.memory)
            and (needs.runtime is None or not self.runtimes or needs.runtime in self.runtimes)
        )

    def best(self, asked: Precision) -> NumericsClass:
        """Return the class that a shard would run in here, if it may run here at all."""
        precision = ("bf16" if "bf16" in self.precisions else "fp32") if asked == "auto" else asked
        return NumericsClass(device=self.device, precision=precision)

    def heartbeat(self) -> dict[str, str]:
        """Return the fields that tell others."""
        return {
            "device_kind": self.device,
            "precisions": ",".join(self.precisions),
            "device_memory": "" if self.memory is None else str(self.memory),
            "runtimes": ",".join(self.runtimes),
            "rule": self.rule.model_dump_json() if self.rule.id else "",
        }


def advertised(fields: Mapping[str, str]) -> Capabilities | None:
    """Return what a heartbeat says a worker can do, or None if it does not say."""
    device, precisions = fields.get("device_kind"), fields.get("precisions")
    if not device or not precisions:
        return None
    memory, runtimes, rule = (fields.get(name, "") for name in ("device_memory", "runtimes", "rule"))
    return Capabilities(
        device=device,
        precisions=cast("tuple[Computed, ...]", tuple(precisions.split(","))),
        memory=int(memory) if memory else None,
        runtimes=tuple(runtimes.split(",")) if runtimes else (),
        rule=Rule.model_validate_json(rule) if rule else ANY,
    )


def live_rules(workers: Iterable[Worker]) -> dict[str, Rule]:
    """Return the rules by which live workers load models, by id; none for workers that load any."""
    found = (advertised(worker.fields) for worker in workers if worker.fields.get("rule"))
    return {can.rule.id: can.rule for can in found if can is not None and can.rule.id}


def able(workers: Iterable[Worker], queue: str, needs: Needs) -> list[str]:
    """Return the names of the live workers on a queue that can run a shard with these needs."""
    found = ((worker, advertised(worker.fields)) for worker in workers if queue in _queues(worker))
    return [worker.name for worker, can in found if can is not None and can.meet(needs)]


def serving(workers: Iterable[Worker], queue: str) -> list[Worker]:
    """Return the live workers that take shards of a queue."""
    return [worker for worker in workers if queue in _queues(worker) and not worker.fields.get("unfit")]


def asked_precision(spec: AnySpec) -> Precision:
    """Return the precision that a spec asks for; auto if it has no such option."""
    return cast("Precision", getattr(getattr(spec, "recipe", spec), "precision", "auto"))


def in_precision(spec: AnySpec, precision: Computed) -> AnySpec:
    """Return the spec as one that asks for `precision`, if it has such an option."""
    recipe = getattr(spec, "recipe", None)
    if recipe is not None:
        return spec.model_copy(update={"recipe": recipe.model_copy(update={"precision": precision})})
    return spec.model_copy(update={"precision": precision}) if hasattr(spec, "precision") else spec


def runs_in_one_class(spec: AnySpec) -> bool:
    """Return whether all shards of a job must run in one class: its bytes are promised, and no mix was asked for."""
    return kind_of(spec).bytes_promised and getattr(spec, "numerics", "one") == "one"


def read_class(store: ObjectStore, job: str) -> NumericsClass | None:
    """Return the class that a job runs in, or None if none is decided."""
    try:
        return NumericsClass.model_validate_json(store.get(JobKeys(job).numerics))
    except ObjectNotFound:
        return None


def needs_of(store: ObjectStore, spec: AnySpec) -> Needs:
    """Return what the shards of a job need, as far as it is decided; a class that is not decides its first worker."""
    kind = kind_of(spec)
    trains = kind.trains == "always" or (kind.trains is not None and getattr(spec, str(kind.judge)) is not None)
    asked = asked_precision(spec)
    needs = Needs(
        precision=None if asked == "auto" else asked,
        long=kind.long,
        trains=trains,
        memory=memory_of(models_of(store, spec)),
    )
    if runs_in_one_class(spec) and (found := read_class(store, _classed(spec))) is not None:
        return needs.model_copy(update={"device": found.device, "precision": found.precision})
    return needs


def _classed(spec: AnySpec) -> str:
    """Return the job whose numerics class counts for one that runs in one class."""
    source = kind_of(spec).class_from
    return spec.id if source is None else str(getattr(spec, source))


def decide_class(store: ObjectStore, spec: AnySpec, capabilities: Capabilities) -> Needs:
    """Return what the shards of a job that runs in one class need, deciding the class here if nobody has.

    A worker that cannot run the job decides nothing: its device must not bind the workers that can.

    A job that an earlier version began has commits and no class: their precision is kept. The first decision counts.
    """
    job = _classed(spec)
    found = read_class(store, job)
    if found is None:
        asked = asked_precision(spec)
        for first in islice(iter_listed(store, job), 1):
            if (before := read_commit(store, job, first.shard, first.retry).precision) in ("fp32", "bf16"):
                asked = cast("Precision", before)
        decided = capabilities.best(asked)
        if decided.precision not in capabilities.precisions:
            return Needs(precision=decided.precision)
        store.put_if_absent(JobKeys(job).numerics, decided.to_json())
        found = read_class(store, job) or decided
    return Needs(device=found.device, precision=found.precision)


def check_workers(spec: AnySpec, workers: Iterable[Worker]) -> None:
    """Raise InvalidInput if the live workers on the queue of a job are known and none has the precision it asks for.

    Nothing is raised while no worker is alive, or one does not say what it can: it may be about to start.
    """
    asked, queue = asked_precision(spec), kind_of(spec).queue
    there = [worker for worker in workers if queue in _queues(worker)]
    if asked == "auto" or not there or any(advertised(worker.fields) is None for worker in there):
        return
    # Which models they may load is said later, by the job: a worker that may load it can come.
    found = (advertised(worker.fields) for worker in there)
    if not any(can is not None and can.computes(Needs(precision=asked)) for can in found):
        option = "--set precision" if hasattr(spec, "recipe") else "--precision"
        raise InvalidInput(
            f"{option}: no live worker computes in {asked} ({_list(there)}); use auto or fp32, or start a worker on a "
            f"machine that has {asked}."
        )


def lacking(needs: Needs, workers: Sequence[Worker], queue: str, models: Sequence[str] = ()) -> str:
    """Return what a job that loads these models waits for, if none of the workers of its queue can run it."""
    if not workers:
        return f"a worker of the queue {queue}"
    return f"a worker with {needs}{_loading(needs, workers, models)} ({_list(workers, needs)})"


def unmet(job: str, needs: Needs, workers: Iterable[Worker], queue: str, models: Sequence[str] = ()) -> str:
    """Return why a job that loads these models ended because no worker could run it, in one sentence."""
    there = [worker for worker in workers if queue in _queues(worker)]
    remedy = ", or submit it again with --precision auto" if needs.precision else ""
    remedy += " --numerics any" if needs.device else ""
    return (
        f"No live worker can run {job}, which needs {needs}{_loading(needs, there, models)} "
        f"({_list(there, needs)}); start one that can and use `imagemill resume {job}`{remedy}."
    )


def _loading(needs: Needs, workers: Iterable[Worker], models: Sequence[str]) -> str:
    """Return that the models are what some workers lack, if some workers may not load them."""
    found = [advertised(worker.fields) for worker in workers]
    if models and any(can is not None and can.rule.id and can.rule.id not in needs.rules for can in found):
        return f", which may load {' and '.join(models)}"
    return ""


def _queues(worker: Worker) -> list[str]:
    return worker.fields.get("queues", "").split(",")


_NAMED = 8
"""Workers of which a sentence tells what they can do."""


def _list(workers: Iterable[Worker], needs: Needs | None = None) -> str:
    there, needs = list(workers), needs or Needs()
    names = []
    for worker in there[:_NAMED]:
        can = advertised(worker.fields)
        parts = ["unknown"] if can is None else [f"{can.device} {'+'.join(can.precisions)}"]
        if can is not None:
            parts += [f"{can.memory} GiB"] if needs.memory and can.memory is not None else []
            parts += ["+".join(can.runtimes)] if needs.runtime and can.runtimes else []
            parts += [str(can.rule)] if can.rule.id else []
        names.append(f"{worker.name}: {', '.join(parts)}")
    more = [f"{len(there) - _NAMED} more"] if len(there) > _NAMED else []
    return ", ".join([*names, *more]) or "there is none"
