"""A mistyped name is answered with the names that were probably meant."""

from __future__ import annotations

import pytest

from contract.suggest import did_you_mean, nearest

FAMILIES = ("cnn", "rnn", "gan", "vae")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cnnn", "did you mean cnn or rnn?"),
        ("GAN", "did you mean gan?"),
        ("transformer", "there are: cnn, rnn, gan, vae."),
        ("", "there are: cnn, rnn, gan, vae."),
    ],
)
def test_near_names_are_suggested_and_else_there_is_a_list(name: str, expected: str) -> None:
    assert did_you_mean(name, FAMILIES) == expected


def test_a_long_list_is_cut() -> None:
    assert did_you_mean("?", [f"model{n}" for n in range(9)]).endswith("model4, ….")


def test_names_of_several_words_are_quoted() -> None:
    assert did_you_mean("tiger cats", ["tiger cat", "ear"], quoted=True) == "did you mean 'tiger cat'?"
    assert did_you_mean("?", ["tiger cat", "ear"], quoted=True) == "there are: 'tiger cat', 'ear'."


def test_the_caller_may_say_what_to_do_instead() -> None:
    assert did_you_mean("Mars", ["Europe/Paris"], otherwise="write it as in Europe/Paris.").startswith("write it")


def test_the_most_similar_name_comes_first_as_it_is_spelled() -> None:
    assert nearest("europe/pari", ["Europe/Prague", "Europe/Paris"])[0] == "Europe/Paris"
