"""The OpenAPI document is valid, describes every operation, and asks for nothing that is not there."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.serving import Api


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{api.url}/openapi.json", timeout=60).json()
    return found


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_operation_says_what_it_does_and_how_it_fails(document: dict[str, Any]) -> None:
    seen = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path} has no description"
            assert operation["operationId"] not in seen, operation["operationId"]
            seen.add(operation["operationId"])
            assert "422" not in operation["responses"], "FastAPI's own form of errors"
            if path.startswith("/v1/"):
                assert "application/problem+json" in operation["responses"]["default"]["content"], path
                assert operation["security"], f"{method} {path} asks for no token"


def test_probes_ask_for_no_token_and_say_nothing_of_addresses(api: Api) -> None:
    assert httpx2.get(f"{api.url}/livez").text == "ok\n"
    assert httpx2.get(f"{api.url}/readyz", headers={"Host": "10.1.2.3:8080"}).text == "ok\n"
