"""Object keys of datasets."""

from __future__ import annotations

import re

from contract.keys.bucket import DATASETS

_VERSION = re.compile(r"/versions/(\d{6})\.json$")


def dataset_record(name: str) -> str:
    """The record of a dataset: its owner, and when it was created."""
    return f"{DATASETS}{name}/dataset.json"


def parse_dataset(key: str) -> str | None:
    """The dataset whose folder this is, or None."""
    name = key.removeprefix(DATASETS).removesuffix("/")
    return name if key.endswith("/") and name and "/" not in name else None


def dataset_versions(name: str) -> str:
    """Prefix of the versions of a dataset."""
    return f"{DATASETS}{name}/versions/"


def dataset_version(name: str, number: int) -> str:
    """What one job added to a dataset: counts, and the objects that hold the images; written last, if absent."""
    return f"{dataset_versions(name)}{number:06d}.json"


def parse_dataset_version(key: str) -> int | None:
    """The number of the version that an object key names, or None."""
    match = _VERSION.search(key)
    return int(match[1]) if match else None


def dataset_claims(name: str) -> str:
    """Prefix of the claims to versions of a dataset."""
    return f"{DATASETS}{name}/claims/"


def dataset_claim(name: str, number: int) -> str:
    """The job that is making a version of a dataset."""
    return f"{dataset_claims(name)}{number:06d}.json"


def dataset_features(name: str, gate_sha256: str, job: str) -> str:
    """Features of the images that a job added to a dataset, by the gate with these weights: for the duplicate check of
    later versions."""
    return f"{DATASETS}{name}/features/{gate_sha256[:16]}/{job}.safetensors"
