"""Where the images of a job come from, in words and figures: what differs in that from one kind of job to the next.

A kind that makes images has a class here, named by its record in `contract.jobs.kinds`. It knows specs and no store.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from contract.import_paths import load
from contract.jobs.kinds import kind_of
from contract.jobs.specs import Generate, ImagesSpec, Interpolate, Reconstruct, Synthesize

S = TypeVar("S", bound=ImagesSpec)
Sampled = TypeVar("Sampled", Generate, Synthesize)


class Provenance(ABC, Generic[S]):
    """Describes the images of one job."""

    title: ClassVar[str]
    """Heading of its page, before the model's name."""
    command: ClassVar[str] = "generate"
    """The command that makes such jobs."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Columns of the index that only some kinds of jobs fill, and this one does."""

    def __init__(self, spec: S) -> None:
        self.spec = spec

    @abstractmethod
    def description(self) -> str:
        """Say what the images are, in two sentences."""

    @abstractmethod
    def determined_by(self) -> str:
        """Say what an image depends on, as a sentence that ends before its last word, "alone"."""

    @abstractmethod
    def options(self, labels: Sequence[str]) -> list[str]:
        """Return the options of the command that makes the images again; `labels` are the names of the classes."""

    def each(self, labels: Mapping[int, str]) -> list[list[str]]:
        """Return the options of each command that makes the images again together, mostly of one.

        `labels` are the names of the classes by the generator's index.
        """
        return [self.options(list(labels.values()))]

    @abstractmethod
    def origin(self) -> dict[str, Any]:
        """Return the field of the summary that says what the images were made of."""

    def class_names(self, names: Sequence[str], found: Collection[str]) -> tuple[str, ...]:
        """Return the classes of the images in the order of the generator's `names`; `found` are those of the images."""
        return tuple(name for name in names if name in found)

    def facts(self) -> dict[str, str]:
        """Return what the dataset card says of the settings, by name."""
        return {"images that were encoded": self.spec.source.label}

    def image_facts(self) -> dict[str, object]:
        """Return what the JSON beside each image says of the job, besides what is in the image's row."""
        return {}


class _OfSeed(Provenance[Sampled]):
    """Images drawn from a seed."""

    columns: ClassVar[tuple[str, ...]] = ("seed",)

    def description(self) -> str:
        return (
            f"Every image was made by the generator {self.spec.model} of Imagemill; none shows anything that was "
            "photographed."
        )

    def determined_by(self) -> str:
        return "Image `index` of a class follows from the weights, the seed, the class, `index` and these settings"

    def options(self, labels: Sequence[str]) -> list[str]:
        # Each class by name: the job does not say whether they are all that the generator has.
        return [*classes(labels), f"--seed {self.spec.seed}", *option("truncation", self.spec.truncation)]

    def origin(self) -> dict[str, Any]:
        return {"seed": self.spec.seed}

    def class_names(self, names: Sequence[str], found: Collection[str]) -> tuple[str, ...]:
        return tuple(names[label] for label in self.spec.classes)

    def facts(self) -> dict[str, str]:
        truncation = self.spec.truncation
        return {"seed": str(self.spec.seed), "truncation": "none" if truncation is None else f"{truncation:g}"}

    def image_facts(self) -> dict[str, object]:
        return {"truncation": self.spec.truncation}


class Generated(_OfSeed[Generate]):
    """Images of `generate`."""

    title = "Images"

    def options(self, labels: Sequence[str]) -> list[str]:
        return [f"--count {self.spec.count}", *super().options(labels)]


class Synthesized(_OfSeed[Synthesize]):
    """Images of `synthesize`, chosen from candidates."""

    title = "Synthesis"
    command = "synthesize"
    columns = ("seed", "predicted", "score")

    def description(self) -> str:
        return (
            f"{super().description()} Kept are those that the classifier {self.spec.gate} takes for their class with "
            f"at least {self.spec.min_score:g}."
        )

    def options(self, labels: Sequence[str]) -> list[str]:
        spec = self.spec
        words = [f"--gate {spec.gate}", f"--per-class {spec.per_class}", f"--min-score {spec.min_score:g}"]
        words += option("dedup", spec.dedup)
        if spec.away_from is not None:
            words += [f"--away-from {shlex.quote(spec.away_from.label)}", f"--copy-distance {spec.copy_distance:g}"]
        return [*words, f"--max-attempts {spec.max_attempts}x", *super().options(labels)]

    def each(self, labels: Mapping[int, str]) -> list[list[str]]:
        spec = self.spec
        if not spec.counts:
            return super().each(labels)
        each = ((label, spec.model_copy(update={"per_class": spec.wanted(index)})) for index, label in labels.items())
        return [Synthesized(alone).options([label]) for label, alone in each]

    def origin(self) -> dict[str, Any]:
        balance = self.spec.balance
        return super().origin() | ({"balance": balance.model_dump()} if balance is not None else {})

    def facts(self) -> dict[str, str]:
        spec, away = self.spec, self.spec.away_from
        return super().facts() | {
            "gate": f"`{spec.gate}`",
            "weights of the gate, sha256": f"`{spec.gate_sha256}`",
            "least score of the gate": f"{spec.min_score:g}",
            "duplicates": "not looked for" if spec.dedup is None else f"nearer than {spec.dedup:g} (cosine distance)",
            "copies": "not looked for" if away is None else f"nearer than {spec.copy_distance:g} to {away.label}",
            "wanted of each class": f"{self._wanted()}, of at most {spec.max_attempts:,} candidates for each",
        }

    def _wanted(self) -> str:
        balance = self.spec.balance
        if balance is None:
            return f"{self.spec.per_class:,}"
        made = f", and {sum(balance.made.values()):,} that the dataset held" if balance.made else ""
        return (
            f"what it lacked to {balance.aim:,}, of {sum(balance.seen.values()):,} images that the watch "
            f"{balance.watch} had labelled{made}"
        )


class Reconstructed(Provenance[Reconstruct]):
    """Images of `generate --reconstruct`."""

    title = "Reconstructions"
    columns = ("original", "mse")

    def description(self) -> str:
        return (
            f"Every image is a reconstruction: the encoder of {self.spec.model} of Imagemill made a latent of an image "
            f"of {self.spec.source.label}, its decoder an image of that. None is the original."
        )

    def determined_by(self) -> str:
        return "A reconstruction follows from the weights, the original, its class and these settings"

    def options(self, labels: Sequence[str]) -> list[str]:
        return [f"--reconstruct {shlex.quote(self.spec.source.label)}", *option("count", self.spec.count)]

    def origin(self) -> dict[str, Any]:
        return {"source": self.spec.source.label}


class Interpolated(Provenance[Interpolate]):
    """Images of `generate --interpolate`."""

    title = "Interpolation"
    columns = ("position",)

    def description(self) -> str:
        return (
            f"The images lie between two others, {self.spec.source.label}, in the latents of {self.spec.model} of "
            "Imagemill, whose decoder made them. None shows anything that was photographed."
        )

    def determined_by(self) -> str:
        return "Image `index` follows from the weights, the two images, the class and these settings"

    def options(self, labels: Sequence[str]) -> list[str]:
        ends = " ".join(shlex.quote(end.label) for end in self.spec.ends)
        return [f"--interpolate {ends} --steps {self.spec.steps}", *classes(labels)]

    def origin(self) -> dict[str, Any]:
        return {"source": self.spec.source.label}

    def facts(self) -> dict[str, str]:
        return super().facts() | {"on the way": f"{self.spec.steps:,} steps, spherical interpolation"}

    def image_facts(self) -> dict[str, object]:
        return {"between": [end.uri for end in self.spec.ends]}


def provenance(spec: ImagesSpec) -> Provenance[Any]:
    """Return the provenance of a job's images."""
    found: Provenance[Any] = load(str(kind_of(spec).provenance))(spec)
    return found


def classes(labels: Sequence[str]) -> list[str]:
    """Return the options that name these classes."""
    return [f"--class {shlex.quote(label)}" for label in labels]


def option(name: str, value: float | None) -> list[str]:
    """Return the option `--name value`, or nothing for None."""
    return [] if value is None else [f"--{name} {value:g}"]
