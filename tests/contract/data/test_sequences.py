"""Which files are one sequence, in which order, and which frames are looked at."""

from __future__ import annotations

import pytest

from contract.data import sequences
from contract.data.sequences import Folder, by_folder, natural, spread


@pytest.mark.parametrize(
    ("count", "most", "taken"),
    [(3, 5, [0, 1, 2]), (3, 3, [0, 1, 2]), (5, 3, [0, 2, 4]), (8, 4, [0, 2, 5, 7]), (9, 1, [0]), (0, 4, [])],
)
def test_frames_are_spread_evenly(count: int, most: int, taken: list[int]) -> None:
    assert spread(count, most) == taken


def test_names_are_in_the_order_that_people_give_them() -> None:
    names = ["frame-10.png", "frame-2.png", "2.png", "10.png", "frame.png", "frame-02.png", "a1b10", "a1b9", "ü1"]
    assert sorted(names, key=natural) == [
        "2.png",
        "10.png",
        "a1b9",
        "a1b10",
        "frame-02.png",
        "frame-2.png",
        "frame-10.png",
        "frame.png",
        "ü1",
    ]


def grouped(*paths: str, most: int = 9) -> list[str | list[str]]:
    """A folder as its path and its frames, an animation as it is."""
    found = by_folder(sorted(paths), lambda path: path)
    return [[one.path, *one.frames(most)] if isinstance(one, Folder) else one for one in found]


def test_a_folder_is_one_sequence_and_comes_when_it_has_ended() -> None:
    assert grouped("a/1.png", "a/b/1.png", "a/c.png", "a/d.gif", "ab/1.png", "z.png") == [
        ["a/b/", "a/b/1.png"],
        "a/d.gif",
        ["a/", "a/1.png", "a/c.png"],
        ["ab/", "ab/1.png"],
        ["", "z.png"],
    ]


def test_a_suffix_tells_an_animation() -> None:
    assert grouped("x/A.WEBP", "x/b.apng", "x/c.png", "x/d") == ["x/A.WEBP", "x/b.apng", ["x/", "x/c.png", "x/d"]]


def test_of_too_many_frames_none_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "MAX_FRAMES", 3)
    (folder,) = by_folder([f"{n}.png" for n in range(5)], lambda path: path)
    assert isinstance(folder, Folder)
    assert (folder.length, list(folder.frames(9))) == (5, [])
