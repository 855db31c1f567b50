"""Models in the console."""

from __future__ import annotations

from contract.backend.objects import ObjectStore
from contract.keys.models import model_file, model_record
from contract.models.registry import Model, Registry, make_file
from tests.producer.web.console.conftest import Browse
from tests.serving import Api

HOSTILE = "<img src=x onerror=alert(1)>"


def test_a_model_has_a_card_and_its_owner_points_aliases_to_it(
    api: Api, browse: Browse, model: str, store: ObjectStore
) -> None:
    # Given a model whose card and labels are markup,
    card = f"# Card {HOSTILE}".encode()
    record = Model.model_validate_json(store.get(model_record(model, 1)))
    record = record.model_copy(
        update={"files": (make_file("card.md", card),), "card": "card.md", "labels": (HOSTILE, "b")}
    )
    store.put(model_record(model, 1), record.to_json())
    store.put(model_file(model, 1, "card.md"), card)
    client = browse("jobs")
    assert f"/console/models/{model}@1" in client.get("/console/models").text
    page = client.get(f"/console/models/{model}@1").text
    assert "# Card &lt;img" in page and HOSTILE not in page
    # if I set an alias, I expect it to stand for the version at once,
    answer = client.post(f"/console/models/{model}/aliases", data={"alias": "live", "version": "1"})
    assert answer.headers["Location"] == f"/console/models/{model}@1"
    assert "@live" in client.get(f"/console/models/{model}@live").text
    assert f"/{model}/aliases/live/remove" in client.get(f"/console/models/{model}").text
    assert client.post(f"/console/models/{model}/aliases/live/remove").status_code == 303
    assert client.get(f"/console/models/{model}@live").status_code == 404
    # and a sentence for what cannot be one, and for what is no file to show.
    wrong = client.post(f"/console/models/{model}/aliases", data={"alias": "No", "version": "1"})
    assert wrong.status_code == 422 and "is not an alias" in wrong.text
    assert client.get(f"/console/models/{model}@1/files/card.md").status_code == 415
    assert client.get(f"/console/models/{model}@1/files/weights.safetensors").status_code == 404
    assert (
        browse("review").post(f"/console/models/{model}/aliases", data={"alias": "a", "version": "1"}).status_code
        == 403
    )


def test_only_the_owner_of_a_model_is_shown_what_moves_its_aliases(
    browse: Browse, model: str, store: ObjectStore
) -> None:
    Registry(store).own(model, "ann")
    place = f"/console/models/{model}"
    for who, owner, shown in (
        ("jobs", "ann", True),
        ("review", "ann", False),
        ("jobs", "bob", False),
        ("admin", "root", True),
    ):
        client = browse(who, owner=owner)
        assert ("aliases" in client.get(place).text) == shown, (who, owner)
        answer = client.post(f"{place}/aliases", data={"alias": "live", "version": "1"})
        assert answer.status_code == (303 if shown else 403), answer.text
    assert browse("jobs", owner="bob").post(f"{place}/aliases/live/remove").status_code == 403
