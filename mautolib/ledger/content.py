"""Freezing what is sent: subject, bodies, sender and link targets become a snapshot that no later edit touches.

Promise: freezing the same again gives the same content_id (per campaign run, variant and locale; elsewhere by a hash
of everything). Callers: campaign planning, workflow steps, transactional mail. It does not judge the content: that
is done before launch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.dialects.postgresql import insert as insert_or_find

from mautolib.db import tables
from mautolib.errors import NotFound
from mautolib.ledger.model import NewContent


def freeze(tx: Connection, content: NewContent) -> int:
    """Store `content` with its links, or find it; returns its content_id."""
    values = dataclasses.asdict(content)
    links = values.pop("links")
    digest = None if content.campaign_id is not None else _digest(values, links)
    table = tables.message_contents
    found = tx.scalar(
        insert_or_find(table).values(**values, digest=digest).on_conflict_do_nothing().returning(table.c.content_id)
    )
    if found is None:
        return _existing(tx, content, digest)
    if links:
        rows = [{"content_id": found, "position": position, "url": url} for position, url in enumerate(links)]
        tx.execute(insert(tables.message_links), rows)
    return int(found)


def load(tx: Connection, content_id: int) -> NewContent:
    """A frozen content as it was given.

    Raises:
        NotFound: no such content.
    """
    table, links = tables.message_contents, tables.message_links
    row = tx.execute(select(table).where(table.c.content_id == content_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"Message content {content_id} not found")
    names = {item.name for item in dataclasses.fields(NewContent)} - {"links"}
    urls = tx.scalars(select(links.c.url).where(links.c.content_id == content_id).order_by(links.c.position))
    return NewContent(**{name: row[name] for name in names}, links=tuple(urls))


def _existing(tx: Connection, content: NewContent, digest: bytes | None) -> int:
    table = tables.message_contents
    query = select(table.c.content_id)
    if digest is not None:
        query = query.where(table.c.digest == digest)
    else:
        query = query.where(
            table.c.campaign_id == content.campaign_id,
            table.c.occurrence == content.occurrence,
            table.c.variant_id.is_not_distinct_from(content.variant_id),
            table.c.locale == content.locale,
        )
    return int(tx.execute(query).scalar_one())


def _digest(values: dict[str, Any], links: tuple[str, ...]) -> bytes:
    text = json.dumps([values, links], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
