"""Puts the server together: the guard around it, health, the routers of each subject, and the OpenAPI document."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path

from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, InvalidSettings
from contract.models.registry import imagemill_version
from contract.online.ask import Online
from contract.settings import Settings
from contract.telemetry import traces
from contract.web.client import WebClient
from contract.web.tokens import Tokens
from producer.client import Client
from producer.web.access import Access
from producer.web.console import door
from producer.web.console.rendering import no_page, refusal
from producer.web.console.reviews.queues import Queues
from producer.web.fields import named
from producer.web.following import Follower
from producer.web.guard import OPEN, Guard
from producer.web.observe import refusals
from producer.web.observe.health import Readiness
from producer.web.observe.port import Port
from producer.web.observe.traffic import Measured, Traffic
from producer.web.online.images import LARGE_BYTES
from producer.web.online.routes import BODIES
from producer.web.places import Places
from producer.web.problems import Problem, ProblemDetails, internal, of_error, of_http, of_validation
from producer.web.routers import ROUTERS
from producer.web.v1.models import MOST_PUSHES

_ABOUT = """Label, generate and train on images in bulk. Every request but the probes has a header
`Authorization: Bearer imk_…`, and every error is problem details (RFC 9457) with a stable `code`."""

_PLACE_SECONDS = 2.0
"""How long a request waits for a place that another one holds."""

Errors: TypeAlias = dict[int | str, dict[str, Any]]
PROBLEMS: Errors = {
    "default": {
        "description": "What is wrong, as problem details (RFC 9457).",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
"""The errors of every operation, for the OpenAPI document."""


class Api(FastAPI):
    """The application; `client` is that of no owner in particular."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            title="Imagemill",
            description=_ABOUT,
            version=imagemill_version(),
            docs_url=None,
            redoc_url=None,
            lifespan=_lifespan,
            generate_unique_id_function=_operation_id,
            separate_input_output_schemas=False,
            telemetry={"tracing": False, "metrics": False},
        )
        self.settings = settings
        self.client = Client(settings)
        backend = self.client.backend
        self.follower = Follower(self.client.status)
        self.queues = Queues()
        self.uploads = _as_clients_reach_it(backend.store, settings)
        self.web = WebClient.of(settings)
        self.ready = Readiness(
            {"store": lambda: backend.store.bucket_exists(backend.store.bucket), "redis": lambda: backend.ledger.info()}
        )
        self.traffic = Traffic()
        self.pushes = Places("pushed models", most=MOST_PUSHES, each=MOST_PUSHES // 2, seconds=_PLACE_SECONDS)
        answered = {"redis": lambda: backend.ledger.answered_at, "store": lambda: backend.store.answered_at}
        self.port = Port(settings, self.ready, answered, self.traffic)
        self._online: Online | None = None
        self.access = Access(Tokens(self.client.backend.store))

    def online(self) -> Online:
        """Return the asking side of served models; raises InvalidSettings if no Redis carries requests."""
        if self._online is None:
            self._online = Online(self.settings, self.client.backend.store)
        return self._online

    async def close(self) -> None:
        """End all connections."""
        if self._online is not None:
            await self._online.aclose()
        self.web.close()
        self.uploads.close()
        self.client.close()

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document; each operation has the one form of errors in place of FastAPI's own."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for body in BODIES:
                schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[body.__name__] = schema
            problem = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs", {}))
            schemas["Problem"] = problem
            document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
                    operation["security"] = [] if path in OPEN else [{"token": []}]
            _name_fields(document)
            self.openapi_schema = document
        return self.openapi_schema


def make_app(settings: Settings, hosts: frozenset[str] = frozenset()) -> Measured:
    """Return the whole ASGI application. `hosts` are names that it has beside those of the settings."""
    api = Api(settings)
    for kind, handler in (
        (ImagemillError, _our_error),
        (RequestValidationError, _invalid),
        (HTTPException, _http_error),
        (Exception, _unforeseen),
    ):
        api.add_exception_handler(kind, handler)
    _add_health(api)
    for router in ROUTERS:
        api.include_router(router(), responses=PROBLEMS)
    guard = Guard(api, access=api.access, hosts=names_of(settings) | hosts, large=_large)
    return Measured(guard, api.traffic)


def _as_clients_reach_it(store: ObjectStore, settings: Settings) -> ObjectStore:
    """Return the store under the address that clients have for it; raises InvalidSettings."""
    if not settings.web_s3_endpoint:
        return store
    try:
        return ObjectStore(settings.model_copy(update={"s3_endpoint": settings.web_s3_endpoint}))
    except InvalidSettings as error:
        raise InvalidSettings(str(error).replace("IMAGEMILL_S3_ENDPOINT", "IMAGEMILL_WEB_S3_ENDPOINT")) from None


def _name_fields(part: Any) -> None:
    """Have each description in a document speak of fields, where those of option models speak of options."""
    if isinstance(part, dict):
        if isinstance(said := part.get("description"), str):
            part["description"] = named(said)
        for one in part.values():
            _name_fields(one)
    elif isinstance(part, list):
        for one in part:
            _name_fields(one)


def _large(path: str) -> int:
    """Return how many bytes a body may have at a path, 0 for the usual number."""
    return LARGE_BYTES if path.endswith(("/classify", "/infer", "/console/try-it")) else 0


def names_of(settings: Settings) -> frozenset[str]:
    """Return the names that clients may reach the server under, in lower case."""
    given = {name.strip().lower() for name in settings.web_hosts.split(",") if name.strip()}
    own = set() if settings.web_host in ("0.0.0.0", "::") else {settings.web_host.lower()}
    return frozenset(given or {"localhost", "127.0.0.1", "::1", *own})


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncIterator[None]:
    assert isinstance(api, Api)
    async with api.port.opened():
        yield
    await api.close()


def _add_health(api: Api) -> None:
    @api.get("/livez", response_class=PlainTextResponse, tags=["health"])
    async def livez() -> str:
        """Answer as long as this server does."""
        return "ok\n"

    @api.get(
        "/readyz",
        response_class=PlainTextResponse,
        tags=["health"],
        responses={503: {"description": "Which servers do not answer.", "content": {"text/plain": {}}}},
    )
    def readyz(response: Response) -> str:
        """Answer 200 if Redis and the object store answer too, and else 503 with what does not."""
        reasons = api.ready.reasons()
        response.status_code = 503 if reasons else 200
        return "\n".join(reasons or ["ok"]) + "\n"


def _operation_id(route: APIRoute) -> str:
    return route.name


async def _our_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ImagemillError)
    return _answer(request, of_error(error))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # What stands in an address was typed or followed by a person, who has no use for its pattern.
    if door.covers(request.url.path) and all(one["loc"][0] == "path" for one in error.errors()):
        return _answer(request, no_page())
    return _answer(request, of_validation(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if door.covers(request.url.path) and error.status_code == 404 and not isinstance(error, Problem):
        return _answer(request, no_page())
    if error.status_code == 405 and (methods := _methods_at(request)):
        error = HTTPException(405, headers={"Allow": ", ".join(methods)})
    return _answer(request, of_http(error))


def _methods_at(request: Request) -> list[str]:
    """Return the methods that an address of the document answers; Starlette names those of its first route alone."""
    api: FastAPI = request.app
    paths: dict[str, dict[str, Any]] = api.openapi()["paths"]
    here = (operations for template, operations in paths.items() if compile_path(template)[0].match(request.url.path))
    methods = {method.upper() for operations in here for method in operations}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)  # as the guard answers it


async def _unforeseen(request: Request, error: Exception) -> Response:
    traces.fail(error)
    return _answer(request, internal())


def _answer(request: Request, problem: Problem) -> Response:
    id = str(request.scope.get("imagemill.request_id", ""))
    refusals.note(problem, id)
    if door.covers(request.url.path):
        token, part = request.scope.get("imagemill.token"), "hx-request" in request.headers
        return refusal(problem, id, token, path=request.url.path, part=part)
    return problem.response(id, protocol=request.url.path.startswith("/v2"))
