"""A small generator with random weights, as a record and as files: it makes gray images of 14 × 14 of three classes."""

from __future__ import annotations

from contract.backend.objects import ObjectStore
from contract.models.registry import Model, Preprocess, Registry, Scalar, make_file

NAME, REF = "painter", "painter@1"
LABELS = ("owl", "hen", "wren")
SIZE = 14
CONFIG: dict[str, Scalar] = {"classes": len(LABELS), "channels": 1, "size": SIZE, "latent": 8}
_FILE = "weights.safetensors"


def record(weights: bytes = b"weights") -> Model:
    return Model(
        name=NAME,
        version=1,
        family="gan",
        config=CONFIG,
        task="generate",
        labels=LABELS,
        preprocess=Preprocess(size=SIZE, mean=127.5, std=127.5, channels=1),
        weights=make_file(_FILE, weights),
    )


def publish(store: ObjectStore, weights: bytes = b"weights") -> Model:
    """Put the record and its file into a bucket; return the record."""
    model = record(weights)
    Registry(store).publish(model, {_FILE: weights})
    return model


def random_weights(seed: int = 0) -> bytes:
    """Return weights of the zoo's architecture; imports torch."""
    import torch
    from safetensors.torch import save

    from worker import zoo

    torch.manual_seed(seed)
    return save(dict(zoo.create("gan", **CONFIG).state_dict()))
