"""`python -m deploy.healthy [URL]`: the health check of a container. It exits 1 if the process in it does not answer.

Without an address it asks `/livez` at `IMAGEMILL_METRICS_PORT`. If that is 0 or unset, nothing listens, and the
container is healthy as long as its process runs.
"""

from __future__ import annotations

import os
import sys
from http.client import HTTPException
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

_SECONDS = 4.0


def main(arguments: list[str]) -> int:
    """Ask the address, and return the exit code; what was wrong goes to stderr, which Docker keeps."""
    port = os.environ.get("IMAGEMILL_METRICS_PORT", "0")
    if not arguments and port in ("", "0"):
        return 0
    address = arguments[0] if arguments else f"http://127.0.0.1:{port}/livez"
    try:
        # A proxy of the environment is for the world, not for this container.
        build_opener(ProxyHandler({})).open(address, timeout=_SECONDS).close()
    except (URLError, HTTPException, OSError) as error:
        print(f"{address}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
