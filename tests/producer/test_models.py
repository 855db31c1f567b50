"""Pushing a model: which mistakes a laptop finds, and how it waits for a worker, which is a function here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, ModelError, RedisUnavailable, ServiceUnavailable, StoreUnavailable
from contract.jobs.lifecycle import Backend
from contract.keys.models import model_claim, model_file
from contract.models.registry import Model, Registry, imagemill_version, make_file
from contract.models.review import Review, Verdict
from producer.cli.models import _print
from producer.models import describe, measured, pull, push, read_config, read_labels

SHAPE = {"size": 28, "mean": 127.5, "std": 127.5}


def file(folder: Path, name: str = "birds.pt2") -> Path:
    path = folder / name
    path.write_bytes(b"weights")
    return path


def described(path: Path, name: str = "birds", **options: Any) -> Model:
    given: dict[str, Any] = {"labels": ("jay", "tit"), "preprocess": SHAPE, "family": None, "config": {}}
    return describe(name, path.name, lambda: measured(path), license="MIT", source="", **{**given, **options})


# What is pushed


def test_a_program_needs_no_family(tmp_path: Path) -> None:
    model = described(file(tmp_path))

    assert (model.family, model.task, model.weights) == ("program", "classify", make_file("weights.pt2", b"weights"))
    assert (model.preprocess.channels, model.license, model.code) == (3, "MIT", imagemill_version())


def test_weights_have_the_task_of_their_family(tmp_path: Path) -> None:
    model = described(file(tmp_path, "x.safetensors"), family="vae", config={"latent": 8}, labels=())

    assert (model.family, model.task, model.labels, model.config) == ("vae", "generate", (), {"latent": 8})


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("x.pth", {}, r"neither a \.pt2 .* nor a \.safetensors"),
        ("x.pt2", {"family": "cnn"}, "has its own graph"),
        ("x.safetensors", {}, "name their --family"),
        ("x.pt2", {"labels": ()}, "birds: a model of task classify needs labels"),
        ("x.pt2", {"preprocess": {**SHAPE, "std": 0}}, "--std: "),
        ("x.pt2", {"preprocess": {**SHAPE, "channels": 2}}, "--channels: "),
        ("x.pt2", {"name": "My Birds"}, "'My Birds' is not a model name"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_uploaded(
    tmp_path: Path, name: str, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(InvalidInput, match=match):
        described(file(tmp_path, name), **options)


def test_labels_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("\ufeffjay\n  blue tit \r\nrobin\n\n\n", "utf-8")
    assert read_labels(path) == ("jay", "blue tit", "robin")

    wrong = {"jay\n\ntit": "Line 2 of", "jay\ntit\njay": "'jay' is on lines 1 and 3", "\n": "no labels"}
    for text, match in wrong.items():
        path.write_text(text)
        with pytest.raises(InvalidInput, match=match):
            read_labels(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read_labels(path)


def test_settings_are_numbers_truths_or_text() -> None:
    found = read_config(["size=28", "dropout=0.5", "deep=true", "variant=classic", "note=a=b"])
    assert found == {"size": 28, "dropout": 0.5, "deep": True, "variant": "classic", "note": "a=b"}
    with pytest.raises(InvalidInput, match="--config size: write it as key=value"):
        read_config(["size"])


# Waiting for the verdict


@dataclass
class Workers:
    """A queue, heartbeats and a clock, for a producer that waits. `answer` is called at each message."""

    store: ObjectStore
    alive: bool = True
    answer: Callable[[Review], None] = lambda _: None
    asked: list[float] = field(default_factory=list)
    now: float = 0.0
    queue_error: Exception | None = None

    def check(self, name: str, version: int) -> None:
        if self.queue_error:
            raise self.queue_error
        self.asked.append(self.now)
        self.answer(Review(self.store, name, version))

    def workers(self) -> list[Any]:
        return [SimpleNamespace(fields={"queues": "classify,check"})] if self.alive else []

    def pause(self, seconds: float) -> None:
        self.now += seconds

    @property
    def backend(self) -> Backend:
        return Backend(self.store, cast("Any", self), cast("Any", self))


@pytest.fixture
def workers(store: ObjectStore) -> Workers:
    return Workers(store)


def push_it(workers: Workers, folder: Path, timeout: float = 600.0) -> Model:
    path = file(folder)

    def put(key: str) -> None:
        workers.store.put_file(key, path)

    return push(workers.backend, described(path), put, timeout=timeout, clock=lambda: workers.now, pause=workers.pause)


def left(store: ObjectStore, version: int = 1) -> set[str]:
    prefix = model_file("birds", version, "")
    return {entry.key.removeprefix(prefix) for entry in store.list(prefix)}


def says_yes(review: Review) -> None:
    review.settle(Verdict(ok=True))


def test_a_worker_that_says_yes_publishes(workers: Workers, tmp_path: Path) -> None:
    workers.answer = says_yes

    model = push_it(workers, tmp_path)

    assert Registry(workers.store).get("birds") == model
    assert (model.ref, bool(model.created_at)) == ("birds@1", True)
    Registry(workers.store).verify(model)
    assert push_it(workers, tmp_path).ref == "birds@2"


def test_a_worker_that_says_no_is_quoted(workers: Workers, tmp_path: Path) -> None:
    workers.answer = lambda review: (review.settle(Verdict(ok=False, reason="Its batch is fixed to 2.")), None)[1]

    with pytest.raises(InvalidInput, match=r"The worker refused birds@1\. Its batch is fixed to 2\."):
        push_it(workers, tmp_path)

    assert Registry(workers.store).versions() == []
    assert left(workers.store) == {"claim", "check.json"}


def test_a_lost_message_is_sent_again(workers: Workers, tmp_path: Path) -> None:
    workers.answer = lambda review: says_yes(review) if len(workers.asked) == 3 else None

    push_it(workers, tmp_path)

    assert workers.asked == [0.0, 20.0, 40.0]


def test_without_a_worker_it_says_so_soon(workers: Workers, tmp_path: Path) -> None:
    workers.alive = False

    with pytest.raises(ServiceUnavailable, match=r"No worker is alive to try birds@1.*imagemill-worker run"):
        push_it(workers, tmp_path)

    assert workers.now == 20.0
    assert left(workers.store) == {"claim", "check.json"}


def test_busy_workers_are_waited_for_as_long_as_was_said(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="No worker has tried birds@1 within 90 s"):
        push_it(workers, tmp_path, timeout=90.0)

    assert workers.now == 90.0
    assert Registry(workers.store).versions() == []


def test_a_worker_that_comes_too_late_publishes_nothing(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable):
        push_it(workers, tmp_path, timeout=1.0)

    assert not Review(workers.store, "birds", 1).settle(Verdict(ok=True)).ok


def test_interrupted_it_leaves_nothing_but_the_number(workers: Workers, tmp_path: Path) -> None:
    def interrupt(_: Review) -> None:
        raise KeyboardInterrupt

    workers.answer = interrupt
    with pytest.raises(KeyboardInterrupt):
        push_it(workers, tmp_path)

    assert left(workers.store) == {"claim", "check.json"}


def test_a_queue_that_is_away_is_told(workers: Workers, tmp_path: Path) -> None:
    workers.queue_error = RedisUnavailable("away")

    with pytest.raises(RedisUnavailable, match="start Redis, then push again"):
        push_it(workers, tmp_path)

    assert Registry(workers.store).versions() == []


def test_an_error_is_not_hidden_by_a_store_that_is_away(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = workers.store.put_if_absent

    def away(key: str, data: bytes) -> bool:
        if key != model_claim("birds", 1):
            raise StoreUnavailable("away")
        return put(key, data)

    workers.queue_error = RedisUnavailable("away")
    monkeypatch.setattr(workers.store, "put_if_absent", away)
    with pytest.raises(RedisUnavailable):
        push_it(workers, tmp_path)


# Taking it out


def test_a_model_comes_out_as_it_went_in(store: ObjectStore, tmp_path: Path) -> None:
    path = file(tmp_path)
    card = make_file("card.md", b"# Birds")
    model = described(path).model_copy(update={"version": 1, "files": (card,), "card": "card.md"})
    Registry(store).publish(model, {"weights.pt2": b"weights", "card.md": b"# Birds"})

    written = pull(Registry(store), model, tmp_path / "new" / "folder")

    assert [found.name for found in written] == ["weights.pt2", "card.md", "model.json"]
    assert written[0].read_bytes() == b"weights"
    assert Model.model_validate(json.loads(written[2].read_text())) == model
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 3

    store.put(model_file("birds", 1, "card.md"), b"# Bards")
    with pytest.raises(ModelError, match=r"card\.md of birds@1 hashes to"):
        pull(Registry(store), model, tmp_path / "other")


def test_ids_of_labels_are_shown_where_there_are_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = described(file(tmp_path, "x.safetensors"), family="cnn", config={"size": 28})
    with_ids = model.model_copy(update={"label_ids": ("n01580077", "n01592084")})
    for as_json in (False, True):
        _print(model, {}, as_json)
        assert not re.search("label.ids", capsys.readouterr().out)
        _print(with_ids, {}, as_json)
        assert re.search("label.ids.*n01580077.*n01592084", capsys.readouterr().out, re.DOTALL)
