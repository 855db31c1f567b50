"""The dataset card of generated images: a README.md with the front matter that Hugging Face reads.

Pure text of a spec and statistics; it knows no store; machines read `producer.exports.images.croissant`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contract.data.dataset_stats import DatasetStats
from contract.data.image_index import SUFFIX, SYNTHETIC
from contract.data.provenance import option, provenance
from contract.datasets.versions import Grown
from contract.jobs.specs import ImagesSpec, Synthesize
from contract.jobs.status import Status

CARD = "README.md"


@dataclass(frozen=True)
class Layout:
    """How the files of a dataset are laid out, as far as its card says so."""

    name: str
    """The name that `imagemill export --format` has for it."""
    load: str
    """Markdown: how to load the dataset."""
    columns: str
    """Markdown: in which file the columns are."""
    data_files: str | None
    """Glob of the files that Hugging Face loads; None if it has no loader for them."""
    tags: tuple[str, ...] = ()
    dataset_info: Callable[[ImagesSpec, DatasetStats], Mapping[str, Any]] | None = None
    """What `dataset_info` says of the columns, for files that hold the images themselves."""


def python(code: str) -> str:
    """Return a Markdown block of Python."""
    return f"```python\n{code}\n```"


WEBDATASET = Layout(
    name="webdataset",
    load=python(
        'import webdataset\n\nimages = webdataset.WebDataset("DIR/shard-000000.tar", shardshuffle=False)\n'
        'for sample in images.decode("pil"):\n    print(sample["__key__"], sample["json"]["label"])'
    ),
    columns=(
        "They are in the index of a tar, the `.parquet` of the same stem, which has a row for each candidate, rejected "
        "ones too, and says where in the tar the bytes of an image are. The `.json` beside an image has what makes it "
        "again."
    ),
    data_files="shard-*.tar",
    tags=("webdataset",),
)
"""The layout of every job in the bucket. The others are those of `producer.exports.images`."""

COLUMNS = {
    "key": "Name of the image in its shard: class and index.",
    "label": "Name of its class.",
    "label_index": "Its class, as the generator counts them.",
    "seed": "Seed of the job.",
    "index": "Its number in its class; of what was encoded, its place in the source or on the way, from 0.",
    "original": "Name of the image that was encoded.",
    "mse": "Mean squared error of the reconstruction, pixels being 0 to 1.",
    "position": "0 at the first of the two images, 1 at the second.",
    "predicted": "The class that the gate takes it for.",
    "score": "What the gate gives that class, a softmax probability.",
    "sha256": "SHA-256 of the image file.",
    "model": "The generator, `name@version`.",
    "weights_sha256": "SHA-256 of the generator's weights.",
}
"""The columns that every format has for an image, and what they mean."""
_SOME = frozenset({"seed", "original", "mse", "position", "predicted", "score"})
"""Columns that only some kinds of jobs have; the `Provenance` of a kind says which."""


def columns(spec: ImagesSpec) -> list[str]:
    """Return the names in `COLUMNS` that the images of a job have."""
    own = provenance(spec).columns
    return [name for name in COLUMNS if name not in _SOME or name in own]


def title(spec: ImagesSpec, stats: DatasetStats) -> str:
    """Return a title such as `digits@1: 600 synthetic images of 10 classes`."""
    classes = len(stats.classes)
    return f"{spec.model}: {stats.accepted:,} synthetic images of {classes:,} class{'es' if classes != 1 else ''}"


def command(spec: ImagesSpec, stats: DatasetStats) -> str:
    """Return the command that makes these images again, or a line a class if their numbers differ."""
    of = provenance(spec)
    same = [*option("size", spec.size or None), f"--image-format {spec.image_format}"]
    if spec.precision != "auto":
        same.append(f"--precision {spec.precision}")
    begin = [f"imagemill {of.command}", f"--model {spec.model}"]
    return "\n".join(" ".join([*begin, *own, *same]) for own in of.each(_names(stats)))


def card(spec: ImagesSpec, stats: DatasetStats, layout: Layout, *, end: Status | None = None) -> str:
    """Return the dataset card as Markdown; it mentions the `end` of a job that did not succeed."""
    unfinished = ""
    if end is not None and end.state != "succeeded":
        why = end.reason or "this is what it had made until then."
        unfinished = f"\nThe job {'was canceled' if end.state == 'canceled' else 'has failed'}: {why}\n"
    return f"""{front_matter(spec, stats, layout)}
# {title(spec, stats)}

{provenance(spec).description()} In the metadata of each file `DigitalSourceType` is <{SYNTHETIC}>.
{unfinished}
## How it was made

```sh
{command(spec, stats)}
imagemill export {spec.id} --format {layout.name} -o DIR
```

{_table(("what", "value"), _facts(spec, stats).items())}

{provenance(spec).determined_by()} alone: {_again(spec, stats)} again.

{_content(spec, stats, layout)}
## Limits

The images show what the generator has learnt, with its errors and the biases of its training data. Their licence
follows from those of the generator and of that data.
"""


def grown_card(spec: Synthesize, stats: DatasetStats, layout: Layout, grown: Grown) -> str:
    """Return the card of a dataset at a version, as Markdown; `spec` is that of its newest version."""
    newest = grown.newest
    versions = (
        (f"`{one.ref}`", one.at, f"`{one.job}`", f"`{one.model}`", f"`{one.gate}`", str(one.seed), f"{added:,}")
        for one in grown.versions
        for added in [sum(one.accepted.values())]
    )
    return f"""{front_matter(spec, stats, layout)}
# {grown.ref}: {stats.accepted:,} synthetic images of {len(stats.classes):,} classes

Every image was made by a generator of Imagemill; none shows anything that was photographed. Kept are those that a
classifier, the gate, takes for their class, and that are no near-duplicate of an earlier one. In the metadata of each
file `DigitalSourceType` is <{SYNTHETIC}>.

## How it was made

Version {newest.number} of the dataset `{grown.name}`, which grows by the images of one job a version:

{_table(("version", "of", "job", "generator", "gate", "seed", "images"), versions)}

```sh
imagemill export dataset:{grown.ref} --format {layout.name} -o DIR
```

An image follows from the weights of its generator, the seed, the class, its index and the settings of its job alone.

{_content(spec, stats, layout)}
## Limits

The images show what the generators have learnt, with their errors and the biases of their training data. Their licence
follows from those of the generators and of that data.
"""


def _again(spec: ImagesSpec, stats: DatasetStats) -> str:
    several = len(provenance(spec).each(_names(stats))) > 1
    return "all commands but\nthe last make the same images" if several else "the first\ncommand makes the same images"


def _names(stats: DatasetStats) -> dict[int, str]:
    return {one.index: one.label for one in stats.classes}


def _content(spec: ImagesSpec, stats: DatasetStats, layout: Layout) -> str:
    """Return the sections on images, loading and columns."""
    return f"""## Images

{_table(("class", "`label_index`", "name", "accepted", "candidates", "acceptance", "mean score"), _counts(stats))}
{_rejected(stats)}
## Load it

{layout.load}

## Columns

{_table(("column", "meaning"), ((f"`{name}`", COLUMNS[name]) for name in columns(spec)))}

{layout.columns}
"""


def front_matter(spec: ImagesSpec, stats: DatasetStats, layout: Layout) -> str:
    """Return the YAML at the top of the card, https://huggingface.co/docs/hub/datasets-cards."""
    values: dict[str, Any] = {
        "pretty_name": title(spec, stats),
        "task_categories": ["image-classification"],
        "size_categories": [size_category(stats.accepted)],
        "annotations_creators": ["machine-generated"],
        "source_datasets": ["original"],
        "tags": ["synthetic", "imagemill", *layout.tags],
    }
    if layout.data_files is None:
        values["viewer"] = False
    else:
        files = [{"split": "train", "path": layout.data_files}]
        values["configs"] = [{"config_name": "default", "data_files": files}]
    values["class_names"] = list(stats.labels)
    if layout.dataset_info is not None:
        values["dataset_info"] = layout.dataset_info(spec, stats)
    # A JSON value is a YAML value: nothing that a class is called needs quotes of its own.
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def size_category(count: int) -> str:
    """Return the size category of Hugging Face, such as `1K<n<10K`."""
    bounds = ((10**3, "1K"), (10**4, "10K"), (10**5, "100K"), (10**6, "1M"), (10**7, "10M"), (10**8, "100M"))
    below = "n"
    for bound, name in bounds:
        if count < bound:
            return f"n<{name}" if below == "n" else f"{below}<n<{name}"
        below = name
    return f"{below}<n<1B"


def _facts(spec: ImagesSpec, stats: DatasetStats) -> dict[str, str]:
    facts = {
        "job": f"`{spec.id}`",
        "generator": f"`{spec.model}`",
        "weights of the generator, sha256": f"`{spec.weights_sha256}`",
        "pixels": ", ".join(f"{width} × {height}" for width, height in stats.sizes) or "none",
        "format": f"{spec.image_format.upper()}, {stats.bytes:,} bytes in all",
        "precision": spec.precision,
    }
    facts |= provenance(spec).facts()
    return facts | {"accepted": f"{stats.accepted:,} of {stats.candidates:,} candidates"}


def _counts(stats: DatasetStats) -> Iterable[Sequence[str]]:
    for number, found in enumerate(stats.classes):
        share = found.accepted / found.candidates if found.candidates else 0.0
        score = "" if found.mean_score is None else f"{found.mean_score:.4f}"
        yield (
            str(number),
            str(found.index),
            found.label,
            f"{found.accepted:,}",
            f"{found.candidates:,}",
            f"{share:.1%}",
            score,
        )


def _rejected(stats: DatasetStats) -> str:
    if not stats.rejected:
        return ""
    ranked = sorted(stats.rejected.items(), key=lambda pair: (-pair[1], pair[0]))
    return f"\nRejected: {', '.join(f'{reason} {number:,}' for reason, number in ranked)}.\n"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |" for line in lines
    )


def image_suffix(spec: ImagesSpec) -> str:
    """Return the suffix of every image file, with its dot."""
    return SUFFIX[spec.image_format]
