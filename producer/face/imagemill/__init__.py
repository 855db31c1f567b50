"""Label, generate and train on images in bulk: the public Python API.

from imagemill import Client

job = Client().classify("photos", model="efficientnet-lite0")

The package is a face: it offers what `producer` offers, under the name that the project is installed by.
"""

from producer import Client

__all__ = ["Client"]
