"""What a definition names - templates, segments, inbound sources - exists, and stays until the definition is stored.

Promise: whoever deletes one of them waits for the transaction that names it, and then finds it in use. Called by the
step types and triggers when a workflow is saved.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, select

from mautolib.db import tables
from mautolib.workflows.steps.fields import Fields


def hold_template(tx: Connection, fields: Fields, key: str, template_id: int) -> None:
    """See that the template exists; nobody deletes it before the transaction ends.

    Raises:
        InvalidInput: it does not; the path names `key`.
    """
    _hold(tx, fields, key, tables.templates.c.template_id, template_id, "Template not found")


def hold_segment(tx: Connection, fields: Fields, key: str, segment_id: int) -> None:
    """See that the segment exists; nobody deletes it before the transaction ends.

    Raises:
        InvalidInput: it does not; the path names `key`.
    """
    _hold(tx, fields, key, tables.segments.c.segment_id, segment_id, "Segment not found")


def hold_source(tx: Connection, fields: Fields, key: str, source_id: int) -> None:
    """See that the inbound source exists; nobody deletes it before the transaction ends.

    Raises:
        InvalidInput: it does not; the path names `key`.
    """
    _hold(tx, fields, key, tables.inbound_sources.c.source_id, source_id, "Inbound source not found")


def _hold(tx: Connection, fields: Fields, key: str, column: Column[int], number: int, missing: str) -> None:
    query = select(column).where(column == number).with_for_update(read=True, key_share=True)
    if tx.execute(query).one_or_none() is None:
        raise fields.error(key, missing)
