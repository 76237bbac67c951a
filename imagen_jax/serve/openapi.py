"""The OpenAPI description of the server, made from the fields that it checks."""

import dataclasses
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from imagen_jax.config.ranges import Range
from imagen_jax.serve import fields
from imagen_jax.serve.settings import MOST_PROMPT, Settings

STATUSES = {
    400: "The request is none: a body, a field or an image that can't be read.",
    401: "No valid token.",
    403: "A page of another site asks.",
    404: "No such model.",
    408: "The body came too slowly.",
    413: "Too many bytes or pixels.",
    422: "The cascade does not make that.",
    429: "The queue is full; Retry-After says when to come back.",
    503: "The server is being shut down, or the time is over.",
}
PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string", "maxLength": MOST_PROMPT},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
}
BINARY = {"type": "string", "format": "binary"}

EVENT = {  # one of a stream; `data` is JSON
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["event", "data"],
}


def describe_api(limits: Settings) -> dict[str, Any]:
    """Describe all paths."""
    schema = _schema(limits)
    form = {
        **schema,
        "properties": {**schema["properties"], "image": BINARY, "mask": BINARY},
        "required": ["prompt", "image"],
    }
    plain = dict(schema, properties=dict(schema["properties"]))
    del plain["properties"]["strength"]
    return {
        "openapi": "3.2.0",
        "info": {"title": "imagen serve", "version": "1", "summary": "OpenAI's images API"},
        "components": {
            "schemas": {"Error": _error()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}] if limits.tokens else [],
        "paths": {
            "/v1/images/generations": {
                "post": _operation("Sample images.", "application/json", plain)
            },
            "/v1/images/edits": {
                "post": _operation(
                    "Sample from an image; what is transparent in the mask alone, if there is one.",
                    "multipart/form-data",
                    form,
                )
            },
            "/v1/models": {"get": _read("The cascade that is served, as a list.")},
            "/health": {"get": _read("The process answers.")},
            "/ready": {"get": _read("Requests are taken.", 503)},
            "/metrics": {"get": _read("Figures in Prometheus' format.")},
        },
    }


def _operation(summary: str, media: str, schema: dict[str, Any]) -> dict[str, Any]:
    answers = {str(status): _refusal(status) for status in STATUSES}
    events = {"text/event-stream": {"itemSchema": EVENT}}
    done = {"application/json": {"schema": {"type": "object"}}, **events}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {media: {"schema": schema}}},
        "responses": {"200": {"description": "The images.", "content": done}, **answers},
    }


def _read(summary: str, *more: int) -> dict[str, Any]:
    refusals = {str(status): _refusal(status) for status in (401, 403)}
    others = {str(status): {"description": "Not now."} for status in more}
    return {"summary": summary, "responses": {"200": {"description": "Yes."}, **refusals, **others}}


def _refusal(status: int) -> dict[str, Any]:
    schema = {"schema": {"$ref": "#/components/schemas/Error"}}
    return {"description": STATUSES[status], "content": {"application/json": schema}}


def _error() -> dict[str, Any]:
    texts = {name: {"type": ["string", "null"]} for name in ("message", "type", "param", "code")}
    inside = {"type": "object", "properties": texts, "required": ["message", "type"]}
    return {"type": "object", "properties": {"error": inside}, "required": ["error"]}


def _schema(limits: Settings) -> dict[str, Any]:
    """The fields of a body, from their annotations."""
    properties = {f.name: _kind(fields.HINTS[f.name]) for f in dataclasses.fields(fields.Fields)}
    sizes = [f"{width}x{height}" for height, width in limits.sizes]
    properties["size"] = {"enum": ["auto", *sizes, None], "description": "WIDTHxHEIGHT"}
    properties["model"] = {"enum": [limits.model, None]}
    return {
        "type": "object",
        "properties": properties,
        "required": ["prompt"],
        "additionalProperties": False,
    }


def _kind(hint: Any) -> dict[str, Any]:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_kind(one) for one in inside]}
    if origin is Literal:
        return {"enum": list(inside)}
    if origin is Annotated:
        bounds = next((x for x in inside[1:] if isinstance(x, Range)), Range())
        named = {"minimum": bounds.low, "maximum": bounds.high}
        return _kind(inside[0]) | {n: value for n, value in named.items() if value is not None}
    return dict(PLAIN[hint])
