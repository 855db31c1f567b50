"""Who is let into the console, and that no other site can act for them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx2
import pytest

from producer.web.console import door, rendering
from producer.web.problems import Problem
from tests.producer.web.console.conftest import Browse
from tests.serving import Api
from tests.waiting import wait_until

STATIC = Path(rendering.__file__).parent / "static"
HTMX = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"
"""SHA-256 of `dist/htmx.min.js` in the npm package htmx.org 2.0.11."""


def test_without_a_token_every_page_leads_to_the_sign_in_and_back(api: Api) -> None:
    with httpx2.Client(base_url=api.url) as client:
        assert client.get("/").headers["Location"] == "/console"
        answer = client.get("/console/jobs/a?b=c")
        assert (answer.status_code, answer.headers["Location"]) == (
            303,
            "/console/sign-in?next=/console/jobs/a%3Fb%3Dc",
        )
        assert 'value="/console/jobs/a?b=c"' in client.get(answer.headers["Location"]).text
        # A part of a page would land in the middle of it.
        part = client.get("/console/parts/running", headers={"HX-Request": "true"})
        assert (part.status_code, part.headers["HX-Redirect"]) == (401, "/console/sign-in")


def test_signing_in_keeps_the_token_where_no_script_and_no_other_path_sees_it(api: Api) -> None:
    text = api.token("jobs")
    with httpx2.Client(base_url=api.url, headers={"Origin": api.url}) as client:
        answer = client.post("/console/sign-in", data={"token": f" {text}\n", "next": "/console/jobs/a"})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/console/jobs/a")
        kept = answer.headers["Set-Cookie"].lower()
        assert "httponly" in kept and "samesite=strict" in kept and "path=/console" in kept and "secure" not in kept
        page = client.get("/console/jobs")
        assert page.status_code == 200 and text not in page.text
        # The API takes no cookie, and signing out forgets it.
        assert client.get("/v1/token", headers={"Cookie": f"imagemill={text}"}).status_code == 401
        client.post("/console/sign-out")
        assert client.get("/console/jobs").status_code == 303


def test_behind_tls_the_cookie_is_for_tls_alone(api: Api) -> None:
    host = httpx2.URL(api.url).netloc.decode()
    answer = httpx2.post(
        f"{api.url}/console/sign-in", data={"token": api.token()}, headers={"Origin": f"https://{host}"}
    )
    kept = answer.headers["Set-Cookie"]
    assert kept.startswith("__Host-imagemill=") and "; Secure" in kept and "Path=/;" in kept
    # Given a page that is asked for over TLS,
    sent = {"Origin": f"https://{host}"}
    with httpx2.Client(base_url=api.url, headers=sent, cookies={"imagemill": api.token()}) as planted:
        assert planted.get("/console/jobs").status_code == 303
    with httpx2.Client(base_url=api.url, headers=sent, cookies={"__Host-imagemill": api.token()}) as signed_in:
        assert signed_in.get("/console/jobs").status_code == 200


def test_a_wrong_token_is_refused_in_a_sentence(api: Api) -> None:
    for given in ("", "x", "imk_x", "imk_" + "0" * 12 + "_" + "0" * 64, '"><script>'):
        answer = httpx2.post(f"{api.url}/console/sign-in", data={"token": given}, headers={"Origin": api.url})
        assert answer.status_code == 401 and "unknown, revoked or expired" in answer.text
        assert "Set-Cookie" not in answer.headers and "<script>" not in answer.text


def test_a_revoked_token_is_signed_out(api: Api, browse: Browse) -> None:
    from contract.web.tokens import Tokens

    client = browse("review")
    assert client.get("/console/jobs").status_code == 200
    (id,) = [token.id for token in Tokens(api.store).all()]
    Tokens(api.store).revoke(id)
    wait_until(lambda: client.get("/console/jobs").status_code == 303, 20, "the token to be out")


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "{own}", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_what_no_page_of_ours_sent_changes_nothing(api: Api, browse: Browse, sent: dict[str, str]) -> None:
    # Given a browser that is signed in, and would send its cookie, whatever `SameSite` says,
    token = browse("jobs").cookies["imagemill"]
    headers = {name: value.replace("{own}", api.url) for name, value in sent.items()}
    for path in ("/console/sign-in", "/console/sign-out", "/console/jobs/x/cancel", "/console/jobs/x/delete"):
        answer = httpx2.post(api.url + path, headers={"Cookie": f"imagemill={token}", **headers})
        assert answer.status_code == 403 and "Another site" in answer.text, (path, answer.text)


def test_either_header_is_proof_enough(api: Api, browse: Browse) -> None:
    token = browse("jobs").cookies["imagemill"]
    for headers in ({"Origin": api.url}, {"Sec-Fetch-Site": "same-origin"}):
        answer = httpx2.post(f"{api.url}/console/jobs/x/cancel", headers={"Cookie": f"imagemill={token}", **headers})
        assert answer.status_code == 404, answer.text


def test_a_cookie_that_comes_twice_is_no_cookie() -> None:
    good = b"imk_" + b"0" * 12 + b"_" + b"0" * 64
    assert door.token_of({b"cookie": [b"a=b; imagemill=" + good]}, "http") == good.decode()
    for lines in ([b"imagemill=" + good + b"; imagemill=" + good], [b"imagemill=x"], [b""], []):
        with pytest.raises(Problem) as refused:
            door.token_of({b"cookie": lines}, "http")
        assert refused.value.status_code == 401


@pytest.mark.parametrize(
    ("scheme", "sent", "tls"),
    [
        ("http", {b"host": b"mill.example"}, False),
        ("http", {b"host": b"127.0.0.1:8080", b"sec-fetch-site": b"none", b"origin": b"http://127.0.0.1:8080"}, False),
        ("http", {b"host": b"[::1]:8080", b"sec-fetch-site": b"same-origin"}, False),
        ("http", {b"host": b"mill.localhost", b"sec-fetch-site": b"same-origin"}, False),
        ("http", {b"host": b"localhost.:8080", b"sec-fetch-site": b"same-origin"}, False),
        ("https", {b"host": b"127.0.0.1:8080"}, True),
        ("http", {b"host": b"mill.example", b"sec-fetch-site": b"none"}, True),
        ("http", {b"host": b"mill.example", b"origin": b"https://mill.example"}, True),
    ],
)
def test_over_tls_no_cookie_counts_that_a_sibling_host_can_plant(
    scheme: str, sent: dict[bytes, bytes], tls: bool
) -> None:
    good = "imk_" + "0" * 12 + "_" + "0" * 64
    headers = {name: [value] for name, value in sent.items()}
    # Given the cookie that any host of the same domain can set,
    planted = {**headers, b"cookie": [f"imagemill={good}".encode()]}
    if tls:
        with pytest.raises(Problem):
            door.token_of(planted, scheme)
    else:
        assert door.token_of(planted, scheme) == good
    # I expect the one that only this host can set to be taken everywhere.
    assert door.token_of({**headers, b"cookie": [f"__Host-imagemill={good}".encode()]}, scheme) == good


@pytest.mark.parametrize(
    "text",
    ["", "//evil", "https://evil", "/v1/jobs", "/console", "/console/\\evil", "/console/sign-in?next=x", "/console/\n"],
)
def test_a_sign_in_leads_to_pages_of_the_console_alone(text: str) -> None:
    assert door.page_after(text) == "/console"


def test_a_page_may_load_our_own_files_and_nothing_else(api: Api, browse: Browse) -> None:
    client = browse("jobs")
    for path in ("/console/sign-in", "/console/jobs", "/console/jobs/nothing", "/console/nothing"):
        answer = client.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy, path
        assert answer.headers["X-Frame-Options"] == "DENY" and answer.headers["Cache-Control"] == "no-store"
        assert "<script>" not in answer.text and " style=" not in answer.text and " onclick=" not in answer.text
    for name in ("htmx.min.js", "console.js", "console.css", "icon.svg"):
        assert httpx2.get(f"{api.url}/console/static/{name}").status_code == 200
    for name in ("nothing.js", "..%2frendering.py", "htmx.LICENSE.txt"):
        assert httpx2.get(f"{api.url}/console/static/{name}").status_code == 404


def test_htmx_is_the_file_that_was_published_and_has_its_licence() -> None:
    assert hashlib.sha256((STATIC / "htmx.min.js").read_bytes()).hexdigest() == HTMX
    assert "Zero-Clause BSD" in (STATIC / "htmx.LICENSE.txt").read_text()


def test_a_token_begins_where_it_may_be_used_and_a_refusal_leads_on(browse: Browse) -> None:
    for scope, first in (("admin", "jobs"), ("review", "jobs"), ("infer", "try-it")):
        assert browse(scope).get("/console").headers["Location"] == f"/console/{first}"
    page = browse("infer").get("/console/jobs")
    assert page.status_code == 403 and 'href="/console/try-it"' in page.text and "/console/workers" not in page.text


def test_the_dialog_of_keys_lists_the_pages_that_a_token_opens(browse: Browse) -> None:
    page = browse("review").get("/console/jobs").text.partition("<dialog")[2]
    assert "<kbd>g</kbd> <kbd>e</kbd></dt><dd>Errors</dd>" in page and "Tokens" not in page and "Try it" not in page
    assert "<kbd>k</kbd></dt><dd>Tokens</dd>" in browse("admin").get("/console/jobs").text
    assert "<dialog" not in browse("review").get("/console/sign-in").text
