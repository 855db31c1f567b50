"""The generated reference has everything, each with a meaning, and needs neither servers nor luck."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from contract import errors
from contract.data import image_index, label_rows
from contract.instruments import INSTRUMENTS
from contract.jobs import options
from contract.jobs.kinds import KINDS
from contract.jobs.sources import SOURCES
from contract.jobs.status import STATES, State, Status
from contract.keys.jobs import OUTPUTS, JobKeys
from contract.models.families import RECIPES
from contract.settings import Settings
from producer.client import Client
from producer.exports import formats
from producer.jobs.schedules import Run, Scheduled
from tests.docs.pages import DOCS, ROOT, load_generator

GENERATOR = load_generator()


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: make() for name, make in GENERATOR.PAGES.items()}


def rows(page: str) -> dict[str, list[str]]:
    """The rows of all tables of a page by their first cell, without backticks."""
    found: dict[str, list[str]] = {}
    for line in re.findall(r"^\| (.*) \|$", page, re.MULTILINE):
        first, *rest = re.split(r"(?<!\\) \| ", line)
        found[first.replace("`", "").replace("&nbsp;", "")] = rest
    return found


def explained(page: str, names: list[str]) -> None:
    """Each name has a row whose last cell says something."""
    there = rows(page)
    for name in names:
        assert name in there, name
        assert there[name][-1].strip(), f"{name} has no meaning"


def test_two_runs_write_the_same_bytes_without_a_server(tmp_path: Path) -> None:
    """In a process of its own whose environment leads to servers that do not exist."""
    environment = {**os.environ, "IMAGEMILL_REDIS_URL": "redis://127.0.0.1:1/0", "IMAGEMILL_S3_ENDPOINT": "127.0.0.1:1"}
    for name in ("first", "second"):
        command = [sys.executable, str(DOCS / "generate_reference.py"), str(tmp_path / name)]
        subprocess.run(command, env=environment, cwd=ROOT, check=True)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == sorted(GENERATOR.PAGES)
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_every_setting_is_explained_with_its_default(pages: dict[str, str]) -> None:
    explained(pages["settings.md"], [f"IMAGEMILL_{name.upper()}" for name in Settings.model_fields])
    assert rows(pages["settings.md"])["IMAGEMILL_LEASE_SECONDS"][0] == "`30`"


def test_every_metric_is_explained_with_the_role_that_shows_it(pages: dict[str, str]) -> None:
    explained(pages["metrics.md"], [one.name for one in INSTRUMENTS])
    controller, _, rest = pages["metrics.md"].partition("## Worker")
    worker, _, web = rest.partition("## HTTP API")
    for one in INSTRUMENTS:
        assert (f"`{one.name}`" in web) == ("web" in one.roles)
        assert (f"`{one.name}`" in controller) == ("controller" in one.roles)
        assert (f"`{one.name}`" in worker) == ("worker" in one.roles)


@pytest.mark.parametrize(("page", "program"), [("cli.md", "imagemill"), ("worker.md", "imagemill-worker")])
def test_every_command_and_option_is_explained(pages: dict[str, str], page: str, program: str) -> None:
    leaves = list(GENERATOR.leaves(program, GENERATOR.PROGRAMS[program]))
    assert len(leaves) >= 3
    for name, command, ctx in leaves:
        section = pages[page].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section.strip(), name
        for param in command.get_params(ctx):
            for opt in param.opts:
                if opt.startswith("-") and opt not in ("-h", "--help"):
                    assert f"`{opt}`" in section, (name, opt)
        explained(section, [row for row in rows(section) if row.startswith("-")])


def test_every_error_and_code_is_explained(pages: dict[str, str]) -> None:
    own = [cls for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, errors.ImagemillError)]
    assert len(own) > 20
    explained(pages["errors.md"], [cls.__name__ for cls in own if cls not in errors.IMAGE_ERRORS.values()])
    explained(pages["errors.md"], list(errors.IMAGE_ERRORS))
    codes = {str(cls.exit_code) for cls in own} | {"0", "70", "71", "72", "130"}
    explained(pages["errors.md"], sorted(codes))


def test_every_column_is_explained(pages: dict[str, str]) -> None:
    explained(pages["rows.md"], label_rows.schema(embedding=True).names)
    for kind in ("generate", "reconstruct", "interpolate"):
        explained(pages["rows.md"], image_index.schema(kind).names)
    explained(pages["rows.md"], list(image_index.REJECTS))


def test_every_state_and_field_is_explained(pages: dict[str, str]) -> None:
    assert list(STATES) == list(get_args(State))
    explained(pages["records.md"], list(STATES))
    for record in (Status, Scheduled, Run):
        explained(pages["records.md"], list(record.model_fields))


def test_every_number_of_every_recipe_is_explained(pages: dict[str, str]) -> None:
    for family, recipe in RECIPES.items():
        section = pages["recipes.md"].partition(f"\n## {family}\n")[2].partition("\n## ")[0]
        explained(section, [name for name in recipe.model_fields if name != "family"])


def test_every_kind_of_job_source_and_format_is_explained(pages: dict[str, str]) -> None:
    explained(pages["kinds.md"], [*KINDS, *SOURCES, *formats.LABELS, *formats.IMAGES])


def test_every_object_key_is_explained(pages: dict[str, str]) -> None:
    job = JobKeys("<id>")
    explained(pages["bucket.md"], [job.spec, job.plan, job.manifest(42), job.commit(42), job.end, job.active])
    explained(pages["bucket.md"], [*(key for key in GENERATOR.bucket_keys() if not key.endswith("/")), *OUTPUTS])


def test_every_public_method_of_the_client_is_there(pages: dict[str, str]) -> None:
    for name in GENERATOR.method_names():
        assert f"\n## {name}\n" in pages["python.md"], name
        assert getattr(Client, name).__doc__, name


@pytest.mark.parametrize("name", ["classify", "train", "evaluate", "generate", "synthesize", "verify"])
def test_every_keyword_of_a_method_that_makes_a_job_is_explained(pages: dict[str, str], name: str) -> None:
    section = pages["python.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    keywords = getattr(options, f"{name.capitalize()}Keywords").__annotations__
    assert keywords
    explained(section, list(keywords))


def test_every_model_that_ships_is_there(pages: dict[str, str]) -> None:
    shipped = [path.parent.name for path in (ROOT / "worker/zoo/shipped").glob("*/model.json")]
    assert shipped
    explained(pages["models.md"], shipped)
