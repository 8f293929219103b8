"""Examples of the OpenAPI document: each body and each answer gets one that fits its schema.

An example a schema brings along wins; the rest is made from the schema, with the values people know by their names.
Called by `documentation` once, when the document is first asked for. `tests/api/test_openapi.py` holds every example
against its schema, and sends those of bodies.
"""

from __future__ import annotations

from typing import Any

_REFERENCE = "#/components/schemas/"
_DEEPEST = 8
_MOMENT = "2026-05-01T09:00:00Z"

#: What a field of this name looks like, where its schema does not say it.
_KNOWN: dict[str, Any] = {
    "email": "ana@shop.example", "first_name": "Ana", "last_name": "Silva", "phone": "+351 210 000 000",
    "country": "PT", "language": "pt", "timezone": "Europe/Lisbon", "currency": "EUR", "custom_fields": {"size": "M"},
    "color": "#3B82F6", "consent_source": "checkout form", "filename": "shop.csv", "format": "csv",
    "subject": "Hello {{ contact.first_name }}", "html_body": "<p>Hello {{ contact.first_name }}</p>",
    "text_body": "Hello {{ contact.first_name }}", "reporting_currency": "EUR", "actor": "user:1",
    "created_by": "user:1", "requested_by": "user:1", "actor_label": "admin@shop.example", "source": "api",
    "request_id": "5f0c2a2d6f0e4d3bb1f6a07d3e582c49", "access_token": "eyJhbGciOiJIUzI1NiIs...",
    "refresh_token": "b3q1Zz0x...", "cohort": "2026-W18", "local_part": "ana", "domain": "shop.example",
    "tld": "example", "score": 90.0, "delimiter": ",", "encoding": "utf-8", "ip": "192.0.2.10",
    "wording_version": "2026-05", "base": "EUR", "quote": "USD", "rate": "1.0834", "action": "contact.create",
    "resource_type": "contact", "category": "general", "key": "mauto_3kTq...", "prefix": "mauto_3kTq",
    "sample_rows": [{"E-Mail": "mia@shop.example", "First name": "Mia"}], "columns": ["E-Mail", "First name"],
    "mapping": {"E-Mail": "email", "First name": "first_name"}, "detected_email_column": "E-Mail",
    "scopes": ["contacts:read"], "variables": ["voucher"], "quantity": 1, "sku": "MUG-1",
}  # fmt: skip
#: Fields that are mostly empty; an example of a success shows them so.
_EMPTY = {
    "error", "errors", "warnings", "problems", "status_reason", "revoked_at", "scheduled_at", "schedule_id",
    "undeclared", "last_error", "last_code", "expires_at", "note", "notes",
}  # fmt: skip


def add_examples(document: dict[str, Any]) -> None:
    """Give every JSON body and every JSON success of the document an example, in place."""
    schemas = document["components"]["schemas"]
    for operations in document["paths"].values():
        for operation in operations.values():
            contents = [operation.get("requestBody", {}).get("content", {})]
            contents += [answer.get("content", {}) for code, answer in operation["responses"].items() if code < "300"]
            for content in contents:
                media = content.get("application/json")
                if media and "schema" in media and "example" not in media and "examples" not in media:
                    media["example"] = example_of(media["schema"], schemas)


def example_of(schema: dict[str, Any], schemas: dict[str, Any], *, name: str = "", depth: int = 0) -> Any:
    """A value that fits `schema`.

    Args:
        schemas: the schemas its references lead to, by name.
        name: the field it is for.
    """
    own = _given(schema)
    if own is not None:
        return own[0]
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].removeprefix(_REFERENCE)], schemas, name=name, depth=depth + 1)
    for branch in ("anyOf", "oneOf", "allOf"):
        if branch in schema:
            return _of_branches(schema[branch], schemas, name, depth)
    kind = schema.get("type")
    if name in _EMPTY and kind in ("string", "array"):
        return "" if kind == "string" else []
    if kind == "object" or "properties" in schema:
        return _of_object(schema, schemas, name, depth)
    if name in _KNOWN and "enum" not in schema:
        return _KNOWN[name]
    if kind == "array":
        return [] if depth > _DEEPEST else [example_of(schema.get("items", {}), schemas, depth=depth + 1)]
    return _plain(schema, name)


def _given(schema: dict[str, Any]) -> tuple[Any] | None:
    if "example" in schema:
        return (schema["example"],)
    if schema.get("examples"):
        return (schema["examples"][0],)
    if "const" in schema:
        return (schema["const"],)
    return (schema["enum"][0],) if "enum" in schema else None


def _of_branches(branches: list[dict[str, Any]], schemas: dict[str, Any], name: str, depth: int) -> Any:
    has_null = any(branch.get("type") == "null" for branch in branches)
    if has_null and (name in _EMPTY or depth > _DEEPEST):
        return None
    first = next(branch for branch in branches if branch.get("type") != "null")
    return example_of(first, schemas, name=name, depth=depth)


def _of_object(schema: dict[str, Any], schemas: dict[str, Any], name: str, depth: int) -> Any:
    fields = schema.get("properties")
    if fields is None:
        values = schema.get("additionalProperties")
        if name in _KNOWN and isinstance(_KNOWN[name], dict):
            return _KNOWN[name]
        keys = schema.get("propertyNames", {})
        key = example_of(keys, schemas, depth=depth + 1) if "$ref" in keys or "enum" in keys else "name"
        return {key: example_of(values, schemas, depth=depth + 1)} if isinstance(values, dict) and values else {}
    if depth > _DEEPEST:
        fields = {key: fields[key] for key in schema.get("required", ())}
    return {key: example_of(value, schemas, name=key, depth=depth + 1) for key, value in fields.items()}


def _plain(schema: dict[str, Any], name: str) -> Any:
    kind = schema.get("type")
    if kind == "string":
        return _text(schema, name)
    if kind == "boolean":
        return bool(schema.get("default", True))
    if kind in ("integer", "number"):
        return schema.get("default", max(1, schema.get("minimum", 1)))
    return None if kind == "null" else "value"


def _text(schema: dict[str, Any], name: str) -> str:
    formats = {"date-time": _MOMENT, "date": "2026-05-01", "uri": "https://shop.example/", "email": "ana@shop.example"}
    if schema.get("format") in formats:
        return formats[schema["format"]]
    if name == "id" or name.endswith("_id"):
        return "42"
    if name.endswith("_url"):
        return "/api/v1/imports/42"
    return str(schema.get("default") or name.replace("_", " ").capitalize() or "text")
