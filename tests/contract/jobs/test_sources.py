"""The registry of source kinds: complete, and every path in it leads somewhere."""

from __future__ import annotations

from typing import get_args

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, InvalidSource
from contract.import_paths import load
from contract.jobs.sources import SOURCES, SourceKind, SourceName, source_kind
from contract.jobs.specs import Source
from worker.sources.lister import Lister, lister

EVERY = pytest.mark.parametrize("kind", SOURCES.values(), ids=SOURCES)


def test_every_name_has_a_record() -> None:
    assert set(SOURCES) == set(get_args(SourceName))
    for name, kind in SOURCES.items():
        assert source_kind(name) is kind


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(InvalidInput, match=r"There is no source kind 'ftp' in this version .*prefix"):
        source_kind("ftp")


@EVERY
def test_every_path_leads_somewhere(kind: SourceKind) -> None:
    for path in (kind.resolve, kind.arrays):
        assert path is None or callable(load(path))


@EVERY
def test_a_source_is_listed_by_its_class_or_refused(kind: SourceKind, store: ObjectStore) -> None:
    source = Source(kind=kind.name, uri="s3://photos/", label="what I typed")
    if kind.lister is None:
        with pytest.raises(InvalidSource, match="what I typed"):
            lister(store, source)
    else:
        made = lister(store, source)
        assert isinstance(made, Lister) and type(made) is load(kind.lister)
