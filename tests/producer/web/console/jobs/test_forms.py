"""Forms that start jobs: every option is there, and a mistake costs nothing that was typed."""

from __future__ import annotations

import re

import pytest

from contract.jobs.options import COMMANDS
from producer.web.console.jobs.forms import inputs_of, values_of_form
from tests.producer.web.console.conftest import Browse
from tests.serving import Api


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_a_field_that_says_what_it_is(command: str, browse: Browse) -> None:
    page = browse("jobs").get(f"/console/new/{command}").text
    for name, field in COMMANDS[command].model_fields.items():
        assert f'name="{name}"' in page, name
        found = next(one for one in inputs_of(command) if one.name == name)
        assert found.needed == field.is_required()
        # What has no default cannot be guessed.
        assert found.help or not found.needed, name


def test_a_form_says_what_a_request_would() -> None:
    given = {
        "model": " m ",
        "source": "s3://b/x/",
        "embed": "on",
        "priority": "normal",
        "top_k": "",
        "shard_size": "10",
    }
    values = values_of_form("classify", given)
    # What was left as it was is left out, so that an option that was not given stays not given.
    assert values == {"command": "classify", "model": "m", "source": "s3://b/x/", "embed": True, "shard_size": "10"}
    given = {"model": "m", "classes": "T-shirt/top\r\n\r\n Bag \r\n", "numerics": "any"}
    assert values_of_form("generate", given) == {
        "command": "generate",
        "model": "m",
        "classes": ["T-shirt/top", "Bag"],
        "numerics": "any",
    }


def test_a_job_is_submitted_once_however_often_the_form_is_sent(api: Api, browse: Browse, model: str) -> None:
    client = browse("jobs")
    (id,) = re.findall('name="id" value="(classify-[^"]+)"', client.get("/console/new/classify").text)
    given = {"model": model, "source": f"s3://{api.store.bucket}/photos/", "top_k": "2", "id": id}
    answers = [client.post("/console/new/classify", data=given) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 303]
    assert {answer.headers["Location"] for answer in answers} == {f"/console/jobs/{id}"}
    assert f"{model}@1" in client.get(f"/console/jobs/{id}").text
    # Another job from the same form is refused, and the form has a new name for it.
    answer = client.post("/console/new/classify", data={**given, "embed": "on"})
    assert (
        answer.status_code == 409 and f'value="{id}"' not in answer.text and 'name="id" value="classify-' in answer.text
    )
    named = client.post("/console/new/classify", data={**given, "job": "by-name"})
    assert named.headers["Location"] == "/console/jobs/by-name"


def test_a_mistake_is_said_and_what_was_typed_stays(api: Api, browse: Browse, model: str) -> None:
    client = browse("jobs")
    place = "/console/new/classify"
    hostile = '"><img src=x onerror=alert(1)>'
    for changed, said in (
        ({"top_k": "many"}, "top_k"),
        ({"source": "/etc"}, "source"),
        ({"source": "s3://nowhere/x/"}, "nowhere"),
        ({"model": hostile}, "&lt;img"),
        ({"max_errors": hostile}, "max_errors"),
    ):
        given = {"model": model, "source": f"s3://{api.store.bucket}/photos/", "weight": "7", "id": "an-id", **changed}
        answer = client.post(place, data=given)
        assert answer.status_code in (404, 422), answer.text
        assert 'role="alert"' in answer.text and said in answer.text, said
        assert 'value="7"' in answer.text and "<img src=x" not in answer.text
    assert client.get("/console/new/nothing").status_code == 404
    assert client.post("/console/new/nothing", data={}).status_code == 404
    assert browse("review").get(place).status_code == 403
