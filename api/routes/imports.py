"""Imports: a JSON list or a small CSV file at once, a file of any size in the background, and what became of each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from sqlalchemy import Connection

from api import paging, uploads
from api.calls import JSON, MIB, Call, Outcome, json_bytes
from api.errors import Refused
from api.routes.contacts import NewContactBody
from api.routing import CurrentCall, Router, allow, listed, problems
from api.strict_json import parse
from api.uploads import CSV, GZIP, MULTIPART, NOT_CSV, SMALL_LIMIT, TOO_LARGE, Upload
from api.values import Answer, Id, Shown, path_id
from mautolib.auth import audit
from mautolib.auth.roles import Role
from mautolib.contacts import imports
from mautolib.contacts.imports import Import, ImportOptions, ImportStatus, Reject, RejectCode
from mautolib.contacts.imports.items import MAX_ITEMS
from mautolib.errors import InvalidInput

router = Router("Import")
MISSING = "Import not found"
JSON_LIMIT = 16 * MIB
#: Small files at work at once: each may sort in memory, and seconds of it should not take every thread.
_AT_ONCE = anyio.CapacityLimiter(4)
_ITEMS = TypeAdapter(list[NewContactBody])

_OPTION_FIELDS: dict[str, Any] = {
    "update_policy": {
        "type": "string", "enum": ["skip", "fill_empty", "merge", "overwrite"], "default": "skip",
        "description": "What becomes of known contacts.",
    },
    "mapping": {
        "type": "object", "description": "Header to field, `custom_fields.<key>` or null (ignore).",
        "additionalProperties": {"type": ["string", "null"]},
    },
    "preset": {
        "type": "string", "enum": list(imports.PresetChoice), "default": "auto",
        "description": "Whose export it is; `auto`: found where the header leaves no doubt, `none`: nobody's.",
    },
    "tag_ids": {"type": "array", "items": {"type": "string"}, "description": "Put on created and updated contacts."},
    "subscribed_default": {"type": "boolean", "default": True, "description": "For rows without a `subscribed` cell."},
    "consent_source": {"type": "string", "description": "Where consent was given; new subscribed rows are granted."},
    "consent_at": {"type": "string", "format": "date-time", "description": "When consent was given."},
    "delimiter": {"type": "string", "description": "Left out: found by itself."},
    "encoding": {"type": "string", "default": "auto", "description": "`auto`: UTF-8, UTF-16 with a byte order mark."},
    "dry_run": {"type": "boolean", "default": False, "description": "Only check and count."},
}  # fmt: skip
_OPTION_PARAMETERS = [{"name": n, "in": "query", "required": False, "schema": s} for n, s in _OPTION_FIELDS.items()]
_FORM: dict[str, Any] = {
    "schema": {
        "type": "object", "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}, **_OPTION_FIELDS},
    },
}  # fmt: skip
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/ContactCreate"}}},
            MULTIPART: _FORM,
            CSV: {"schema": {"type": "string", "format": "binary"}},
            GZIP: {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "parameters": _OPTION_PARAMETERS,
}  # fmt: skip
_SMALL_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {MULTIPART: _FORM}},
    "parameters": [
        {
            "name": "update_existing", "in": "query", "required": False,
            "schema": {"type": "boolean", "default": False},
            "description": "True: `update_policy` merge; a policy that is given wins.",
        },
        *_OPTION_PARAMETERS,
    ],
}  # fmt: skip


class ImportedNow(Answer):
    """What became of a JSON list."""

    created: int
    skipped: int = Field(description="Known addresses, and repeats in the list.")


class ImportQueued(Answer):
    """Where to look what becomes of a file."""

    import_id: Id
    status_url: str
    status: ImportStatus


class RefusedRow(Answer):
    """A row of a file that was not taken; `row` is its physical line (the header is 1)."""

    row: int
    email: str = Field(description="What stood in the e-mail column.")
    error: str = Field(examples=["Invalid email"])
    column: str
    code: RejectCode


class ImportedFile(Answer):
    """What became of a small file; `total_rows` = `created` + `updated` + `skipped`, which contains the refused."""

    total_rows: int
    created: int
    updated: int
    skipped: int
    errors: list[RefusedRow] = Field(description="The first 50; all of them: `/imports/{id}/errors.csv`.")
    errors_total: int
    suppressed: int
    import_id: Id


class ShownPreview(Answer):
    """What a file looks like. In `mapping` null is a column left out, or one about consent that has to be decided."""

    model_config = ConfigDict(title="ImportPreview")

    total_rows: int
    columns: list[str]
    sample_rows: list[dict[str, str]] = Field(description="The first 5.")
    detected_email_column: str | None
    mapping: dict[str, str | None] = Field(description="Header to field.")
    delimiter: str
    encoding: str
    preset: imports.PresetChoice | None = Field(description="Whose export the file is taken for; null: nobody's.")


class ShownImport(Answer):
    """An import and its counts; `total_rows` = `created` + `updated` + `skipped`, `skipped` contains `rejected`."""

    model_config = ConfigDict(title="Import")

    id: Id
    status: ImportStatus
    filename: str | None
    format: str
    options: dict[str, Any]
    total_rows: int | None
    created: int
    updated: int
    skipped: int
    rejected: int
    suppressed: int
    error: str | None
    created_by: str
    created_at: Shown
    started_at: Shown | None
    finished_at: Shown | None
    status_url: str
    errors_url: str


def shown(found: Import) -> ShownImport:
    """An import as the API shows it."""
    url = f"/api/v1/imports/{found.import_id}"
    return ShownImport(
        id=str(found.import_id), status=found.status, filename=found.filename, format=found.format,
        options=dict(found.options), total_rows=found.total_rows, created=found.created, updated=found.updated,
        skipped=found.skipped, rejected=found.rejected, suppressed=found.suppressed, error=found.error,
        created_by=found.created_by, created_at=found.created_at, started_at=found.started_at,
        finished_at=found.finished_at, status_url=url, errors_url=f"{url}/errors.csv",
    )  # fmt: skip


@router.post(
    "/contacts/import", status_code=201, response_model=ImportedNow, openapi_extra=_BODY,
    responses={202: {"model": ImportQueued, "description": "A file: queued"}, **problems(401, 403, 413, 415, 422)},
)  # fmt: skip
@allow(Role.EDITOR, action="import.create", body_limit=None, media_types=(JSON, MULTIPART, CSV, GZIP))
async def import_contacts(call: CurrentCall, request: Request) -> Response:
    """Import contacts.

    A JSON array (at most 5000 items, 16 MiB) is taken at once, all or nothing: 201. A CSV file (`multipart` field
    `file`, or as the body; also gzip) is stored and read in the background: 202 and where to look. Options are
    query parameters or form fields, or one form field `options` with a JSON object of them.
    """
    media_type = request.headers.get("content-type", JSON).split(";")[0].strip().lower()
    return await (_import_items(call, request) if media_type == JSON else _import_file(call, request))


async def _import_items(call: Call, request: Request) -> Response:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > JSON_LIMIT:
            raise Refused(413, f"The body is larger than {JSON_LIMIT} bytes", headers={"Connection": "close"})
    content = bytes(body)
    items = await run_sync(_items, content)

    def effect(tx: Connection) -> Outcome:
        done = imports.import_items(
            tx, [item.to_domain() for item in items], actor=str(call.actor), now=call.now, settings=call.settings
        )
        log = {"created": done.created, "skipped": done.skipped}
        body = ImportedNow(created=done.created, skipped=done.skipped)
        return Outcome(status=201, body=body, resource_id=done.import_id, changes=log)

    return await call.commit(effect, content=content)


def _items(content: bytes) -> list[NewContactBody]:
    given = parse(content)
    if isinstance(given, list) and len(given) > MAX_ITEMS:
        raise Refused(413, f"A list has at most {MAX_ITEMS} contacts; upload a CSV file instead")
    try:
        return _ITEMS.validate_python(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in found]) from None


async def _import_file(call: Call, request: Request) -> Response:
    upload = await uploads.receive(request, call.settings)
    kept = False
    try:
        options = ImportOptions.parse(upload.options)

        def effect(tx: Connection) -> Outcome:
            import_id = imports.request(
                tx, filename=upload.filename, uri=upload.stored.uri, options=options, actor=str(call.actor),
                now=call.now, format=upload.stored.format, sha256=upload.stored.sha256,
            )  # fmt: skip
            url = f"/api/v1/imports/{import_id}"
            body = ImportQueued(import_id=str(import_id), status_url=url, status=ImportStatus.QUEUED)
            return Outcome(status=202, body=body, resource_id=import_id, changes={"bytes": upload.stored.size})

        content = upload.stored.sha256.encode() + json_bytes(options.as_json())
        response = await call.commit(effect, content=content)
        kept = response.status_code == 202 and "idempotency-replayed" not in response.headers
        return response
    finally:
        if not kept:
            imports.forget_upload(call.settings, upload.stored.uri)


@router.post(
    "/import/csv", response_model=ImportedFile, openapi_extra=_SMALL_BODY,
    responses=problems(401, 403, 413, 415, 422, s400=f"{NOT_CSV}; {TOO_LARGE}; {imports.NO_EMAIL}"),
)  # fmt: skip
@allow(Role.EDITOR, action="import.create", body_limit=None, media_types=(MULTIPART,))
async def import_small_file(call: CurrentCall, request: Request) -> Response:
    """Import a small CSV file at once.

    At most 5 MB, answered with its counts, in one transaction: all its good rows, or nothing. Options are query
    parameters or form fields, or one form field `options` with a JSON object of them.
    """

    def effect(tx: Connection, upload: Upload, options: ImportOptions) -> Outcome:
        stored = upload.stored
        done = imports.take_file(
            tx, imports.location(call.settings, stored.uri), options, filename=upload.filename, format=stored.format,
            sha256=stored.sha256, actor=str(call.actor), now=call.now, settings=call.settings,
        )  # fmt: skip
        found = done.request
        body = ImportedFile(
            total_rows=found.total_rows or 0, created=found.created, updated=found.updated, skipped=found.skipped,
            errors=[_refused_row(one) for one in done.rejects], errors_total=found.rejected,
            suppressed=found.suppressed, import_id=str(found.import_id),
        )  # fmt: skip
        log = {"bytes": stored.size, "created": found.created, "updated": found.updated}
        return Outcome(body=body, resource_id=found.import_id, changes=log)

    return await _commit_small(call, request, effect)


@router.post(
    "/import/csv/preview", response_model=ShownPreview, openapi_extra=_SMALL_BODY,
    responses=problems(401, 403, 413, 415, 422, s400=f"{NOT_CSV}; {TOO_LARGE}"),
)  # fmt: skip
@allow(Role.EDITOR, action="import.preview", body_limit=None, media_types=(MULTIPART,))
async def preview_import(call: CurrentCall, request: Request) -> Response:
    """Look at a CSV file before it is imported.

    At most 5 MB. Shows what each column would become, the first rows, and how many there are; changes nothing.
    """

    def effect(tx: Connection, upload: Upload, options: ImportOptions) -> Outcome:
        path = imports.location(call.settings, upload.stored.uri)
        return Outcome(body=ShownPreview.model_validate(imports.preview(path, options, limit=SMALL_LIMIT)))

    return await _commit_small(call, request, effect)


async def _commit_small(
    call: Call, request: Request, effect: Callable[[Connection, Upload, ImportOptions], Outcome]
) -> Response:
    """Commit the effect of a small file, which does not outlive the call."""
    upload = await uploads.receive(request, call.settings, is_small=True)
    try:
        options = ImportOptions.parse(upload.options)

        def read(tx: Connection) -> Outcome:
            try:
                return effect(tx, upload, options)
            except InvalidInput as error:
                if error.code == "no_email_column":
                    raise Refused(400, imports.NO_EMAIL) from None
                raise

        async with _AT_ONCE:
            return await call.commit(read, content=upload.stored.sha256.encode() + json_bytes(options.as_json()))
    finally:
        imports.forget_upload(call.settings, upload.stored.uri)


def _refused_row(one: Reject) -> RefusedRow:
    return RefusedRow(row=one.line, email=one.email, error=one.reason, column=one.column, code=one.code)


@router.get("/imports/", response_model=list[ShownImport], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_imports(
    call: CurrentCall,
    page: paging.SkipLimit,
    status: Annotated[ImportStatus | None, Query(description="Exact state.")] = None,
) -> Response:
    """List imports.

    Newest first, those taken at once included.
    """
    before = paging.position_id(page)
    with call.engine.begin() as tx:
        rows = imports.list_imports(tx, status=status, skip=page.skip, limit=page.limit + 1, before=before)
        total = imports.count_imports(tx, status=status)
    kept = rows[: page.limit]
    last = (kept[-1].import_id,) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.get("/imports/{id}", response_model=ShownImport, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_import(call: CurrentCall, id: str) -> ShownImport:
    """Show an import.

    Its counters are at most 10 s old while it runs.
    """
    with call.engine.begin() as tx:
        return shown(imports.get(tx, path_id(id, MISSING)))


@router.get(
    "/imports/{id}/errors.csv", response_class=Response,
    responses={
        200: {"content": {CSV: {"schema": {"type": "string"}}}, "description": "line, column, code, reason, value"},
        **problems(401, 403, s404=MISSING),
    },
)  # fmt: skip
@allow(Role.EDITOR, action="import.errors")
def import_errors(call: CurrentCall, id: str) -> Response:
    """Download the rows that were not taken.

    CSV with physical line, column, code, reason and the value (first 200 characters, safe to open in a spreadsheet).
    """
    import_id = path_id(id, MISSING)
    file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=MIB)  # noqa: SIM115 - closed when it has been sent
    try:
        with call.engine.begin() as tx:
            imports.write_rejects(tx, import_id, file.write)
            audit.write(tx, call.entry(200, resource_id=import_id, changes={}))
        file.seek(0)
    except BaseException:
        file.close()
        raise
    headers = {"Content-Disposition": f'attachment; filename="import-{import_id}-errors.csv"'}
    return StreamingResponse(_blocks(file), media_type=CSV, headers=headers)


@router.post(
    "/imports/{id}/cancel", response_model=ShownImport,
    responses=problems(401, 403, s404=MISSING, s409="It is finished already"),
)  # fmt: skip
@allow(Role.EDITOR, action="import.cancel")
async def cancel_import(call: CurrentCall, id: str) -> Response:
    """Cancel an import.

    A running one stops within seconds, before it changes a contact.
    """
    import_id = path_id(id, MISSING)
    ended: list[Import] = []

    def effect(tx: Connection) -> Outcome:
        found = imports.cancel(tx, import_id, now=call.now)
        ended[:] = [found] if found.status is ImportStatus.CANCELLED else []
        return Outcome(body=shown(found), resource_id=import_id)

    response = await call.commit(effect)
    for found in ended:
        # No worker will take it any more, so nobody else removes its file.
        imports.forget_upload(call.settings, found.storage_uri)
    return response


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while block := file.read(1 << 16):
            yield block
