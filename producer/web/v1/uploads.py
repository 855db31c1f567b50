"""Uploads over HTTP: addresses in the bucket to which a client puts files itself, and which jobs then name."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Request
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from contract.backend import uploads
from contract.errors import UnknownUpload
from contract.keys.uploads import upload_prefix
from contract.records import Record
from contract.times import iso
from producer.web.owned import Jobs

if TYPE_CHECKING:
    from producer.web.app import Api

_HOURS = 1.0
UPLOAD = r"^[0-9a-f]{16}$"


def _plain(name: str) -> str:
    parts = name.split("/")
    if "" in parts or {".", ".."} & set(parts):
        raise ValueError("a name is a path without //, ./ and ../, relative to the upload")
    if len(name.encode()) > 800:
        raise ValueError("a name has at most 800 bytes")
    return name


FileName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f\\]+$", max_length=800), AfterValidator(_plain)]
Id = Annotated[str, Path(pattern=UPLOAD, description="Id of an upload.")]


class UploadBody(Record):
    """The files to be uploaded."""

    files: tuple[FileName, ...] = Field(
        min_length=1, max_length=1000, description="Their names, such as `cats/1.jpg`; class folders stay in them."
    )
    upload: Annotated[str, StringConstraints(pattern=UPLOAD)] | None = Field(
        None, description="An earlier upload that these files belong to."
    )


class UploadFile(BaseModel):
    """Where one file goes."""

    name: str
    url: str = Field(description="PUT the bytes there, without a token.")


class Upload(BaseModel):
    """An upload that has begun."""

    id: str
    source: str = Field(description="What a job names as its source.")
    files: list[UploadFile]
    expires_at: str = Field(description="Until when the addresses are good, UTC, ISO 8601.")


def router() -> APIRouter:
    """Return the routes of uploads."""
    routes = APIRouter(prefix="/v1/uploads", tags=["uploads"])

    @routes.post("", status_code=201)
    def create_upload(request: Request, owned: Jobs, body: UploadBody) -> Upload:
        """Return an address for each file, to which the client puts it, straight into the bucket."""
        api: Api = request.app
        id = body.upload or secrets.token_hex(8)
        uploads.begin(owned.client.backend.store, owned.token.owner, id)
        prefix = upload_prefix(owned.token.owner, id)
        files = [UploadFile(name=name, url=api.uploads.presign_put(prefix + name, hours=_HOURS)) for name in body.files]
        expires = iso(time.time() + _HOURS * 3600) or ""
        return Upload(id=id, source=f"upload:{id}", files=files, expires_at=expires)

    @routes.delete("/{id}", status_code=204)
    def remove_upload(owned: Jobs, id: Id) -> None:
        """Delete the files of an upload; jobs that read them have error rows from then on."""
        store = owned.client.backend.store
        found = [entry.key for entry in store.list(upload_prefix(owned.token.owner, id))]
        if not found:
            raise UnknownUpload(f"No file was uploaded as {id!r}; POST /v1/uploads says where to put them.")
        store.delete_all(found)
        uploads.forget(store, owned.token.owner, id)

    return routes
