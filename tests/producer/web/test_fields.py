"""What is said over HTTP names fields of a request, where the command line's words are options."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

from contract.jobs.options import COMMANDS, WatchOptions, cli_of
from contract.records import Record
from producer.web.fields import fields, named
from tests.serving import Api


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--count is missing; say it.", "`count` is missing; say it."),
        ("Take --keep-days, or (--to) `--max-errors`.", "Take `keep_days`, or (`to`) `max_errors`."),
        ("only of a watch with `--from now`.", "only of a watch with `start now`."),
        ("--class owl, --data x, --set a=b", "`classes` owl, `source` x, `settings` a=b"),
        ("Use `imagemill models alias --remove a@b` first.", "Use `imagemill models alias --remove a@b` first."),
        ("Run `docker run --gpus all`, or set --size.", "Run `docker run --gpus all`, or set `size`."),
        ("A folder is uploaded with --upload, not with --to.", "A folder is uploaded with --upload, not with `to`."),
        ("The key 'a --model b.jpg' and the owner's --model", "The key 'a --model b.jpg' and the owner's `model`"),
        ('Of "a --to b" or a --to.jpg, set --to.', 'Of "a --to b" or a --to.jpg, set `to`.'),
        ("s3://a/--to/ lies below a--b, 'x --' and ---.", "s3://a/--to/ lies below a--b, 'x --' and ---."),
    ],
)
def test_an_option_is_named_as_the_field_it_is(text: str, said: str) -> None:
    assert named(text) == said


def test_a_flag_is_one_field_wherever_it_is() -> None:
    models: list[type[Record]] = [*COMMANDS.values(), WatchOptions]
    for model in models:
        for name, field in model.model_fields.items():
            if flag := cli_of(field).flag:
                assert fields()[flag] == name, (model, flag)


def test_no_refusal_and_no_description_names_an_option(api: Api, model: str) -> None:
    source = f"s3://{api.store.bucket}/photos/"
    watch = {"name": "w", "source": source, "model": model}
    refused: list[tuple[str, str, dict[str, Any], str]] = [
        ("POST", "/v1/jobs", {"command": "generate", "model": model}, "`count`"),
        ("POST", "/v1/jobs", {"command": "generate", "model": model, "count": 1, "steps": 3}, "`interpolate`"),
        ("POST", "/v1/jobs", {"command": "synthesize", "model": model, "gate": model}, "`per_class`"),
        ("POST", "/v1/watches", {**watch, "archive": f"s3://{api.store.bucket}/old/"}, "`overwrites`"),
        ("POST", "/v1/watches", {**watch, "to": f"{source}rows/"}, "`to`"),
        ("POST", "/v1/watches", {**watch, "every": "1h30"}, "`every`"),
        ("POST", "/v1/watches", {**watch, "source": "photos"}, "write s3://bucket/prefix; this server reads no files"),
        ("POST", "/v1/jobs", {"command": "classify", "model": model, "source": "photos"}, "write upload:ID"),
        ("POST", "/v1/webhooks", {"url": "http://10.0.0.1/hook"}, "webhook"),
    ]
    with api.client("admin") as client:
        for method, path, sent, expected in refused:
            answer = client.request(method, path, json=sent)
            said = answer.json()["detail"]
            assert answer.status_code == 422 and expected in said and not options(said), said
        assert client.post("/v1/workers/drain", json={}).json()["detail"].count("`all_of`") == 1
        assert client.post("/v1/watches", json=watch).status_code == 201
        begin = {"begin": "2026-11-26T09:00:00Z", "end": "2026-11-26T08:00:00Z", "model": model}
        said = client.post("/v1/watches/w/replay", json=begin).json()["detail"]
        assert "swap them" in said and not options(said), said
        assert "`since`" in client.get("/v1/watches/w/results", params={"since": "later"}).json()["detail"]
    document = httpx2.get(f"{api.url}/openapi.json", timeout=60).text
    assert not options(document)


def options(text: str) -> list[str]:
    """The options of the command line in a text, but for those of whole commands."""
    return re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"`(?!--)[^`]*`", "", text))
