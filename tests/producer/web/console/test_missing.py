"""A page that is not there says what is not there, in words for a person, and where to go."""

from __future__ import annotations

import re

import pytest

from tests.producer.web.console.conftest import Browse
from tests.serving import Api

HOSTILE = "<b>x"


@pytest.mark.parametrize(
    ("path", "said", "above"),
    [
        ("jobs/none", "There is no job 'none'", "jobs"),
        ("jobs/none/errors", "There is no job 'none'", "jobs"),
        ("jobs/none/review", "There is no job 'none'", "jobs"),
        ("jobs/none/images", "There is no job 'none'", "jobs"),
        ("watches/none", "There is no watch 'none'", "watches"),
        ("schedules/none", "There is no schedule 'none'", "schedules"),
        ("webhooks/wh_00000000000000000000", "There is no webhook 'wh_00000000000000000000'", "webhooks"),
        ("datasets/none", "There is no dataset 'none'", "datasets"),
        ("models/none", "none", "models"),
        ("nothing/of/this/name", "There is no page at this address", ""),
        ("jobs/a/b/c/d/e", "There is no page at this address", "jobs"),
        ("new/nothing", "There is no such job; there are classify,", ""),
        (f"jobs/{HOSTILE}", "There is no page at this address", "jobs"),
        ("watches/" + "x" * 80, "There is no page at this address", "watches"),
    ],
)
def test_a_page_that_is_not_there_leads_to_one_that_is(browse: Browse, path: str, said: str, above: str) -> None:
    answer = browse("jobs").get(f"/console/{path}")
    main = answer.text.partition("<main")[2].partition("</main>")[0].replace("&#39;", "'")
    assert answer.status_code == 404 and said in main, main
    # I expect nothing that only a client of the HTTP API can use, a way up, and one to the first page.
    assert not re.search(r"GET /v1|openapi", main) and HOSTILE not in main
    assert (f'<a href="/console/{above}" data-go="u">' in main) == bool(above)
    assert '<a href="/console">' in main
    # Where the list is known, the bar on top shows it.
    assert (f'href="/console/{above}"' in answer.text and 'aria-current="page"' in answer.text) == bool(above)


def test_nobody_is_led_to_a_list_that_is_not_theirs(browse: Browse) -> None:
    answer = browse("infer").get("/console/jobs/none")
    assert answer.status_code == 403 and 'href="/console/jobs"' not in answer.text
    assert 'href="/console/try-it"' in answer.text


def test_clients_of_the_http_api_are_told_where_to_ask(api: Api) -> None:
    with api.client("jobs") as client:
        for kind in ("jobs", "watches", "schedules", "datasets"):
            assert f"GET /v1/{kind} lists them." in client.get(f"/v1/{kind}/none").json()["detail"], kind
        assert "/openapi.json" in client.get("/v1/nothing").json()["detail"]
