"""The OpenAPI schema."""

from __future__ import annotations

from typing import Any

from django.urls import get_resolver
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema


def test_the_schema_is_valid_and_complete() -> None:
    """Other languages' clients are made from it."""
    schema = SchemaGenerator().get_schema(public=True)

    validate_schema(schema)
    assert not GENERATOR_STATS
    assert len(schema["paths"]) == len(get_resolver().url_patterns) - 1  # all but the schema itself


def test_every_call_says_how_it_fails() -> None:
    """In the one shape of all errors."""
    schema = SchemaGenerator().get_schema(public=True)

    calls = [call for methods in schema["paths"].values() for call in methods.values()]
    assert all({"4XX", "5XX"} <= set(call["responses"]) for call in calls)


def test_the_schema_needs_no_token(host: Any, world: Any) -> None:
    """It holds nothing that is anybody's."""
    assert world.client().get("/api/schema").status_code == 200
