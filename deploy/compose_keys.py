"""`make keys`: passwords for `deploy/docker/compose.yaml`, in files beside it that git and images leave out.

Containers get them as files below `/run/secrets`, not as variables: those are shown by `docker inspect` and inherited
by every child process. The folder `host` holds the same for programs outside the containers.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.local.private import private_folder, write_private

DOCKER = Path(__file__).with_name("docker")
_OLD = {
    "IMAGEMILL_REDIS_PASSWORD": "redis_password",
    "IMAGEMILL_S3_ACCESS_KEY": "imagemill_s3_access_key",
    "IMAGEMILL_S3_SECRET_KEY": "imagemill_s3_secret_key",
}
"""Variables of the `.env` before 0.2.0, by the file that has them now."""


def main(folder: Path = DOCKER) -> None:
    """Write new passwords beside those that are there, which stay; those of an older `.env` are taken over."""
    kept = folder / "secrets"
    variables = _old(folder / ".env")
    inside, outside = _texts(_there(kept) or {_OLD[name]: text for name, text in variables.items() if name in _OLD})
    missing = {name: text for name, text in inside.items() if not (kept / name).exists()}
    host = {name: text for name, text in outside.items() if not (kept / "host" / name).exists()}
    if not missing and not host:
        print(f"{kept} is there already; delete it for new passwords, and start the stack again.", file=sys.stderr)
        return
    fresh = not kept.exists()
    # A new folder appears when it is complete.
    making = private_folder(folder / "secrets.new" if fresh else kept)
    _write(making, missing)
    _write(private_folder(making / "host"), host)
    for name in missing:
        # Docker mounts the file with its owner and mode, and the user of a container is another one. The folder keeps
        # other users of this machine out.
        (making / name).chmod(0o444)
    if not fresh:
        added = ", ".join([*sorted(missing), *(f"host/{name}" for name in sorted(host))])
        print(f"Added to {kept}: {added}. Start the stack again.", file=sys.stderr)
        return
    making.rename(kept)
    # Which workers `docker compose up` starts.
    write_private(folder / ".env", f"COMPOSE_PROFILES={variables.get('COMPOSE_PROFILES') or 'cpu'}\n")
    print(f"Passwords are in {kept}. For programs on this machine:", file=sys.stderr)
    print(f"  export IMAGEMILL_SECRETS_DIR={(kept / 'host').resolve()}", file=sys.stderr)


def _texts(known: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the files for the containers and those for programs of this machine, with the passwords that are known."""
    redis = known.get("redis_password") or secrets.token_hex(24)
    online = known.get("redis_online_password") or secrets.token_hex(24)
    s3 = {
        "imagemill_s3_access_key": known.get("imagemill_s3_access_key") or secrets.token_hex(10).upper(),
        "imagemill_s3_secret_key": known.get("imagemill_s3_secret_key") or secrets.token_hex(24),
    }
    inside = {
        "redis_password": redis,
        "imagemill_redis_url": f"redis://:{redis}@redis:6379/0",
        "redis_online_password": online,
        "imagemill_online_redis_url": f"redis://:{online}@redis-online:6379/0",
        **s3,
        # The HTTP API has an identity of its own, which may do what deploy/policies/web.json says.
        "web_s3_access_key": known.get("web_s3_access_key") or secrets.token_hex(10).upper(),
        "web_s3_secret_key": known.get("web_s3_secret_key") or secrets.token_hex(24),
    }
    outside = {
        "imagemill_redis_url": f"redis://:{redis}@127.0.0.1:6379/0",
        "imagemill_online_redis_url": f"redis://:{online}@127.0.0.1:6380/0",
        "imagemill_s3_endpoint": "127.0.0.1:8333",
        **s3,
    }
    return inside, outside


def _there(folder: Path) -> dict[str, str]:
    """Return the secrets of the containers that are there, by name."""
    return {path.name: path.read_text() for path in folder.glob("*_*") if path.is_file()}


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
