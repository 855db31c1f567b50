"""`imagemill web`: serve the HTTP API."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from producer.cli.common import print_json, say, shared_options


@click.command()
@click.option("--host", help="Address to listen on.  [env: IMAGEMILL_WEB_HOST; default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0: a free one.  [env: IMAGEMILL_WEB_PORT; 8080]")
@click.option(
    "--certificate",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PEM file with the server's certificate; the API is then served over TLS.",
)
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="PEM file with its private key.")
@shared_options
def web(host: str | None, port: int | None, certificate: Path | None, key: Path | None, as_json: bool) -> None:
    """Serve the HTTP API, and the console at /console, until Ctrl-C. `imagemill up` does so too, on a port of its own.

    Clients need a token: `imagemill tokens create`. Behind a proxy, name the hosts that clients use in
    IMAGEMILL_WEB_HOSTS.

    \b
    Examples:
      imagemill web
      imagemill web --host 0.0.0.0 --port 8443 --certificate cert.pem --key key.pem
    """
    from contract.errors import InvalidSettings
    from contract.garbage_collection import set_aside
    from contract.settings import current
    from contract.telemetry import logs, traces

    try:
        from producer.web.serve import listen, make_server, url_of
    except ImportError as error:
        raise InvalidSettings(
            f"The HTTP API needs {error.name}, which is not installed; `pip install imagemill[web]`."
        ) from None

    settings = current()
    given = {"web_host": host, "web_port": port}
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
    logs.set_up(settings.log, 20, "%(asctime)s %(message)s")
    traces.set_up(settings, "imagemill-web", f"web@{socket.gethostname()}")
    server = make_server(settings, certificate, key)
    bound = listen(settings.web_host, settings.web_port)
    url = url_of(bound, tls=certificate is not None)
    if as_json:
        print_json({"url": url})
    say(f"The HTTP API listens on {url}; {url}/openapi.json describes it. Ctrl-C ends it.")
    if certificate is None and not url.startswith(("http://127.", "http://[::1]")):
        say("Tokens travel unencrypted: put a proxy with TLS in front, or give --certificate and --key.")
    set_aside()
    server.run(sockets=[bound])
