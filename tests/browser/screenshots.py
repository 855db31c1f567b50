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
_MARGIN = 24
_PATIENCE = 120_000.0
_WHOLE = """
() => [...document.images].every(
  (image) => image.naturalWidth > 0 || image.hidden || image.getBoundingClientRect().top > innerHeight,
)
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
    store.put("zoo/half-a-cat.jpg", photos["tabby-cat"][:9000])
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
    made = client.synthesize("fashion-gan", gate="fashion-cnn", per_class=12, extend="garments", job="wardrobe")
    mill.finished(made.id)
    for number in range(3):
        for name, data in list(photos.items())[:12]:
            store.put(f"camera-1/{number}/{name}.jpg", data)
    wait_until(lambda: client.watch("camera-1").uncommitted == 0 and client.watch("camera-1").planned, 120, "the watch")
    wait_until(lambda: mill.client.served()[0].ready, 120, "the served model")
    # As many copies as keep one worker busy while all pictures are taken.
    for number in range(40):
        for name, data in photos.items():
            store.put(f"archive/{number:02}/{name}.jpg", data)


def go_on_for_a_while(mill: Mill) -> None:
    """Start a long job, and wait until a part of it is done."""
    client = mill.client.acting_as(OWNER)
    job = client.classify("s3://pictures/archive/", model=MODEL, job="archive", shard_size=64).id
    wait_until(lambda: (client.status(job).done or 0) > 400, 240, "a part of the long job")


def small(png: bytes) -> bytes:
    """Return a picture in as many colours, up to 256, as keep it below `MOST_BYTES`."""
    data = png
    with Image.open(io.BytesIO(png)) as image:
        for colours in (256, 192, 128, 96, 64):
            file = io.BytesIO()
            image.convert("RGB").quantize(colours, method=Image.Quantize.MEDIANCUT).save(file, "PNG", optimize=True)
            data = file.getvalue()
            if len(data) <= MOST_BYTES:
                break
    return data


def reviewed(page: Page) -> None:
    """Answer a few images, so that the page has something to count."""
    image = page.locator("#card input[name=image]").first
    for key in ("Enter", "Enter", "2", "Enter"):
        before = image.input_value()
        page.keyboard.press(key)
        expect(image).not_to_have_value(before)


def tried(page: Page) -> None:
    """Ask about a photo, twice: the first answer of a model is slower."""
    for name in ("espresso", "koala"):
        page.get_by_label("Drop an image").set_input_files(PHOTOS / f"{name}.jpg")
        expect(page.locator("#answer")).to_contain_text(name)


def tiled(page: Page) -> None:
    expect(page.locator(".tiles img").first).to_be_visible()


def scrolled(page: Page) -> None:
    tiled(page)
    page.get_by_role("heading", name="Failures").evaluate("heading => scrollTo(0, heading.offsetTop - 16)")


def stricter(page: Page) -> None:
    """Move the slider of the score up, so that some images would go."""
    slider = page.get_by_role("slider", name="Score of the class filter")
    slider.focus()
    for _ in range(3):
        slider.press("ArrowRight")
    expect(page.locator("#kept")).to_contain_text("Would go")


SHOTS = (
    Shot("job", "jobs/animals", tiled),
    Shot("job-dark", "jobs/animals", scrolled, scheme="dark"),
    Shot("review", "jobs/animals/review", reviewed),
    Shot("try-it", "try-it", tried, height=1000),
    Shot("models", "models"),
    Shot("model", "models/fashion-gan@1", height=1060),
    Shot("watches", "watches"),
    Shot("dataset", "jobs/wardrobe/images", stricter, height=1100),
    # While the long job runs.
    Shot("jobs", "jobs"),
)


def take(page: Page, url: str, shot: Shot) -> bytes:
    """Return a picture of a page, once it is whole."""
    page.set_viewport_size({"width": WIDTH, "height": shot.height})
    page.emulate_media(color_scheme=shot.scheme)
    page.goto(f"{url}/console/{shot.path}")
    shot.ready(page)
    page.evaluate("document.activeElement?.blur()")
    page.wait_for_function(_WHOLE)
    bottom = page.evaluate("document.querySelector('main').lastElementChild.getBoundingClientRect().bottom")
    height = min(shot.height, round(bottom) + _MARGIN)
    return small(page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height}))


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
            sizes = []
            for shot in SHOTS:
                if shot.name == "jobs":
                    go_on_for_a_while(mill)
                png = take(page, api.url, shot)
                (target / f"{shot.name}.png").write_bytes(png)
                sizes.append(len(png))
                print(f"{shot.name}.png: {len(png):,} bytes{', which is too many' if len(png) > MOST_BYTES else ''}")
    return int(max(sizes) > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
