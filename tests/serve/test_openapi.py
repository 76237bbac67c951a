"""Requests that Schemathesis makes from the server's own description (extra `schemathesis`)."""

from typing import Any

import hypothesis
import pytest

from imagen_jax.serve.api import make_app
from imagen_jax.serve.engine import Engine
from imagen_jax.serve.settings import Settings

schemathesis = pytest.importorskip("schemathesis")
pytestmark = pytest.mark.slow
LIMITS = Settings(model="tiny", sizes=((8, 8),), max_pixels=640, max_steps=9, timeout=300.0)
CHECKS = [
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    "response_schema_conformance",
]


@pytest.fixture(scope="module")
def described(quick: Engine) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", make_app(quick, LIMITS))


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@hypothesis.settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_answers_are_as_they_are_described(case: Any) -> None:
    """No status of 500 or more, and no status, media type or body that is not described."""
    found = schemathesis.checks.CHECKS.get_by_names(CHECKS)
    case.call_and_validate(checks=found)
