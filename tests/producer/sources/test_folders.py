"""A folder is walked in the order of its keys, whatever its names are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contract.errors import InvalidSource
from producer.sources.folders import walk


def touch(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def keys(folder: Path) -> list[str]:
    return [file.key for file in walk(folder)]


def test_keys_are_relative_paths_in_the_order_of_whole_keys(tmp_path: Path) -> None:
    for name in ("a/z.jpg", "a.jpg", "a-b/c.jpg", "b.jpg", "a/b/c.jpg"):
        touch(tmp_path / name)

    assert keys(tmp_path) == sorted(["a/z.jpg", "a.jpg", "a-b/c.jpg", "b.jpg", "a/b/c.jpg"])


def test_hidden_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path / ".git" / "a.jpg")
    touch(tmp_path / "b.jpg")

    assert keys(tmp_path) == ["b.jpg"]


def test_a_link_into_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "up").symlink_to(tmp_path)

    assert keys(tmp_path) == ["in/a.jpg"]


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere")

    assert keys(tmp_path / "photos") == ["more/a.jpg"]


def test_a_dead_link_is_a_file_that_cannot_be_read_and_a_pipe_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")

    assert [(file.key, file.size) for file in walk(tmp_path)] == [("dead.jpg", None)]


def test_every_name_survives_in_the_uri(tmp_path: Path) -> None:
    touch(tmp_path / "a b+c%20#ü.jpg")
    (found,) = walk(tmp_path)

    assert found.key == "a b+c%20#ü.jpg"
    assert found.uri == f"file://{tmp_path}/a%20b%2Bc%2520%23%C3%BC.jpg"


def test_a_name_that_is_no_utf8_becomes_one_that_is(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/bad\xff.jpg", "wb"):
        pass
    (found,) = walk(tmp_path)

    assert found.key == "bad\ufffd.jpg"
    assert found.uri.endswith("/bad%FF.jpg")
    assert found.size == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir(mode=0)

    with pytest.raises(InvalidSource, match="cannot be listed"):
        keys(tmp_path)
