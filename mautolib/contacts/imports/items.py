"""A JSON list of contacts, taken as a whole or not at all, through the same merge as files.

Every item is checked first, and one that is not acceptable refuses the list with its index and field. Known
addresses are skipped. Kept as a completed import of format `json`. Called by the API.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert

from mautolib.contacts import domains
from mautolib.contacts.address import Address
from mautolib.contacts.imports import requests
from mautolib.contacts.imports.merging import drop_staging, merge, open_staging, stage
from mautolib.contacts.imports.model import Import, ImportOptions, ImportStatus
from mautolib.contacts.model import ConsentStatus, NewContact
from mautolib.contacts.store import add_tags
from mautolib.contacts.validation import check_new
from mautolib.db import tables
from mautolib.db.copy import encode_row
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput
from mautolib.settings import Settings

__all__ = ["MAX_ITEMS", "import_items"]

_LOG = logging.getLogger(__name__)
MAX_ITEMS = 5000
_TEXTS = ("first_name", "last_name", "phone", "country", "language", "timezone", "currency")
_COLUMNS = ("line", "email", "email_key", "flags", *_TEXTS, "custom_fields", "subscribed", "consent_status",
            "consent_source", "consent_at")  # fmt: skip


def import_items(
    tx: Connection, items: Sequence[NewContact], *, actor: str, now: datetime, settings: Settings | None = None
) -> Import:
    """Make a contact of each item whose address is not known; returns the completed import.

    Raises:
        InvalidInput: more than 5000 items, or some are not acceptable: each problem with `("body", <index>, <field>)`.
    """
    if len(items) > MAX_ITEMS:
        raise InvalidInput(f"A list has at most {MAX_ITEMS} contacts; upload a CSV file instead", path=("body",))
    checked = _check(items)
    options = ImportOptions()
    import_id = tx.execute(insert(tables.imports).values(
        status=str(ImportStatus.RUNNING), format="json", options=options.as_json(), created_by=actor, created_at=now,
        started_at=now,
    ).returning(tables.imports.c.import_id)).scalar_one()  # fmt: skip
    open_staging(tx)
    stage(tx, _COLUMNS, (line.encode() for line in _lines(checked, domains.lists(settings))))
    counts = merge(tx, import_id, options, columns=_COLUMNS, actor=actor, now=now, settings=settings,
                   blank_language="")
    _attach_tags(tx, items, checked, now)
    drop_staging(tx)
    _LOG.info("import %s completed: %s", import_id, counts)
    return requests.finish(tx, import_id, asdict(counts), now=now)


def _check(items: Sequence[NewContact]) -> list[dict[str, Any]]:
    checked: list[dict[str, Any]] = []
    problems: list[tuple[tuple[str | int, ...], str]] = []
    for index, item in enumerate(items):
        try:
            checked.append(check_new(item))
        except InvalidInput as error:
            found = ((error.path, str(error)), *error.problems)
            problems += [(("body", index, *path[1:]), message) for path, message in found]
    if problems:
        raise InvalidInput(f"Item {problems[0][0][1]}: {problems[0][1]}", path=problems[0][0],
                           problems=tuple(problems[1:]))  # fmt: skip
    return checked


def _lines(checked: Sequence[dict[str, Any]], known: domains.DomainLists) -> Iterator[str]:
    for number, values in enumerate(checked, start=1):
        address: Address = values["email"]
        risk = domains.risk_of(address, known)
        flags = risk.is_disposable + 2 * risk.is_free_provider + 4 * risk.is_role_based
        status = values["consent_status"]
        yield encode_row([
            number, address.email, address.key, flags, *(values[name] for name in _TEXTS),
            json.dumps(values["custom_fields"]) if values["custom_fields"] else "", values["subscribed"],
            "" if status is ConsentStatus.UNKNOWN else status, values["consent_source"] or "",
            values["consent_at"].isoformat() if values["consent_at"] else "",
        ])  # fmt: skip


def _attach_tags(
    tx: Connection, items: Sequence[NewContact], checked: Sequence[dict[str, Any]], now: datetime
) -> None:
    wanted: dict[tuple[int, ...], list[str]] = {}
    for item, values in zip(items, checked, strict=True):
        if item.tag_ids:
            wanted.setdefault(tuple(item.tag_ids), []).append(values["email"].key)
    for tag_ids, keys in wanted.items():
        touched = tx.scalars(statement("imports.touched_of"), {"email_keys": keys}).all()
        add_tags(tx, touched, tag_ids, now=now)
