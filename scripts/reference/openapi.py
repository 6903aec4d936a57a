"""A page for the gateway's HTTP routes, from their OpenAPI schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway.api.http import make_app
from gateway.service import GatewayService, ServiceLimits
from scripts.reference.markdown import NOTICE, page, table

_FORM = "multipart/form-data"


def schema() -> dict[str, Any]:
    """The schema that a running gateway serves on /openapi.json."""
    return make_app(GatewayService(ServiceLimits(0, 0.0))).openapi()


def pages() -> dict[str, str]:
    """File name to text."""
    api = schema()
    about = api["info"]["description"].replace("[/](/)", "`/`").strip()
    lines = ["# HTTP", "", NOTICE, "", about, ""]
    lines += ["`/openapi.json` is the schema and `/docs` its page, both served by the gateway.", ""]
    for path, methods in api["paths"].items():
        for method, route in methods.items():
            lines += [f"## {method.upper()} {path}", "", *_route(route)]
    return {"http.md": page(lines)}


def _route(route: dict[str, Any]) -> Iterator[str]:
    yield from [f"{route['summary'].rstrip('.?')}{'?' if route['summary'].endswith('?') else '.'}", ""]
    yield from [route.get("description", ""), ""]
    for parameter in route.get("parameters", ()):
        yield from [f"`{parameter['name']}` is part of the {parameter['in']}.", ""]
    if "requestBody" in route:
        form = route["requestBody"]["content"][_FORM]["schema"]
        yield from [f"Request: `{_FORM}`.", "", *_form(form)]
    for status, answer in route["responses"].items():
        if status == "200":
            yield from _examples(answer.get("content", {}))
    failures = [
        [status, answer["description"]]
        for status, answer in route["responses"].items()
        if status != "200" and "content" not in answer
    ]
    if failures:
        yield from table(("status", "when"), failures)


def _form(form: dict[str, Any]) -> list[str]:
    needed = form.get("required", ())
    rows = [
        [
            f"`{name}`",
            _kind(field),
            "required" if name in needed else _default(field),
            field.get("description", ""),
        ]
        for name, field in form["properties"].items()
    ]
    return table(("field", "type", "default", "what"), rows)


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    return "" if value in (None, "", []) else f"`{json.dumps(value, ensure_ascii=False)}`"


def _kind(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        kinds = [_kind(choice) for choice in field["anyOf"] if choice.get("type") != "null"]
        return " or ".join(kinds)
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}" if "items" in field else "list"
    return "file" if field.get("format") == "binary" else str(field.get("type", ""))


def _examples(content: dict[str, Any]) -> Iterator[str]:
    for media, body in content.items():
        if "example" in body:
            example = body["example"]
            language = "json" if media == "application/json" else "text"
            text = json.dumps(example, indent=2, ensure_ascii=False) if language == "json" else example
            yield from [f"`{media}`:", "", f"```{language}", *text.rstrip().splitlines(), "```", ""]
