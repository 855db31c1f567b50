"""The embedded S3 server tells the controller what is written, and the controller its watches."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError

import pytest

from contract import settings as configuration
from contract.backend.objects import ObjectStore
from contract.keys.models import model_record
from deploy.local.servers import SERVERS_FILE
from deploy.local.stack import Stack
from producer import Client
from tests.parity import MODEL
from tests.waiting import wait_until

MANY = 1_001
"""More than a page of a listing, so that a full listing of the prefix is made every ten minutes only."""


def test_a_key_that_sorts_before_all_others_is_found_by_its_event(tmp_path: Path) -> None:
    # Given a watch of a prefix that has just been listed in full,
    data = tmp_path / "data"
    with Stack(data, workers=0):
        settings = configuration.load(data=data)
        store = ObjectStore(settings)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: store.put(f"cam/m-{n:04d}.jpg", b"x"), range(MANY)))
        store.put(model_record(MODEL.name, MODEL.version), MODEL.to_json())
        client = Client(settings)
        client.add_watch("camera", f"s3://{store.bucket}/cam/", model=MODEL.ref, every="500ms")
        wait_until(lambda: client.watch("camera").planned == MANY, 60, "the backfill")

        # if a key comes that sorts before all others, I expect its event to lead to it, long before the next listing.
        store.put("cam/a.jpg", b"x")
        wait_until(lambda: client.watch("camera").planned == MANY + 1, 60, "the key that was announced")

        # Nobody else can announce anything.
        port = json.loads((data / SERVERS_FILE).read_text())["events_port"]
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/events", data=b'{"Records": []}')
        with pytest.raises(HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        with refused.value:
            assert refused.value.code == 401
