"""Schemathesis sends whatever the OpenAPI document allows, and what it does not: no server error, no answer that it
does not describe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from contract.backend.objects import ObjectStore
from contract.settings import Settings
from tests.serving import serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
SHORT, LONG = 8, 60
"""Cases for each operation, valid and invalid ones each."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_is_answered_otherwise_than_the_document_says(
    long: bool, mode: GenerationMode, settings: Settings, store: ObjectStore, figures: Callable[..., None]
) -> None:
    seen: Counter[int] = Counter()
    failures: list[str] = []
    with serving(settings, store) as api:
        document = httpx2.get(f"{api.url}/openapi.json", timeout=60).json()
        for operations in document["paths"].values():
            for described in operations.values():
                described.pop("security", None)  # each case has a token, and `tests/attacks` sends wrong ones
        schema = schemathesis.openapi.from_dict(document)
        headers = {"Authorization": f"Bearer {api.token('admin')}"}
        for found in schema.get_all_operations():
            operation: Any = found.ok()  # type: ignore[union-attr]

            @hypothesis.seed(20261126)
            @hypothesis.settings(
                max_examples=LONG if long else SHORT,
                database=None,
                deadline=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
                verbosity=Verbosity.quiet,
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                # Nobody runs jobs here: a page that is to be made would be waited for, each time.
                if case.query and "timeout" in case.query and mode is GenerationMode.POSITIVE:
                    case.query["timeout"] = 0
                case.headers.pop("prefer", None)
                # Nor is a deadline of an instant kept, and 504 says so.
                for asked in (case.query, case.body):
                    deadline = asked.get("deadline") if isinstance(asked, dict) else None
                    if isinstance(deadline, int | float) and 0 < deadline < 1:
                        asked["deadline"] = 1
                status = 0
                try:
                    answer = case.call(base_url=api.url, headers=headers, timeout=60)
                    status = answer.status_code
                    case.validate_response(answer, checks=CHECKS)
                except (Exception, BaseExceptionGroup) as error:  # the checks raise groups of failures
                    failures.append(f"{case.method} {case.formatted_path} {status}: {error}"[:1500])
                seen[status] += 1

            try:
                send()
            except hypothesis.errors.Unsatisfiable:
                continue  # an operation of which nothing can be wrong
    figures(mode=mode.name, cases=sum(seen.values()), statuses=dict(sorted(seen.items())), failures=len(failures))
    assert not failures, "\n\n".join(failures[:10])
    assert sum(seen.values()) > 100
    assert not [status for status in seen if status >= 500]
