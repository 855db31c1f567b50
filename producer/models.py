"""Pushes models to the registry and pulls them out of it, as files.

It knows no torch, so a worker has to say whether a model runs. What a laptop can check is checked before the upload.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from contract.errors import ImagemillError, InvalidInput, RedisUnavailable, ServiceUnavailable
from contract.jobs.lifecycle import Backend
from contract.keys.models import model_file
from contract.keys.queues import QUEUE_CHECK
from contract.models.families import FAMILIES
from contract.models.registry import (
    PROGRAM,
    File,
    Model,
    Preprocess,
    Registry,
    Scalar,
    Task,
    check_name,
    imagemill_version,
)
from contract.models.review import Review, Verdict
from contract.paths import write_inside
from contract.times import iso

_POLL_SECONDS = 0.5
_ASK_SECONDS = 20.0
_LONELY_SECONDS = 20.0
_GAVE_UP = Verdict(ok=False, reason="The producer gave up waiting for a worker.")
_KINDS = {".pt2": "weights.pt2", ".safetensors": "weights.safetensors"}


def measured(path: Path) -> tuple[str, int]:
    """Return the sha256 of a file and its size in bytes; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def describe(
    name: str,
    file: str,
    measure: Callable[[], tuple[str, int]],
    *,
    labels: Sequence[str],
    preprocess: Mapping[str, object],
    family: str | None,
    config: Mapping[str, Scalar],
    license: str,
    source: str,
    owner: str = "",
) -> Model:
    """Return the record, without its version, of a model file that is called `file`.

    `measure` returns the sha256 of the file and its size in bytes; it is called last, and what it raises is raised.
    Raises InvalidInput naming the option.
    """
    suffix = Path(file).suffix.lower()
    if suffix not in _KINDS:
        raise InvalidInput(
            f"{file} is neither a .pt2 file of torch.export.save nor a .safetensors file; other formats can hold "
            "code, so export the model."
        )
    if suffix == ".pt2" and (family or config):
        raise InvalidInput(f"{file} has its own graph; --family and --config are for .safetensors files only.")
    if suffix != ".pt2" and not family:
        raise InvalidInput(f"{file} holds only weights; name their --family, or export the model as .pt2.")
    digest, size = measure()
    try:
        return Model(
            name=check_name(name),
            version=0,
            family=family or PROGRAM,
            config=dict(config),
            task=_task(family),
            labels=tuple(labels),
            preprocess=Preprocess.model_validate(preprocess),
            weights=File(name=_KINDS[suffix], sha256=digest, bytes=size),
            code=imagemill_version(),
            license=license,
            source=source,
            owner=owner,
        )
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"--{first['loc'][-1]}: {said}." if first["loc"] else f"{name}: {said}.") from None


def push(
    backend: Backend,
    draft: Model,
    put: Callable[[str], None],
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Model:
    """Publish a model under a new version once a worker has tried it; return its record.

    `put` brings the file to the key that it is called with. Raises NotOwner for a name of another owner, InvalidInput
    if the worker refuses it, and ServiceUnavailable if none decides within `timeout` seconds. Then, and after an
    interrupt, only the version number is used up.
    """
    version = Registry(backend.store).claim(draft.name, secrets.token_hex(16), draft.owner or None)
    draft = draft.model_copy(update={"version": version, "created_at": iso(time.time())})
    review = Review(backend.store, draft.name, version)
    try:
        put(model_file(draft.name, version, draft.weights.name))
        review.submit(draft)
        return _decided(backend, review, draft, timeout, clock, pause)
    except BaseException:
        with suppress(ImagemillError):
            _withdraw(review)
        raise


def pull(registry: Registry, model: Model, into: Path) -> list[Path]:
    """Write the record and every file of a model into a folder; a file appears once it is complete and verified.

    Raises ModelError if a file does not match its record.
    """
    into.mkdir(parents=True, exist_ok=True)
    written = []

    def write(name: str, data: bytes) -> None:
        with write_inside(into, name) as file:
            file.write(data)
        written.append(into / name)

    for file in (model.weights, *model.files):
        write(file.name, registry.read(model, file))
    write("model.json", model.to_json())
    return written


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the class names in a text file, one per line, in the order of the model's outputs.

    Raises InvalidInput for an empty file, and for a line that is empty or repeated.
    """
    try:
        lines = path.read_text("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8 text; write one label per line.") from None
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        label = line.strip()
        if not label:
            raise InvalidInput(f"Line {number} of {path} is empty; write one label per line.")
        if label in seen:
            raise InvalidInput(f"{label!r} is on lines {seen[label]} and {number} of {path}; rename one of them.")
        seen[label] = number
    if not seen:
        raise InvalidInput(f"{path} holds no labels; write one per line, in the order of the model's outputs.")
    return tuple(seen)


def read_config(settings: Sequence[str]) -> dict[str, Scalar]:
    """Parse `key=value` settings, whose values are numbers, true, false or text; raises InvalidInput."""
    found: dict[str, Scalar] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise InvalidInput(f"--config {setting}: write it as key=value.")
        found[key] = _scalar(value)
    return found


def _scalar(value: str) -> Scalar:
    if value in ("true", "false"):
        return value == "true"
    for number in (int, float):
        with suppress(ValueError):
            return number(value)
    return value


def _task(family: str | None) -> Task:
    return FAMILIES[family].task if family in FAMILIES else "classify"


def _decided(
    backend: Backend,
    review: Review,
    draft: Model,
    timeout: float,
    clock: Callable[[], float],
    pause: Callable[[float], None],
) -> Model:
    """Ask for a trial until there is a verdict, and ask again in case a message was lost."""
    begun = seen = clock()
    asked: float | None = None
    while True:
        now = clock()
        verdict = review.verdict()
        if verdict is not None:
            break
        if asked is None or now - asked >= _ASK_SECONDS:
            _ask(backend, review)
            asked = now
        if _somebody_works(backend):
            seen = now
        lonely = now - seen >= _LONELY_SECONDS
        if lonely or now - begun >= timeout:
            verdict = review.settle(_GAVE_UP)
            if verdict == _GAVE_UP:
                raise ServiceUnavailable(_gave_up(review.ref, lonely, timeout))
            break  # a worker decided at the last moment
        pause(_POLL_SECONDS)
    if not verdict.ok:
        raise InvalidInput(f"The worker refused {review.ref}. {verdict.reason}")
    # The worker publishes it too, unless it has died.
    review.publish(draft)
    return Registry(backend.store).get(review.ref)


def _ask(backend: Backend, review: Review) -> None:
    try:
        backend.queues.check(review.name, review.version)
    except RedisUnavailable as error:
        raise RedisUnavailable(
            f"Redis did not accept the request to try {review.ref}; start Redis, then push again."
        ) from error


def _somebody_works(backend: Backend) -> bool:
    try:
        alive = backend.ledger.workers()
    except RedisUnavailable:
        return False
    return any(QUEUE_CHECK in worker.fields.get("queues", "").split(",") for worker in alive)


def _withdraw(review: Review) -> None:
    """Stop workers from trying it, and remove the upload unless one has accepted it."""
    if not review.settle(_GAVE_UP).ok:
        review.discard()


def _gave_up(ref: str, lonely: bool, timeout: float) -> str:
    if lonely:
        return (
            f"No worker is alive to try {ref}, so it is not published; start one with `imagemill up` or "
            "`imagemill-worker run`, then push again."
        )
    return (
        f"No worker has tried {ref} within {timeout:.0f} s, so it is not published; the workers are busy, or their "
        "logs say why. Push again with a longer --timeout."
    )
