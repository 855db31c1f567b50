"""Renders pages: templates with everything escaped, and headers that let a page load nothing but our own files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from contract.errors import IMAGE_ERRORS, REMEDIES
from contract.jobs.status import STATES
from contract.printable import printable
from contract.records import Priority
from contract.web.tokens import Scope, Token
from producer.web.problems import Problem

_HERE = Path(__file__).parent
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGES: tuple[tuple[str, str, Scope], ...] = (
    ("Jobs", "j", "review"),
    ("Errors", "e", "review"),
    ("Watches", "w", "review"),
    ("Schedules", "s", "review"),
    ("Webhooks", "h", "review"),
    ("Models", "m", "review"),
    ("Datasets", "d", "review"),
    ("Try it", "t", "infer"),
    ("Workers", "o", "admin"),
    ("Tokens", "k", "admin"),
)
"""The pages that every page links to: the key that follows `g`, and the scope that a token needs."""
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "Cross-Origin-Opener-Policy": "same-origin",
    # With `no-referrer` a browser would send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
}


def page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """Return a page, or a part of one, as HTML; `context` are the names that the template knows."""
    token = request.scope.get("imagemill.token")
    # A part of a page that nobody's script asks for is a page of its own.
    layout = "part.html" if "hx-request" in request.headers else "base.html"
    known = {
        "token": token if isinstance(token, Token) else None,
        "path": request.url.path,
        "layout": layout,
        "queue_is_away": request.app.client.backend.ledger.circuit.is_open,
        **context,
    }
    return HTMLResponse(render(template, **known), status, _HEADERS)


def render(template: str, **context: Any) -> str:
    """Return a template as text."""
    # Lone surrogates, which object keys may hold, have no encoding.
    return _environment().get_template(template).render(**context).encode("utf-8", "backslashreplace").decode()


def refusal(problem: Problem, request_id: str, token: object = None, *, path: str = "", part: bool = False) -> Response:
    """Return a page that says what is wrong at a path, for a person; a part of one if htmx asks.

    Whoever is signed in by a token keeps the links to what it opens, and is led to the list that the path is below.
    """
    known = token if isinstance(token, Token) else None
    template = "problem_part.html" if part else "problem.html"
    above = [
        (name, place_of(name))
        for name, _, scope in PAGES
        if known is not None and known.allows(scope) and path.startswith(f"{place_of(name)}/")
    ]
    context = {"token": known, "path": path, "problem": problem, "above": above, "request_id": request_id}
    text = render(template, **context)
    return HTMLResponse(text, problem.status_code, {**_HEADERS, **(problem.headers or {})})


def no_page() -> Problem:
    """Return what a person is told who followed or typed an address of no page."""
    return Problem(404, "There is no page at this address; the links above lead to those there are.")


def first_of(token: Token) -> str:
    """Return the address of the first page that a token opens."""
    return next(place_of(name) for name, _, scope in PAGES if token.allows(scope))


def place_of(name: str) -> str:
    """Return the address of one of `PAGES`."""
    return f"/console/{name.lower().replace(' ', '-')}"


def static(name: str) -> Response:
    """Return one of our own files, which browsers keep: its address changes with it. Raises Problem 404."""
    if name not in _files():
        raise Problem(404, "There is no such file.")
    kind = _TYPES[Path(name).suffix]
    return Response(_files()[name], media_type=kind, headers={"Cache-Control": "public, max-age=31536000, immutable"})


@cache
def _files() -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in (_HERE / "static").iterdir() if path.suffix in _TYPES}


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ago": ago,
        "moment": moment,
        "wall_clock": wall_clock,
        "number": number,
        "rate": rate,
        "duration": duration,
        "plain": printable,
        "code": code,
        "address": address,
    }
    sentences = {code: error.__doc__ for code, error in IMAGE_ERRORS.items()}
    made.globals |= {
        "file": _address,
        "served_at": lambda: datetime.now(UTC).isoformat(timespec="milliseconds"),
        "PAGES": PAGES,
        "place_of": place_of,
        "STATES": STATES,
        "SENTENCES": sentences,
        "REMEDIES": REMEDIES,
        "PRIORITIES": get_args(Priority),
    }
    return made


def _address(name: str) -> str:
    return f"/console/static/{name}?{hashlib.sha256(_files()[name]).hexdigest()[:12]}"


# Values as people read them


def ago(text: str | None, now: datetime | None = None) -> Markup:
    """Return a time as `3 min ago` or `in 2 h`, with the time itself on hover; a dash for none."""
    if not text:
        return Markup("–")
    then = datetime.fromisoformat(text)
    seconds = ((now or datetime.now(UTC)) - then).total_seconds()
    short = _rough(abs(seconds))
    said = "now" if abs(seconds) < 1 else f"{short} ago" if seconds > 0 else f"in {short}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(text, _exact(then), said)


def moment(text: str | None) -> Markup:
    """Return a time as `ago` does, and beside it the time itself, for whoever cannot hover."""
    if not text:
        return Markup("–")
    return Markup('{} <span class="pale">{}</span>').format(ago(text), _exact(datetime.fromisoformat(text)))


def wall_clock(text: str, timezone: str) -> str:
    """Return a time as a clock in a time zone shows it, such as `Fri 27 Nov, 02:00`."""
    return datetime.fromisoformat(text).astimezone(ZoneInfo(timezone)).strftime("%a %-d %b, %H:%M")


def code(text: str) -> Markup:
    """Return text in which what stands between backticks is code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def address(text: str) -> Markup:
    """Return an address that breaks after its slashes where a line is too short for it."""
    return Markup(re.sub(r"/(?=[^/…])", "/<wbr>", str(escape(text))))


def number(value: float | None) -> str:
    """Return a count with separators; a dash for none."""
    return "–" if value is None else f"{value:,}"


def rate(value: float | None) -> str:
    """Return images per second; a dash for none."""
    return "–" if value is None else f"{value:,.1f}/s" if value < 100 else f"{value:,.0f}/s"


def duration(seconds: float | None) -> str:
    """Return `42 s`, `3 min 5 s` or `2 h 10 min`; a dash for none."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _exact(then: datetime) -> str:
    return then.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _rough(seconds: float) -> str:
    for size, name in ((86_400 * 2, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // (86_400 if name == 'd' else size):.0f} {name}"
    return f"{seconds:.0f} s"
