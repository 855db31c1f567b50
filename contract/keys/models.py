"""Object keys of models."""

from __future__ import annotations

from contract.keys.bucket import MODELS


def model_record(name: str, version: int) -> str:
    """Family, labels, preprocessing and hashes of a published model; written after its files."""
    return f"{MODELS}{name}/{version}/model.json"


def model_file(name: str, version: int, file: str) -> str:
    """A file of a model: weights (`weights.safetensors`, or `weights.pt2` if pushed), curves, card, figures. The names
    of those that a training publishes hold a digest of their content."""
    return f"{MODELS}{name}/{version}/{file}"


def model_owner(name: str) -> str:
    """Who may publish the next version of a model; written with its first."""
    return f"{MODELS}{name}/owner.json"


def model_claim(name: str, version: int) -> str:
    """Names who may publish the version; kept after removal, so that no number is reused."""
    return f"{MODELS}{name}/{version}/claim"


def model_draft(name: str, version: int) -> str:
    """Record of a pushed model until a worker has run it."""
    return f"{MODELS}{name}/{version}/draft.json"


def model_verdict(name: str, version: int) -> str:
    """The verdict of that worker."""
    return f"{MODELS}{name}/{version}/check.json"


def model_alias(name: str, alias: str) -> str:
    """The version that an alias stands for."""
    return f"{MODELS}{name}/aliases/{alias}"
