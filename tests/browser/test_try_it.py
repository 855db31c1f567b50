"""An image that is dropped, chosen or pasted on a page, and the answer of a served model."""

from __future__ import annotations

import base64
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import MODEL
from tests.browser.person import Person

_TRANSFER = """
([data, name]) => {
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  return transfer;
}
"""


def test_an_image_is_answered_however_it_comes(ann: Person, photos: dict[str, Path]) -> None:
    ann.go("t", "try-it")
    answer = ann.page.locator("#answer")

    def carried(name: str) -> object:
        return ann.page.evaluate_handle(
            _TRANSFER, [base64.b64encode(photos[name].read_bytes()).decode(), f"{name}.jpg"]
        )

    # If I drop a photo on the page, I expect its label, how long it took, and the photo.
    ann.page.dispatch_event("main", "drop", {"dataTransfer": carried("koala")})
    expect(answer.locator("tbody tr").first).to_contain_text("koala")
    expect(answer).to_contain_text(f"{MODEL}@1")
    expect(answer).to_contain_text(" ms")
    expect(ann.page.get_by_alt_text("The image that is asked about")).to_be_visible()
    # If I choose one with a key, I expect its own,
    with ann.page.expect_file_chooser() as chooser:
        ann.press("o")
    chooser.value.set_files(photos["espresso"])
    expect(answer.locator("tbody tr").first).to_contain_text("espresso")
    # and a sentence for what is no image.
    with ann.page.expect_file_chooser() as chooser:
        ann.press("o")
    chooser.value.set_files({"name": "n.jpg", "mimeType": "image/jpeg", "buffer": b"no image"})
    expect(answer).to_contain_text("not_an_image")
    # If I paste one, I expect it to be asked about as well.
    ann.page.evaluate(
        "transfer => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true }))",
        carried("goldfish"),
    )
    expect(answer.locator("tbody tr").first).to_contain_text("goldfish")
