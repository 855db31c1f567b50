"""A store without room: the job says so in one sentence, nothing half is ever published, and with room it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import StoreFull
from contract.models.registry import Registry
from deploy.local.servers import Servers
from deploy.local.supervisor import Supervisor
from tests import proxy
from tests.mill import Mill, make_servers
from tests.proxy import Refusal

RECIPE = ["epochs=2", "variant=classic", "batch_size=32", "precision=fp32", "size=16", "learning_rate=0.02"]
ROOM = 48 * 2**20


def test_a_training_that_finds_no_room_to_publish_says_so_and_is_resumed(tmp_path: Path, crops: Path) -> None:
    # Given a store that has no room for the files of a model, the record of which it would take, nor for a job's end,
    def no_room(method: str, path: str) -> Refusal | None:
        key = path.partition("?")[0]
        files = "/models/digits/" in key and not key.endswith(("model.json", "claim", "owner.json"))
        return (507, "XMinioStorageFull") if method == "PUT" and (files or key.endswith("end.json")) else None

    with (
        proxy.before(Servers.of(tmp_path).s3_endpoint) as store,
        Mill(tmp_path, workers=1, s3_endpoint=store.address).running() as mill,
    ):
        store.refuses = no_room

        # I expect a training to fail with one sentence that says what to do,
        mill.client.train("cnn", crops, name="digits", settings=RECIPE, job="digits")
        status = mill.finished("digits")
        assert status.state == "failed"
        assert status.reason is not None
        assert "has no room for s3://imagemill/models/digits/1/" in status.reason and "\n" not in status.reason
        assert "`imagemill resume`" in status.reason
        assert store.refused

        # and no version to be listed,
        registry = Registry(mill.client.backend.store)
        assert "digits" not in {name for name, _ in registry.versions()}
        assert "digits" not in {model.name for model in registry.models()}

        # and, when there is room again, the same version to be published without another epoch.
        epochs = mill.client.history("digits")
        store.refuses = lambda method, path: None
        mill.client.resume("digits")
        status = mill.finished("digits")
        assert (status.state, status.model) == ("succeeded", "digits@1")
        registry.verify(registry.get("digits"))
        assert mill.client.history("digits") == epochs
        assert len(epochs) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 48 MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small disk to fill")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this root may not mount: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(store: ObjectStore) -> None:
    for n in range(2 * ROOM // 2**22):
        store.put(f"ballast/{n}", bytes(2**22))


def test_a_disk_that_is_full_is_said_and_with_room_it_goes_on(small_disk: Path, tmp_path: Path) -> None:
    # Given an S3 server whose disk is filled up,
    services, found = make_servers(small_disk)
    with Supervisor(services, tmp_path / "logs") as servers:
        servers.start("s3")
        with closing(ObjectStore(found, patience=1.0)) as store:
            store.ensure_bucket()
            # I expect a sentence, once the store has failed for as long as it is waited for,
            with pytest.raises(StoreFull, match=r"s3://imagemill/ballast/\d+ for 1 s; its disk may be full"):
                fill(store)
            large = tmp_path / "large"
            large.write_bytes(bytes(2**22))
            with pytest.raises(StoreFull):
                store.put_file("large", large)
            with pytest.raises(StoreFull):
                store.put_if_absent("once", bytes(2**22))
            assert not store.exists("large") and not store.exists("once")

            # and none when there is room again.
            servers.stop_service("s3")
            subprocess.run(["mount", "-o", f"remount,size={2 * ROOM}", str(small_disk)], check=True)
            servers.start_service("s3")
            store.put_file("large", large)
            assert store.put_if_absent("once", bytes(2**22))
