"""Pages of a list by name: `limit` and `cursor` in the request, and in `Link` (RFC 8288) the address of the next page.

Without `limit` a list comes whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response

from contract.errors import InvalidInput
from producer.web.v1.jobs import cursor_of, place_of

T = TypeVar("T")

MOST = 200
"""Entries on a page."""
_AT_ONCE = 32
"""Names that are looked at together, at least, since most may be other owners'."""
LINKED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Link": {
                "description": 'The address of the next page, with `rel="next"`; missing on the last.',
                "schema": {"type": "string"},
            }
        }
    }
}
"""What the OpenAPI document says of an answer with pages."""


@dataclass(frozen=True)
class Paging:
    """What a request asks for: a page, or all of them."""

    request: Request
    response: Response
    limit: int | None
    cursor: str

    def entries(
        self,
        names: Sequence[str],
        show: Callable[[list[str]], Sequence[T]],
        name_of: Callable[[T], str],
        sees: Callable[[T], bool] = lambda one: True,
        order: Callable[[str], Any] = str,
    ) -> list[T]:
        """Return the entries of the page which the client sees, and set `Link` if there may be more.

        `names` are all there are, sorted by `order`; `show` returns the entries of some, without those that are gone.
        Raises InvalidInput for a cursor that no page gave.
        """
        rest = list(names)
        if self.cursor:
            after = self._after(order)
            rest = [name for name in rest if order(name) > after]
        if self.limit is None:
            return [one for one in show(rest) if sees(one)]
        found: list[T] = []
        while rest and len(found) < self.limit:
            size = max(self.limit - len(found), _AT_ONCE)
            some, rest = rest[:size], rest[size:]
            found += [one for one in show(some) if sees(one)]
        if rest or len(found) > self.limit:
            found = found[: self.limit]
            self._link(name_of(found[-1]))
        return found

    def _after(self, order: Callable[[str], Any]) -> Any:
        try:
            return order(place_of(self.cursor))
        except ValueError:
            raise InvalidInput("This cursor is none that a page gave; leave it out for the first page.") from None

    def _link(self, last: str) -> None:
        query = urlencode({"limit": self.limit, "cursor": cursor_of(last)})
        self.response.headers["Link"] = f'<{self.request.url.path}?{query}>; rel="next"'


# A coroutine, because FastAPI runs other functions in a thread.
async def _paging(
    request: Request,
    response: Response,
    limit: Annotated[
        int | None, Query(ge=1, le=MOST, description="Entries on a page, at most; left out: the whole list.")
    ] = None,
    cursor: Annotated[str, Query(max_length=400, description="As the `Link` of the page before has it.")] = "",
) -> Paging:
    return Paging(request, response, limit, cursor)


Page: TypeAlias = Annotated[Paging, Depends(_paging)]
