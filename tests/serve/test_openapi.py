"""Requests that Schemathesis makes from the server's own description (extra `schemathesis`)."""

import os
from typing import Any

import hypothesis
import pytest
from served_images import PATIENCE

from imagen_jax.serve.api import make_app
from imagen_jax.serve.engine import Engine
from imagen_jax.serve.settings import Settings

schemathesis = pytest.importorskip("schemathesis")
pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get("FUZZ_INPUTS", "200"))  # of each path
LIMITS = Settings(model="tiny", sizes=((8, 8),), max_pixels=640, max_steps=9, timeout=300.0)
CHECKS = [
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    "response_schema_conformance",
]


def test_answers_are_as_they_are_described(quick: Engine) -> None:
    """No status of 500 or more, and no status, media type or body that is not described."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", make_app(quick, LIMITS))
    checks = schemathesis.checks.CHECKS.get_by_names(CHECKS)
    paths = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        paths.add(operation.path)

        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def answer(case: Any) -> None:
            case.call_and_validate(checks=checks, timeout=PATIENCE)

        answer()
    assert len(paths) == 6
