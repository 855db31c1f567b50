"""The pages of the port for machines, by path; other modules of a process add theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TEXT, JSON = "text/plain; charset=utf-8", "application/json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Answer:
    """What a page answers: an HTTP status and a body."""

    status: int
    body: bytes
    type: str = TEXT


def text(status: int, line: str) -> Answer:
    """Return an answer of one or more lines."""
    return Answer(status, f"{line}\n".encode(errors="backslashreplace"))


def as_json(value: Any, status: int = 200) -> Answer:
    """Return an answer in JSON."""
    return Answer(status, json.dumps(value).encode() + b"\n", JSON)


@dataclass(frozen=True)
class Inbox:
    """A path that takes a body of at most `limit` bytes by POST.

    `refuse` is given the header `Authorization` before the body is read, and returns an answer to whoever may not post.
    """

    refuse: Callable[[str], Answer | None]
    take: Callable[[bytes], Answer]
    limit: int


class Routes:
    """A table of pages. Paths are compared as they come: nothing is decoded, and nothing is a file."""

    def __init__(self) -> None:
        self._pages: dict[str, Callable[[], Answer]] = {}
        self._named: dict[str, Callable[[str], Answer]] = {}
        self._inboxes: dict[str, Inbox] = {}
        self.starting = False
        """Whether inboxes may still be added: a sender is asked to come again, and not told that there is none."""

    def add(self, path: str, page: Callable[[], Answer]) -> None:
        """Serve `path`, as `/livez`."""
        self._pages[path] = page

    def add_named(self, prefix: str, page: Callable[[str], Answer]) -> None:
        """Serve `prefix` and one name after it, as `/scale/` and a pool; `page` is given the name."""
        self._named[prefix] = page

    def add_inbox(self, path: str, inbox: Inbox) -> None:
        """Take what is posted to `path`, as `/v1/events`."""
        self._inboxes[path] = inbox

    def inbox(self, target: str) -> Inbox | None:
        """Return what takes a POST to the target of a request, whose query is ignored."""
        return self._inboxes.get(target.partition("?")[0])

    def answer(self, target: str) -> Answer:
        """Return the answer to the target of a request, whose query is ignored."""
        path = target.partition("?")[0]
        if (page := self._pages.get(path)) is not None:
            return page()
        folder, slash, name = path.rpartition("/")
        if (named := self._named.get(folder + slash)) is not None and _NAME.fullmatch(name):
            return named(name)
        return text(404, "There is no such page; see " + ", ".join(self.paths()) + ".")

    def paths(self) -> list[str]:
        """Return what can be asked for."""
        return sorted([*self._pages, *(f"{prefix}NAME" for prefix in self._named)])
