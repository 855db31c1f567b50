"""Brings local files to where the HTTP API reads them, through addresses that it signs: no keys of the bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contract.data.items import is_image_name
from contract.errors import InvalidSource
from producer.http_api import HttpApi
from producer.sources.folders import walk
from producer.sources.pack import Progress

_REMOTE = ("s3://", "job:", "review:", "watch:", "dataset:", "upload:")
_FILES = (".tar", ".jsonl", ".csv", ".parquet", "-ubyte", "-ubyte.gz")
_AT_ONCE = 200
"""Files of which addresses are asked for together."""
_THREADS = 8


def bring(api: HttpApi, source: str, job: str | None, progress: Callable[[Progress], None] | None) -> str:
    """Return a source that the API takes; a local one is uploaded, and the same one for the same job only once.

    Raises InvalidSource for what is not there or cannot be read, and what the API raises.
    """
    if source.startswith(_REMOTE):
        return source
    path = Path(source).expanduser()
    if path.is_dir():
        found = {entry.key: Path(entry.path) for entry in walk(path)}
        files = {key: file for key, file in found.items() if is_image_name(key) or key.lower().endswith(_FILES)}
    else:
        files = {path.name: path} if path.is_file() else {}
    if not files:
        raise InvalidSource(f"There are no images at {source!r} here; name a folder, a manifest, a .tar, or s3://….")
    # The same call again goes on with the same upload.
    id = hashlib.sha256(f"{job} {path.absolute()}".encode()).hexdigest()[:16] if job else None
    names = sorted(files)
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(names), _AT_ONCE):
            body = {"files": names[start : start + _AT_ONCE], "upload": id}
            upload = api.json("POST", "/v1/uploads", json=body)
            id = upload["id"]
            places = [(one["url"], files[one["name"]]) for one in upload["files"]]
            for _ in pool.map(lambda place: _upload(api, *place), places):
                pass
            if progress is not None:
                done = min(start + _AT_ONCE, len(names))
                progress(Progress(done, done, len(names), "files"))
    return f"upload:{id}"


def _upload(api: HttpApi, url: str, file: Path) -> None:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidSource(
            f"{file} cannot be read ({error.strerror or error}); make it readable, or leave it out, and try again."
        ) from error
    api.upload(url, file.name, data)
