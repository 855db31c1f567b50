"""`make keys`: passwords for `deploy/docker/compose.yaml`, in files beside it that git and images leave out.

Containers get them as files below `/run/secrets`, not as variables: those are shown by `docker inspect` and inherited
by every child process. The folder `host` holds the same for programs outside the containers.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from deploy.local.private import private_folder, write_private

DOCKER = Path(__file__).with_name("docker")


def main(folder: Path = DOCKER) -> None:
    """Write new passwords, or leave those that are there; those of an older `.env` are taken over."""
    kept = folder / "secrets"
    if kept.exists():
        print(f"{kept} is there already; delete it for new passwords, and start the stack again.", file=sys.stderr)
        return
    known = _old(folder / ".env")
    redis = known.get("IMAGEMILL_REDIS_PASSWORD") or secrets.token_hex(24)
    s3 = {
        "imagemill_s3_access_key": known.get("IMAGEMILL_S3_ACCESS_KEY") or secrets.token_hex(10).upper(),
        "imagemill_s3_secret_key": known.get("IMAGEMILL_S3_SECRET_KEY") or secrets.token_hex(24),
    }
    inside = {"redis_password": redis, "imagemill_redis_url": f"redis://:{redis}@redis:6379/0", **s3}
    outside = {
        "imagemill_redis_url": f"redis://:{redis}@127.0.0.1:6379/0",
        "imagemill_s3_endpoint": "127.0.0.1:8333",
        **s3,
    }
    making = private_folder(folder / "secrets.new")
    _write(making, inside)
    _write(private_folder(making / "host"), outside)
    for path in making.glob("*_*"):
        # Docker mounts the file with its owner and mode, and the user of a container is another one. The folder keeps
        # other users of this machine out.
        path.chmod(0o444)
    making.rename(kept)
    # Which workers `docker compose up` starts.
    write_private(folder / ".env", f"COMPOSE_PROFILES={known.get('COMPOSE_PROFILES') or 'cpu'}\n")
    print(f"Passwords are in {kept}. For programs on this machine:", file=sys.stderr)
    print(f"  export IMAGEMILL_SECRETS_DIR={(kept / 'host').resolve()}", file=sys.stderr)


def _write(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        write_private(folder / name, text)


def _old(path: Path) -> dict[str, str]:
    """Return the variables of an `.env`, which held the passwords before 0.2.0; none if there is no file."""
    if not path.exists():
        return {}
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


if __name__ == "__main__":
    main()
