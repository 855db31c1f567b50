"""`make keys`: passwords for `deploy/docker/compose.yaml`, in a file beside it that git and images leave out."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from deploy.local.private import write_private

ENV_FILE = Path(__file__).with_name("docker") / ".env"


def main(path: Path = ENV_FILE) -> None:
    """Write new passwords, or leave those that are there."""
    if path.exists():
        print(f"{path} is there already; delete it for new passwords, and start the stack again.", file=sys.stderr)
        return
    made = {
        "IMAGEMILL_REDIS_PASSWORD": secrets.token_hex(24),
        "IMAGEMILL_S3_ACCESS_KEY": secrets.token_hex(10).upper(),
        "IMAGEMILL_S3_SECRET_KEY": secrets.token_hex(24),
    }
    write_private(path, "".join(f"{name}={value}\n" for name, value in made.items()))
    print(f"Passwords are in {path}.", file=sys.stderr)


if __name__ == "__main__":
    main()
