"""A URL that may hold a password, which is shown to nobody who only prints it."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import SecretStr


class SecretUrl(SecretStr):
    """A URL whose `str`, `repr` and JSON leave out user name, password and options."""

    def _display(self) -> str:
        if not self:
            return ""
        hidden = "**********"
        try:
            parts = urlsplit(self.get_secret_value())
            parts.port  # noqa: B018, raises ValueError
        except ValueError:
            return hidden
        # In a URL that was not encoded, a password with `/`, `?` or `#` ends up in other parts.
        odd = parts.fragment or "@" in parts.path + parts.query
        if not parts.scheme or not parts.hostname or odd:
            return hidden
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
