"""What the documentation of every operation has in common: answers any of them can give, and headers it takes.

Guards that no operation answers with a status its documentation does not name: what conventions and routing decide
for everybody is added here, once, and not in each route file. Called by `documentation`.
"""

from __future__ import annotations

from typing import Any

from api.errors import MEDIA_TYPE, TITLES

_PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_TEXTS = {
    400: "This cannot be done now",
    401: "No token, or one that is not valid (any more)",
    403: "The caller's role or scope does not reach",
    404: "Not found",
    408: "The body did not arrive in time",
    409: "The state forbids this, or a call with this `Idempotency-Key` is still running",
    412: "It was changed since the version in `If-Match`",
    413: "The body is too large",
    415: "Another media type than those above",
    422: "A value is not acceptable; `detail` lists each",
    429: "Too many; wait for `Retry-After`",
    503: "The database cannot be reached or is busy; wait for `Retry-After`",
}
_SUCCESSES = {"200": "Done", "201": "Created", "202": "Accepted, the rest follows", "204": "Done; no body"}
_REPLAYED = {"description": "`true`: the first answer again, nothing done.", "schema": {"type": "string"}}
_ETAG = {"description": "The version shown, for `If-Match`.", "schema": {"type": "string"}}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key", "in": "header", "required": False,
    "description": "The same key and body within 24 hours get the first answer, and one effect.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}  # fmt: skip
_IF_MATCH = {
    "name": "If-Match", "in": "header", "required": False,
    "description": "An `ETag`; when it was changed since, 412.",
    "schema": {"type": "string"},
}  # fmt: skip
#: The one operation that touches nothing.
_NEVER_AWAY = {"health"}


def add_shared_answers(document: dict[str, Any]) -> None:
    """Complete every operation of the document, in place."""
    for path, operations in document["paths"].items():
        # Tracking tells all of its answers itself.
        for method, operation in operations.items() if not path.startswith("/api/v1/track/") else ():
            _tidy(operation)
            _complete(method, path, operation)
        tagged = {"ETag": _ETAG}
        if any("412" in operation["responses"] for operation in operations.values()):
            for method in operations.keys() & {"get", "patch"}:
                operations[method]["responses"]["200"].setdefault("headers", {}).update(tagged)
        for operation in operations.values():
            for code, answer in operation["responses"].items():
                if code in ("429", "503") and "$ref" not in answer:
                    answer.setdefault("headers", {}).update(_RETRY)
            _order(operation)
    document["components"]["responses"] = {_name(status): _answer(status) for status in _TEXTS}


def forget_defaults_of_patches(document: dict[str, Any]) -> None:
    """A field left out of a PATCH stays as it is; generated clients would send its default."""
    for operations in document["paths"].values():
        media = operations.get("patch", {}).get("requestBody", {}).get("content", {}).get("application/json")
        if media:
            schema = document["components"]["schemas"][media["schema"]["$ref"].rpartition("/")[2]]
            fields = schema["properties"].items()
            schema["properties"] = {
                name: {key: value for key, value in field.items() if key != "default"} for name, field in fields
            }


def _tidy(operation: dict[str, Any]) -> None:
    """Say what the framework says twice or not at all once."""
    operation["description"] = operation["description"].partition("\n\n")[2] or operation["description"]
    for code, answer in operation["responses"].items():
        if answer.get("description") == "Successful Response":
            answer["description"] = _SUCCESSES[code]
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        schema.pop("title", None)
        text = schema.get("description", "An id as the API shows it; one that nothing has is 404.")
        parameter.setdefault("description", text)
        parameter["schema"] = schema = {name: value for name, value in schema.items() if name != "description"}
        # A parameter is left out, it is not null.
        real = [branch for branch in schema.get("anyOf", ()) if branch.get("type") != "null"]
        if len(real) == 1 and len(real) < len(schema["anyOf"]):
            del schema["anyOf"]
            schema.update(real[0])


def _complete(method: str, path: str, operation: dict[str, Any]) -> None:
    role, answers = operation.get("x-role", "public"), operation["responses"]
    statuses = {422} | ({503} if operation["operationId"] not in _NEVER_AWAY else set())
    if role != "public":
        statuses |= {401, 403}
    if "{" in path:
        statuses |= {404}
    if method != "get":
        statuses |= {408, 413, 415}
    if method == "post" and not role.startswith(("public", "viewer")):
        statuses |= {409}
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
        for status in [status for status in answers if status < "300"]:
            answers[status].setdefault("headers", {})["Idempotency-Replayed"] = _REPLAYED
    if "412" in answers:
        operation.setdefault("parameters", []).append(_IF_MATCH)
    for status in sorted(statuses):
        answers.setdefault(str(status), {"$ref": f"#/components/responses/{_name(status)}"})
    for code in [code for code in answers if code in map(str, _TEXTS)]:
        answer, status = answers[code], int(code)
        if answer.get("description") in (TITLES[status], "Validation Error"):
            answers[code] = {"$ref": f"#/components/responses/{_name(status)}"}


def _order(operation: dict[str, Any]) -> None:
    operation["responses"] = dict(sorted(operation["responses"].items()))


def _name(status: int) -> str:
    return TITLES[status].replace(" ", "")


def _answer(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": _TEXTS[status], "content": _PROBLEM}
    if status == 401:
        answer["headers"] = {"WWW-Authenticate": {"description": "`Bearer`", "schema": {"type": "string"}}}
    elif status in (429, 503):
        answer["headers"] = _RETRY
    return answer
