"""Who may see a page of the console: the token in the browser's cookie, and whether one of our own pages asks.

The cookie holds the token itself, for twelve hours, so a server keeps nothing and a revoked token is out within
seconds. Scripts cannot read it, other sites cannot send it, and only paths of the console look at it: the HTTP API
takes tokens from `Authorization` alone, so nothing that a browser sends by itself reaches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

from starlette.responses import RedirectResponse, Response

from contract.web.tokens import id_of
from producer.web.problems import Problem

ROOT = "/console"
SIGN_IN = f"{ROOT}/sign-in"
STATIC = f"{ROOT}/static/"
COOKIE_SECONDS = 12 * 3600
_COOKIE = "imagemill"
_SECURE_COOKIE = "__Host-imagemill"
"""A browser takes a cookie of this name only over TLS and from this very host, so no sibling host can plant one."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

Headers = Mapping[bytes, Sequence[bytes]]


def covers(path: str) -> bool:
    """Return whether a path belongs to the console."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def is_open(path: str) -> bool:
    """Return whether a page of the console is shown to everybody; what it shows is then the same for everybody."""
    return path == SIGN_IN or path.startswith(STATIC)


def token_of(headers: Headers, scheme: str) -> str:
    """Return the token in the cookie of a request; raises Problem 401 without exactly one.

    Over TLS only the `__Host-` cookie counts, since a sibling host can plant the other one.
    """
    pairs = [part.strip().partition(b"=") for line in headers.get(b"cookie", ()) for part in line.split(b";")]
    origin, site = _one(headers, b"origin"), _one(headers, b"sec-fetch-site")
    tls = over_tls(scheme, host=_one(headers, b"host"), origin=origin, site=site)
    for name in (_SECURE_COOKIE,) if tls else (_SECURE_COOKIE, _COOKIE):
        found = [value.decode("latin-1") for given, _, value in pairs if given == name.encode()]
        if len(found) == 1 and id_of(found[0]) is not None:
            return found[0]
    raise Problem(401, "You are not signed in; sign in with a token.")


def over_tls(scheme: str, *, host: str, origin: str, site: str) -> bool:
    """Return whether a browser sent a request over TLS, be it to a proxy in front.

    `host`, `origin` and `site` are the headers `Host`, `Origin` and `Sec-Fetch-Site`, empty where they are missing.
    Except to loopback, browsers send the last one over TLS only.
    """
    if scheme == "https" or origin.startswith("https://"):
        return True
    name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    loopback = name in ("localhost", "::1") or name.endswith(".localhost") or name.startswith("127.")
    return bool(site) and not loopback


def check_origin(method: str, headers: Headers) -> None:
    """Refuse a request that changes something unless a page of this very host sent it; raises Problem 403.

    A browser adds both headers by itself and no page can change them. `Sec-Fetch-Site` comes over TLS and from
    loopback; `Origin` always does.
    """
    if method in _SAFE:
        return
    host = _one(headers, b"host")
    origin, site = _one(headers, b"origin"), _one(headers, b"sec-fetch-site")
    try:
        from_here = not origin or urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:  # such as `http://[`
        from_here = False
    ours = from_here and (not site or site == "same-origin")
    if not ours or not (origin or site):
        raise Problem(403, "Another site sent this request, so nothing was done; go on from a page of the console.")


def keep(response: Response, token: str, *, secure: bool) -> None:
    """Have the browser keep a token; with `secure`, for TLS alone."""
    response.set_cookie(
        _SECURE_COOKIE if secure else _COOKIE,
        token,
        max_age=COOKIE_SECONDS,
        path="/" if secure else ROOT,
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def forget(response: Response) -> None:
    """Have the browser drop the token."""
    response.delete_cookie(_SECURE_COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    response.delete_cookie(_COOKIE, path=ROOT, httponly=True, samesite="strict")


def page_after(text: str) -> str:
    """Return the page of the console that a link to sign in leads back to; for anything else the way to the first."""
    plain = text.isascii() and text.isprintable() and "\\" not in text and len(text) <= 2000
    return text if plain and text.startswith(f"{ROOT}/") and not is_open(text.partition("?")[0]) else ROOT


def to_sign_in(method: str, path: str, query: str, *, part: bool) -> Response:
    """Return what a browser without a token is sent: the page to sign in, which leads back. `part`: htmx asks."""
    if part:  # htmx would put the page into the part of the page that it asked for
        return Response(status_code=401, headers={"HX-Redirect": SIGN_IN})
    back = quote(f"{path}?{query}" if query else path, safe="/")
    return RedirectResponse(f"{SIGN_IN}?next={back}" if method == "GET" else SIGN_IN, 303)


def _one(headers: Headers, name: bytes) -> str:
    """Return the value of a header; raises Problem 400 if it comes twice."""
    values = headers.get(name, ())
    if len(values) > 1:
        raise Problem(400, f"The request has the header {name.decode()} twice.")
    return values[0].decode("latin-1").strip() if values else ""
