"""The export of contacts: one long answer, made while it is read.

Guards that an export waits for its reader without holding a thread or a connection anybody else needs, that it ends
when the reader leaves, stands still or takes an hour, and that few run at once.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import Query, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from api.calls import Call
from api.errors import Refused
from api.routing import CurrentCall, Router, allow, problems
from api.uploads import CSV, GZIP
from api.values import parse_id
from mautolib import contacts
from mautolib.auth import audit
from mautolib.auth.roles import Role
from mautolib.contacts.export import Export
from mautolib.contacts.model import ContactFilter
from mautolib.errors import InvalidInput

_LOG = logging.getLogger(__name__)
router = Router("Import")
#: Stands for an id nothing can have; ids begin at 1.
_NO_SEGMENT = 0
#: Exports at once in this process; each has a connection of its own and a snapshot that keeps old rows alive.
MOST_AT_ONCE = 4
RETRY_AFTER_SECONDS = 10
#: A reader that takes none of this many octets for so long is gone, whatever its connection says.
PIECE, STALLED_SECONDS = 16 * 1024, 60.0
LONGEST_SECONDS = 3600.0
_places = threading.BoundedSemaphore(MOST_AT_ONCE)


class _Stalled(Exception):
    """The reader takes nothing any more, or has taken too long."""


class ExportResponse(StreamingResponse):
    """Blocks of an export as they are asked for; ends the export whatever happens."""

    def __init__(self, export: Export, first: bytes, *, gzip: bool) -> None:
        name = "contacts.csv.gz" if gzip else "contacts.csv"
        headers = {"Content-Disposition": f"attachment; filename={name}"}
        super().__init__(self._blocks(first), media_type=GZIP if gzip else CSV, headers=headers)
        self._export = export
        self._until = time.monotonic() + LONGEST_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""

        async def patient(message: Message) -> None:
            with anyio.move_on_after(STALLED_SECONDS) as waiting:
                await send(message)
            if waiting.cancelled_caught or time.monotonic() > self._until:
                raise _Stalled

        try:
            await super().__call__(scope, receive, patient)
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(_end, self._export)

    async def _blocks(self, block: bytes) -> Any:
        while block:
            for start in range(0, len(block), PIECE):
                yield block[start : start + PIECE]
            block = await run_sync(self._export.next_block)


@router.get(
    "/contacts/export/csv", response_class=Response,
    responses={
        200: {
            "content": {CSV: {"schema": {"type": "string"}}, GZIP: {"schema": {"type": "string", "format": "binary"}}},
            "description": "One line a contact, by `created_at` and address",
        },
        **problems(401, 403, 422, 429),
    },
)  # fmt: skip
@allow(Role.EDITOR, action="contact.export")
async def export_contacts(
    call: CurrentCall,
    subscribed: Annotated[bool | None, Query(description="Only those (not) subscribed.")] = None,
    tag: Annotated[str | None, Query(max_length=100, description="Exact name of a tag.")] = None,
    q: Annotated[str | None, Query(max_length=320, description="Part of e-mail, first or last name.")] = None,
    segment_id: Annotated[str | None, Query(max_length=20, description="Members of its last evaluation.")] = None,
    formula_guard: Annotated[
        bool, Query(description="Put one `'` before cells that a spreadsheet would run as a formula.")
    ] = True,
    gzip: Annotated[bool, Query(description="Answer a gzip file.")] = False,
) -> Response:
    """Export contacts as CSV.

    One moment's view of them, streamed. Filters combine with AND. Importing the file gives the same contacts; it
    takes one `'` off again. At most four exports run at once in one process (429); one that its reader does not
    take for a minute, or that takes an hour, is cut off.
    """
    segment = None if segment_id is None else parse_id(segment_id) or _NO_SEGMENT
    filters = ContactFilter(subscribed=subscribed, tag=tag, q=q, segment_id=segment)
    if not _places.acquire(blocking=False):
        raise Refused(429, "Too many exports at once", headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    try:
        export = await run_sync(_begin, call, filters, formula_guard, gzip)
    except BaseException:
        _places.release()
        raise
    try:
        first = await run_sync(export.next_block)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await run_sync(_end, export)
        raise
    return ExportResponse(export, first, gzip=gzip)


def _begin(call: Call, filters: ContactFilter, guard: bool, packed: bool) -> Export:
    """Open the export and write down who asked for it, before anything leaves the house."""
    with call.engine.begin() as tx:
        if filters.segment_id is not None and not contacts.has_segment(tx, filters.segment_id):
            raise InvalidInput("Segment not found", path=("query", "segment_id"))
        # Names only: what is searched for may be somebody's address.
        given = sorted(name for name in ("subscribed", "tag", "q", "segment_id") if getattr(filters, name) is not None)
        log = {"filters": given, "formula_guard": guard, "gzip": packed}
        export = Export(call.engine, filters, guard=guard, packed=packed)
        try:
            audit.write(tx, call.entry(200, changes=log))
        except BaseException:
            export.close()
            raise
    return export


def _end(export: Export) -> None:
    try:
        export.close()
    except SQLAlchemyError:
        _LOG.warning("an export's connection could not be closed in order")
    finally:
        _places.release()
        _LOG.info("an export ended after %s contacts", export.rows)
