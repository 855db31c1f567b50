"""Lists come a page at a time, in order, and have what their reader may see."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import httpx2
import pytest

from contract.backend.named_records import NamedRecords
from contract.backend.objects import ObjectStore
from contract.errors import UnknownSchedule
from contract.keys.models import model_record
from contract.models.registry import Model, Registry
from contract.settings import Settings
from contract.web.addresses import AddressPolicy
from contract.web.webhooks.endpoints import Endpoints
from producer import Client, HttpClient
from producer.http_api import HttpApi
from producer.web.v1 import paging
from producer.web.v1.jobs import cursor_of
from tests.serving import Api

PLACES = {"/v1/schedules": "name", "/v1/watches": "name", "/v1/webhooks": "id", "/v1/models": "version"}
"""What tells the entries of each list apart."""
POLICY = AddressPolicy("127.0.0.1", "1-65535")


@pytest.fixture
def lists(api: Api, model: str) -> dict[str, list[Any]]:
    """What ann sees in each list: five entries, of which bob's lie between. Models are everybody's."""
    for number in range(10):
        owner = "bob" if number % 2 else "ann"
        _add(api.store, model, number, owner)
        with api.client("jobs", owner=owner) as client:
            labels = {"source": f"s3://{api.store.bucket}/photos/", "model": model}
            schedule = {"name": f"s-{number}", "cron": "0 2 * * *", "job": {"command": "classify", **labels}}
            assert client.post("/v1/watches", json={"name": f"w-{number}", **labels}).status_code == 201
            assert client.post("/v1/schedules", json=schedule).status_code == 201
    hooks = sorted(one.id for one in Endpoints(api.store).all() if one.owner == "ann")
    evens = range(0, 10, 2)
    return {
        "/v1/schedules": [f"s-{number}" for number in evens],
        "/v1/watches": [f"w-{number}" for number in evens],
        "/v1/webhooks": hooks,
        "/v1/models": [*range(12, 0, -1)],
    }


def _add(store: ObjectStore, model: str, number: int, owner: str) -> None:
    Endpoints(store).named(f"http://127.0.0.1:9/{number}", owner, POLICY)
    first = Model.model_validate_json(store.get(model_record(model, 1)))
    for version in (number + 1, 11, 12):
        made = first.model_copy(update={"version": version})
        store.put(model_record(model, version), made.to_json())


@pytest.mark.parametrize("at_once", [1, 32])
def test_pages_follow_each_other_and_together_are_the_list(
    api: Api, lists: dict[str, list[Any]], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "_AT_ONCE", at_once)
    with api.client("jobs") as client:
        for path, expected in lists.items():
            name = PLACES[path]
            # Without a limit, I expect the list as it is,
            whole = client.get(path)
            assert [one[name] for one in whole.json()] == expected and "Link" not in whole.headers
            # with one, pages that lead to each other.
            found, place = [], f"{path}?limit=2"
            while place:
                answer = client.get(place)
                page = [one[name] for one in answer.json()]
                found.append(page)
                place = answer.links.get("next", {}).get("url", "")
                assert len(page) <= 2 and (
                    not place or (len(page) == 2 and place.startswith(f"{path}?limit=2&cursor="))
                )
            assert [one for page in found for one in page] == expected, path


def test_a_page_begins_behind_what_is_gone(api: Api, lists: dict[str, list[Any]]) -> None:
    with api.client("jobs") as client:
        first = client.get("/v1/watches", params={"limit": 2})
        assert client.delete("/v1/watches/w-2").status_code == 204
        assert [one["name"] for one in client.get(first.links["next"]["url"]).json()] == ["w-4", "w-6"]


def test_a_list_leaves_out_what_is_removed_while_it_is_read(
    api: Api, settings: Settings, lists: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given names that were there when they were listed,
    names, versions = NamedRecords.names, Registry.versions
    monkeypatch.setattr(NamedRecords, "names", lambda records: [*names(records), "zz-gone"])
    monkeypatch.setattr(Registry, "versions", lambda registry: [*versions(registry), ("zz-gone", 1)])
    with api.client("jobs") as client:
        for path in ("/v1/schedules", "/v1/watches", "/v1/models"):
            for params in ({}, {"limit": 200}):
                answer = client.get(path, params=params)
                assert answer.status_code == 200, answer.text
                assert [one[PLACES[path]] for one in answer.json()] == lists[path]
    # and so in Python, for the command line and the console.
    with closing(Client(settings)) as here:
        evens = range(0, 10, 2)
        assert {f"s-{n}" for n in evens} < {one.name for one in here.schedules()}
        assert {f"w-{n}" for n in evens} < {one.name for one in here.watches()}
        with pytest.raises(UnknownSchedule):
            here.schedules("zz-gone")


def test_a_cursor_that_no_page_gave_is_refused(api: Api, lists: dict[str, list[Any]]) -> None:
    with api.client("jobs") as client:
        for path in PLACES:
            assert client.get(path, params={"cursor": "=?"}).status_code == 422, path
            assert client.get(path, params={"limit": 0}).status_code == 422, path
        answer = client.get("/v1/models", params={"cursor": cursor_of("no-version")})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def test_the_client_reads_all_pages(api: Api, lists: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.http_api._PAGE", 2)
    asked, send = list[str](), HttpApi.send

    def counted(self: HttpApi, method: str, path: str, **how: Any) -> httpx2.Response:
        asked.append(path)
        return send(self, method, path, **how)

    monkeypatch.setattr(HttpApi, "send", counted)
    with HttpClient(api.url, api.token("jobs")) as client:
        assert [one.name for one in client.schedules()] == lists["/v1/schedules"]
        assert [one.name for one in client.watches()] == lists["/v1/watches"]
        assert [one.id for one in client.webhooks()] == lists["/v1/webhooks"]
        assert [one.version for one in client.models()] == lists["/v1/models"]
    assert {path: asked.count(path) for path in PLACES} == {
        "/v1/schedules": 3,
        "/v1/watches": 3,
        "/v1/webhooks": 3,
        "/v1/models": 6,
    }
