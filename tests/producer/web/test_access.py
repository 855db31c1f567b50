"""Who is let in, for how long, and how often."""

from __future__ import annotations

import asyncio
import itertools

import httpx2
import pytest

from contract.web.tokens import Token, Tokens, describe, id_of, new_token
from producer.web.access import KNOWN_SECONDS, Access, Limiter, still_valid
from producer.web.problems import Problem
from tests.serving import Api, codes


class Counted(Tokens):
    """Tokens in memory that count how often they are read."""

    def __init__(self) -> None:
        self.reads = 0
        self.there: dict[str, Token] = {}

    def add(self, *scopes: str, rate: float = 0.0) -> str:
        text = new_token()
        self.there[text] = describe(text, owner="ann", scopes=scopes or ("jobs",), rate=rate)
        return text

    def find(self, text: str, now: float | None = None) -> Token | None:
        self.reads += 1
        return self.there.get(text)

    def again(self, token: Token, now: float | None = None) -> Token | None:
        self.reads += 1
        return token if token in self.there.values() else None


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_record_is_read_once_in_a_while_and_a_revocation_is_felt() -> None:
    # Given a token,
    tokens, clock = Counted(), Clock()
    access, text = Access(tokens, clock), tokens.add()
    for _ in range(10):
        assert access.check([f"Bearer {text}"]).owner == "ann"
    assert tokens.reads == 1
    # if it is revoked, I expect it to be refused once its record is old.
    tokens.there.clear()
    clock.now += KNOWN_SECONDS + 0.1
    with pytest.raises(Problem) as refused:
        access.check([f"Bearer {text}"])
    assert refused.value.status_code == 401


def test_a_long_answer_reads_a_record_once_in_a_while_and_takes_a_thread_for_that_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens, clock = Counted(), Clock()
    access = Access(tokens, clock)
    token = access.check([f"Bearer {tokens.add()}"])
    with monkeypatch.context() as patched:
        patched.setattr("anyio.to_thread.run_sync", lambda *_: pytest.fail("a thread was taken"))
        for _ in range(10):
            asyncio.run(still_valid(access, token))
    clock.now += KNOWN_SECONDS + 0.1
    asyncio.run(still_valid(access, token))
    asyncio.run(still_valid(access, token))
    assert tokens.reads == 2
    # If it is revoked, I expect that to be felt once the record is old.
    tokens.there.clear()
    clock.now += KNOWN_SECONDS + 0.1
    with pytest.raises(Problem) as refused:
        asyncio.run(still_valid(access, token))
    assert refused.value.status_code == 401


def test_guesses_cost_the_store_little_and_shut_no_known_token_out() -> None:
    tokens, clock = Counted(), Clock()
    access, text = Access(tokens, clock), tokens.add()
    access.check([f"Bearer {text}"])
    # If strangers guess, also when the record of a known token is to be read again, I expect that token to be let in.
    for _ in range(3):
        statuses = set()
        for _ in range(500):
            with pytest.raises(Problem) as refused:
                access.check([f"Bearer {new_token()}"])
            statuses.add(refused.value.status_code)
        assert statuses == {401, 429} and tokens.reads < 150
        assert access.check([f"Bearer {text}"]).owner == "ann"
        clock.now += KNOWN_SECONDS + 0.1


@pytest.mark.parametrize(
    "headers", [[], ["Bearer x"], ["Basic YTpi"], ["Bearer"], [""], ["Bearer imk_", "Bearer imk_"], ["imk_0"]]
)
def test_what_is_no_token_is_never_looked_up(headers: list[str]) -> None:
    tokens = Counted()
    with pytest.raises(Problem) as refused:
        Access(tokens).check(headers)
    assert refused.value.status_code == 401 and tokens.reads == 0


def test_a_bucket_admits_its_rate_and_says_how_long_to_wait() -> None:
    clock = Clock()
    limiter = Limiter(clock)
    # A second's worth at once, then one each tenth of a second.
    assert [limiter.take("a", 10.0) for _ in range(10)] == [0.0] * 10
    assert limiter.take("a", 10.0) == pytest.approx(0.1)
    assert limiter.take("b", 10.0) == 0.0, "another's bucket"
    clock.now += 0.1
    assert limiter.take("a", 10.0) == 0.0
    assert limiter.take("a", 10.0) > 0
    # In the long run, whatever was refused, no more than the rate.
    admitted = 0
    for _ in range(1000):
        clock.now += 0.01
        admitted += limiter.take("a", 10.0) == 0.0
    assert 99 <= admitted <= 101
    # A slow rate still admits one.
    assert limiter.take("c", 0.01) == 0.0 and limiter.take("c", 0.01) == pytest.approx(100)


def test_a_server_refuses_who_has_no_token_and_says_who_has(api: Api) -> None:
    with api.client("jobs", "infer", owner="bob") as client:
        found = client.get("/v1/token").json()
        assert (found["owner"], found["scopes"]) == ("bob", ["infer", "jobs"]) and "sha256" not in found
    for headers in ({}, {"Authorization": "Bearer imk_x"}, {"Authorization": f"Bearer {new_token()}"}):
        answer = httpx2.get(f"{api.url}/v1/token", headers=headers)
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.json()["code"] == "token_refused"
    assert httpx2.get(f"{api.url}/v1/token?token={api.token()}").status_code == 401


def test_a_token_that_asks_too_often_is_told_when_to_come_back(api: Api) -> None:
    text = api.token(rate=2.0)
    headers = {"Authorization": f"Bearer {text}"}
    with httpx2.Client(base_url=api.url, headers=headers) as client:
        answers = [client.get("/v1/token") for _ in range(30)]
    assert codes(answers)[:2] == [200, 200] and 429 in codes(answers)
    late = next(answer for answer in answers if answer.status_code == 429)
    assert int(late.headers["Retry-After"]) >= 1 and late.json()["code"] == "too_many_requests"


def test_a_revoked_token_is_refused_within_seconds(api: Api) -> None:
    text = api.token()
    headers = {"Authorization": f"Bearer {text}"}
    assert httpx2.get(f"{api.url}/v1/token", headers=headers).status_code == 200
    Tokens(api.store).revoke(str(id_of(text)))
    from tests.waiting import wait_until

    wait_until(
        lambda: httpx2.get(f"{api.url}/v1/token", headers=headers).status_code == 401, KNOWN_SECONDS + 10, "a refusal"
    )


def test_ids_are_unique() -> None:
    assert len({new_token() for _ in itertools.repeat(None, 100)}) == 100
