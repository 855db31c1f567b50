"""Encodes pixels as an image file that is marked as synthetic; no other module writes an image. It knows no jobs."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.data.image_index import SYNTHETIC
from contract.records import ImageFormat
from worker.engine.images.png import png, text

_SOFTWARE = "Imagemill"
_TEXT = text({"DigitalSourceType": SYNTHETIC, "Software": _SOFTWARE})
_EXIF_DESCRIPTION, _EXIF_SOFTWARE = 0x010E, 0x0131
_XMP = f"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF \
xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" \
xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType="{SYNTHETIC}"/>\
</rdf:RDF></x:xmpmeta><?xpacket end="r"?>""".encode()
"""The property of IPTC Photo Metadata 2023.1 by which image search engines know an image for generated."""


def encode(pixels: NDArray[np.uint8], image_format: ImageFormat) -> bytes:
    """Encode an image, uint8 [h, w, c], c 1 or 3, with its mark: PNG in a text chunk, JPEG and WebP in XMP and EXIF.

    PNG is written by `worker.engine.images.png`, because Pillow's encoder costs more time than part of the network that
    made the image. WebP is lossless at method 0; JPEG has quality 90.
    """
    if image_format == "png":
        return png(pixels, _TEXT)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    target = io.BytesIO()
    exif = Image.Exif()
    exif[_EXIF_DESCRIPTION], exif[_EXIF_SOFTWARE] = f"DigitalSourceType: {SYNTHETIC}", _SOFTWARE
    if image_format == "webp":
        image.save(target, "WEBP", lossless=True, method=0, exif=exif, xmp=_XMP)
    else:
        image.save(target, "JPEG", quality=90, exif=exif, xmp=_XMP)
    return target.getvalue()
