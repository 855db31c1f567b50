"""Make the pictures of the console in docs/: `python -m tests.browser.screenshots FOLDER`, or `make screenshots`.

A stack of its own labels the photos that ship, so that whoever runs it gets the same pages, but for times and rates.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.chromium import find, launched
from tests.mill import Mill
from tests.serving import serving
from tests.waiting import wait_until

PHOTOS = Path(__file__).parents[2] / "deploy" / "photos"
MODEL = "efficientnet-lite0"
OWNER = "ann"
WIDTH, HEIGHT = 1280, 800
MOST_BYTES = 150_000
"""Size of a picture; all of them together are read over slow lines too."""
_PATIENCE = 120_000.0
_WHOLE = """
() => [...document.images].every((image) => image.complete || image.getBoundingClientRect().top > innerHeight)
"""


@dataclass(frozen=True)
class Shot:
    """A picture to make: its name, the page below `/console/`, and what is done before it is taken."""

    name: str
    path: str
    ready: Callable[[Page], object] = lambda page: None
    scheme: Literal["light", "dark"] = "light"
    height: int = HEIGHT


def fill(mill: Mill) -> None:
    """Have work done for the pages to show; the last job is one that runs for a while."""
    client = mill.client.acting_as(OWNER)
    store = mill.bucket("pictures")
    photos = {path.stem: path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))}
    for name, data in photos.items():
        store.put(f"zoo/{name}.jpg", data)
    store.put("zoo/half-an-owl.jpg", photos["tabby-cat"][:9000])
    store.put("zoo/notes.jpg", b"These are my notes, and no image.")
    mill.client.serve(MODEL)
    zoo = "s3://pictures/zoo/"
    client.add_schedule("nightly", "classify", {"source": zoo, "model": MODEL, "max_errors": "10%"}, cron="0 2 * * *")
    client.add_watch("camera-1", "s3://pictures/camera-1/", model=MODEL)
    client.add_watch("camera-2", "s3://pictures/camera-2/", model=MODEL)
    client.pause_watch("camera-2")
    for job, most in (("animals", "10%"), ("animals-strict", "1%")):
        client.classify(zoo, model=MODEL, job=job, max_errors=most)
        mill.finished(job)
    mill.finished(client.run_schedule("nightly").id)
    mill.finished(client.generate("fashion-gan", count=64, job="garments").id)
    for number in range(3):
        for name, data in list(photos.items())[:12]:
            store.put(f"camera-1/{number}/{name}.jpg", data)
    wait_until(lambda: client.watch("camera-1").uncommitted == 0 and client.watch("camera-1").planned, 120, "the watch")
    wait_until(lambda: mill.client.served()[0].ready, 120, "the served model")
    # As many copies as keep one worker busy while all pictures are taken.
    for number in range(40):
        for name, data in photos.items():
            store.put(f"archive/{number:02}/{name}.jpg", data)


def small(png: bytes) -> bytes:
    """Return a picture in 256 colours."""
    with Image.open(io.BytesIO(png)) as image:
        file = io.BytesIO()
        image.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT).save(file, "PNG", optimize=True)
    return file.getvalue()


def reviewed(page: Page) -> None:
    """Answer a few images, so that the page has something to count."""
    image = page.locator("#card input[name=image]").first
    for key in ("Enter", "Enter", "2", "Enter"):
        before = image.input_value()
        page.keyboard.press(key)
        expect(image).not_to_have_value(before)


def tried(page: Page) -> None:
    """Ask about a photo, twice: the first answer of a model is slower."""
    for name in ("red-panda", "giant-panda"):
        page.get_by_label("Drop an image").set_input_files(PHOTOS / f"{name}.jpg")
        expect(page.locator("#answer")).to_contain_text(name.replace("-", " "), ignore_case=True)


def tiled(page: Page) -> None:
    expect(page.locator(".tiles img").first).to_be_visible()


SHOTS = (
    Shot("jobs", "jobs"),
    Shot("job", "jobs/animals", tiled, height=1000),
    Shot("job-dark", "jobs/animals", tiled, scheme="dark", height=1000),
    Shot("review", "jobs/animals/review", reviewed),
    Shot("try-it", "try-it", tried),
    Shot("models", "models"),
    Shot("watches", "watches"),
)


def take(page: Page, url: str, shot: Shot) -> bytes:
    """Return a picture of a page, once it is whole."""
    page.set_viewport_size({"width": WIDTH, "height": shot.height})
    page.emulate_media(color_scheme=shot.scheme)
    page.goto(f"{url}/console/{shot.path}")
    shot.ready(page)
    page.evaluate("document.activeElement?.blur()")
    page.wait_for_function(_WHOLE)
    return small(page.screenshot())


def main(folder: str) -> int:
    """Write the pictures; return the exit code."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, launched(find()) as browser:
        mill = Mill(Path(data), workers=1)
        with mill.running(), serving(mill.settings, mill.client.backend.store) as api:
            fill(mill)
            page = browser.new_context().new_page()
            page.set_default_timeout(_PATIENCE)
            expect.set_options(timeout=_PATIENCE)
            page.goto(f"{api.url}/console/sign-in#{api.token('admin', owner=OWNER)}")
            page.keyboard.press("Enter")
            page.wait_for_url("**/console/jobs")
            client = mill.client.acting_as(OWNER)
            job = client.classify("s3://pictures/archive/", model=MODEL, job="archive", shard_size=64)
            wait_until(lambda: client.status(job.id).done, 120, "the first rows")
            taken = {shot.name: take(page, api.url, shot) for shot in SHOTS}
    for name, png in taken.items():
        (target / f"{name}.png").write_bytes(png)
        print(f"{name}.png: {len(png):,} bytes{', which is too many' if len(png) > MOST_BYTES else ''}")
    return int(any(len(png) > MOST_BYTES for png in taken.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
