"""nvImageCodec decodes plain JPEG files where it is asked for; verdicts are Pillow's, whatever it does."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contract.errors import ImageError, InvalidSettings
from contract.models.registry import Preprocess
from worker.engine.budget import budget
from worker.engine.images import decode, decoders, device_decoder
from worker.engine.images.device_decoder import DeviceDecoder
from worker.engine.images.nvimgcodec import LEVELS, Codec

HOW = Preprocess(size=48, crop=0.875, interpolation="bicubic", mean=127.0, std=128.0)
LIMIT = 10_000_000
FAKES = Path(__file__).parent / "fakes"


def jpeg(size: tuple[int, int] = (125, 93), mode: str = "RGB", orientation: int = 1, **options: Any) -> bytes:
    pixels = np.random.default_rng(size[0]).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    sink = io.BytesIO()
    Image.fromarray(pixels).resize(size).convert(mode).save(sink, "JPEG", quality=90, exif=exif, **options)
    return sink.getvalue()


def png() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (60, 50), "red").save(sink, "PNG")
    return sink.getvalue()


def _real() -> bool:
    try:
        return importlib.util.find_spec("nvidia.nvimgcodec") is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(params=["fake", "real"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceDecoder]:
    """A decoder on this machine's CPU, by a fake library and by the real one where it is installed."""
    readable = [str(FAKES)]
    if request.param == "fake":
        monkeypatch.syspath_prepend(str(FAKES))
    elif not _real():
        pytest.skip("nvImageCodec is not installed; pip install 'nvidia-nvimgcodec-cu12[nvjpeg]'")
    else:
        readable = [entry for entry in sys.path if entry and (Path(entry) / "nvidia").is_dir()]
    made = DeviceDecoder(None, readable=readable)
    yield from _configured(made)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceDecoder]:
    monkeypatch.syspath_prepend(str(FAKES))
    yield from _configured(DeviceDecoder(None, readable=[str(FAKES)]))


def _configured(made: DeviceDecoder) -> Iterator[DeviceDecoder]:
    decoders.configure(children=False, seconds=10, max_pixels=LIMIT, gpu=made)
    yield made
    decoders.configure(children=False, seconds=10, max_pixels=LIMIT)
    assert budget().pixels.held == 0


def told(found: decode.Decoded | Exception) -> str | tuple[int, int]:
    if isinstance(found, decode.Decoded):
        return found.width, found.height
    assert isinstance(found, ImageError), found
    return found.code


def both(files: list[bytes], *, regions: bool = False) -> list[tuple[Any, Any]]:
    """What becomes of each file here, and with Pillow alone."""
    found = dict(decoders.open_each(files, HOW, max_pixels=LIMIT, frames=0, regions=regions))
    assert sorted(found) == list(range(len(files)))
    pairs: list[tuple[Any, Any]] = []
    for place, file in enumerate(files):
        try:
            alone: decode.Decoded | Exception = decode.open_item(file, HOW, max_pixels=LIMIT, frames=0, regions=regions)
        except ImageError as error:
            alone = error
        pairs.append((found[place], alone))
    return pairs


@pytest.mark.parametrize("regions", [False, True])
def test_plain_files_have_the_pixels_of_pillow_up_to_a_few_levels(gpu: DeviceDecoder, regions: bool) -> None:
    # Given photos in every subsampling, gray, and turned in every way,
    files = [jpeg(subsampling=n) for n in range(3)] + [jpeg(mode="L")]
    files += [jpeg((130, 90), orientation=n) for n in range(1, 9)]
    head = {"size": 48, "crop": 0.875, "interpolation": "bicubic", "max_pixels": LIMIT, "regions": regions}
    assert len(list(gpu.each(list(enumerate(files)), head))) == len(files)
    # if they are decoded there, I expect what Pillow makes of them but for rounding.
    for one, alone in both(files, regions=regions):
        assert told(one) == told(alone)
        assert one.pixels.shape == alone.pixels.shape
        assert np.abs(one.pixels.astype(int) - alone.pixels).max() <= LEVELS
        assert (one.region is None) == (alone.region is None) == (not regions)
        if regions:
            assert one.region.orientation == alone.region.orientation
            assert one.region.extent == alone.region.extent
    assert decoders.beside_pillow() == f"nvimgcodec {gpu.version}"


def test_all_else_is_as_pillow_says(gpu: DeviceDecoder) -> None:
    files = [
        *(jpeg()[:-40], jpeg(progressive=True), jpeg(mode="CMYK"), jpeg((900, 700)), jpeg((4000, 2600))),
        *(png(), b"", b"hello", b"\xff\xd8\xff", jpeg() + b"more", jpeg()[:200]),
        *(jpeg(comment="refuse"), jpeg()),
    ]
    for one, alone in both(files):
        assert told(one) == told(alone)


def test_what_it_decodes_is_its_own_and_what_it_refuses_is_pillows(fake: DeviceDecoder) -> None:
    found = [
        int(one.pixels.astype(int).sum() - alone.pixels.sum()) for one, alone in both([jpeg(), jpeg(comment="refuse")])
    ]
    assert found[0] > 0, "the fake adds a level"
    assert found[1] == 0


@pytest.mark.parametrize("comment", ["crash", "fail"])
def test_a_file_that_ends_or_breaks_its_process_harms_none(
    comment: str, fake: DeviceDecoder, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a file at which the library crashes, or after which it always fails,
    files = [jpeg(), jpeg(comment=comment), jpeg()]
    # if it is among others, I expect all of them to be decoded, by Pillow,
    for one, alone in both(files):
        assert (one.pixels == alone.pixels).all()
    # and by a new process afterwards.
    assert "nvImageCodec failed" in caplog.text
    ((one, alone),) = both([jpeg()])
    assert not (one.pixels == alone.pixels).all()
    assert decoders.beside_pillow()
    # After three in a row, Pillow decodes all.
    for _ in range(3):
        both(files[1:2])
    assert fake.given_up
    assert decoders.beside_pillow() == ""
    ((one, alone),) = both([jpeg()])
    assert (one.pixels == alone.pixels).all()
    assert caplog.text.count("all images now") == 1


def test_many_files_take_several_requests(fake: DeviceDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_decoder, "_ROOM", 100_000)
    files = [jpeg((200 + n, 150)) for n in range(40)]
    assert sum(map(len, files)) > 200_000
    for one, alone in both(files, regions=True):
        assert one.region.extent == alone.region.extent
        assert not (one.pixels == alone.pixels).all()


def test_without_the_library_pillow_decodes_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    if _real():
        pytest.skip("nvImageCodec is installed")
    for _ in _configured(DeviceDecoder(None)):
        for _ in range(2):
            ((one, alone),) = both([jpeg()])
            assert (one.pixels == alone.pixels).all()
        assert decoders.beside_pillow() == ""
    assert caplog.text.count("nvImageCodec is not installed") == 1


def test_without_a_gpu_too(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.syspath_prepend(str(FAKES))
    for _ in _configured(DeviceDecoder(0, readable=[str(FAKES)])):
        ((one, alone),) = both([jpeg()])
        assert (one.pixels == alone.pixels).all()
    assert "does not start (Internal error - Could not create decoder. Code: 8)" in caplog.text


def test_it_proves_itself_beside_pillow_first(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("fake", FAKES / "nvidia" / "nvimgcodec" / "__init__.py")
    assert spec is not None and spec.loader is not None
    library = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(library)
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", library)
    assert Codec(None, threads=1).version == "0.9.0-fake"

    # Given colours that are as coarse as they are stored,
    class Coarse(library.Decoder):  # type: ignore[name-defined,misc]
        def __init__(self, **asked: Any) -> None:
            super().__init__(**{**asked, "options": ""})

    monkeypatch.setattr(library, "Decoder", Coarse)
    with pytest.raises(InvalidSettings, match="levels from Pillow's"):
        Codec(None, threads=1)
    # or no decoder of JPEG files at all, I expect a sentence.
    monkeypatch.setattr(library.Decoder, "decode", lambda self, srcs, **_: [None] * len(srcs))
    with pytest.raises(InvalidSettings, match="decodes no JPEG here"):
        Codec(None, threads=1)


@pytest.mark.parametrize(
    ("found", "sizes"),
    [
        ([], []),
        ([None, None], []),
        ([{"width": 60, "height": 50}], [48 * 48]),
        ([{"width": 60, "height": 50}], []),
        ([{"width": 10**6, "height": 10**6}], [48 * 48 * 3]),
        ([{"width": 60, "height": 50, "open": [10**6, 10**6], "orientation": 1}], [48 * 48 * 3]),
        ([{"width": 60, "height": 50, "open": [60, 50], "orientation": 9}], [48 * 48 * 3]),
        ([{"width": "x", "height": 50}], [48 * 48 * 3]),
        ([{"width": float("inf"), "height": 50}], [48 * 48 * 3]),
        ([{}], [48 * 48 * 3]),
        ({"found": 1}, []),
        (7, []),
    ],
)
def test_what_a_process_answers_that_was_taken_over_is_checked(found: object, sizes: list[int]) -> None:
    lying = DeviceDecoder(None, readable=[str(FAKES.parents[3])], module="tests.worker.engine.images.lying_device")
    file = b"\xff\xd8\xff" + json.dumps({"found": found, "sizes": sizes}).encode()
    for _ in _configured(lying):
        ((one, alone),) = both([file], regions=True)
        assert told(one) == told(alone)
        assert lying._failures == 1


def test_sequences_are_pillows(fake: DeviceDecoder) -> None:
    found = dict(decoders.open_each([jpeg()], HOW, max_pixels=LIMIT, frames=4))
    assert isinstance(found[0], decode.Decoded)
    assert decoders.beside_pillow() == "", "it was not even started"


@pytest.fixture(autouse=True)
def _loud(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
