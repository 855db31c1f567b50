"""Tokens of the HTTP API: what is kept of them, and who is let in."""

from __future__ import annotations

import re

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, UnknownToken
from contract.keys.bucket import TOKENS
from contract.keys.tokens import token_record
from contract.web.tokens import PATTERN, Tokens, describe, id_of, new_token, parse_life, parse_rate


def test_the_bucket_holds_a_hash_and_not_the_token(store: ObjectStore) -> None:
    text = new_token()
    Tokens(store).put(describe(text, owner="ann", scopes=["jobs"]))
    held = b"".join(store.get(entry.key) for entry in store.list(TOKENS))
    assert text.rpartition("_")[2].encode() not in held and b"ann" in held
    assert re.fullmatch(PATTERN, text)


def test_only_the_whole_token_is_let_in(store: ObjectStore) -> None:
    # Given a token in the bucket,
    text, tokens = new_token(), Tokens(store)
    tokens.put(describe(text, owner="ann", scopes=["review", "jobs"]))
    found = tokens.find(text)
    assert found is not None and found.owner == "ann" and found.scopes == ("jobs", "review")
    # if one digit differs, or the id alone is right, or it is no token, I expect nobody.
    other = "1" if text[-1] == "0" else "0"
    for wrong in (
        text[:-1] + other,
        f"imk_{id_of(text)}_{'0' * 64}",
        text.upper(),
        f"{text}\n",
        text + "0",
        "",
        "imk_",
    ):
        assert tokens.find(wrong) is None, wrong


def test_a_token_ends_when_it_is_revoked_or_its_time_is_over(store: ObjectStore) -> None:
    tokens, text, short = Tokens(store), new_token(), new_token()
    tokens.put(describe(text, owner="ann", scopes=["jobs"]))
    tokens.put(describe(short, owner="ann", scopes=["infer"], lives=60, now=1_000_000.0))
    assert tokens.find(short, now=1_000_059.0) is not None and tokens.find(short, now=1_000_060.0) is None
    id = id_of(text)
    assert id is not None
    tokens.revoke(id)
    assert tokens.find(text) is None
    assert [token.id for token in tokens.all()] == [id_of(short)]
    for unknown in (id, "../jobs/x", "", "0" * 12):
        with pytest.raises(UnknownToken):
            tokens.revoke(unknown)


def test_a_record_of_another_id_lets_nobody_in(store: ObjectStore) -> None:
    # Given the record of my token under the id of another, as somebody could copy it,
    text, other = new_token(), new_token()
    store.put(token_record(str(id_of(other))), describe(text, owner="ann", scopes=["admin"]).to_json())
    # I expect neither to be let in by it, nor by a record that is damaged.
    assert Tokens(store).find(other) is None and Tokens(store).find(text) is None
    store.put(token_record(str(id_of(text))), b"{}")
    assert Tokens(store).find(text) is None
    assert list(Tokens(store).all()) == []


@pytest.mark.parametrize(("text", "rate"), [("10/s", 10), ("90/m", 1.5), ("36/h", 0.01), ("0.5/s", 0.5)])
def test_a_rate_is_requests_in_a_time(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["10", "0/s", "-1/s", "nan/s", "1e9/s", "10/d", "", "inf/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_rate(text)


def test_a_life_is_a_time() -> None:
    assert parse_life("90d") == 90 * 86_400
    for wrong in ("0d", "d", "1y", "-1h", "1.5h", "999999d"):
        with pytest.raises(InvalidInput):
            parse_life(wrong)


@pytest.mark.parametrize("owner", ["", "a\nb", "ä", "x" * 129])
def test_an_owner_is_a_printable_name(owner: str) -> None:
    with pytest.raises(InvalidInput):
        describe(new_token(), owner=owner, scopes=["jobs"])
    with pytest.raises(InvalidInput):
        describe(new_token(), owner="ann", scopes=["root"])
    with pytest.raises(InvalidInput):
        describe(new_token(), owner="ann", scopes=[])
