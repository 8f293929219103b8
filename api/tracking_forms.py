"""What the pages behind links are sent and how they answer: forms in, pages or JSON out.

Accepts what browsers and mail providers post (forms of both kinds, no body at all) and what programs do (JSON).
Called by `api/unsubscribe.py`, `api/preferences.py` and `api/confirm.py`.
"""

from __future__ import annotations

import json
from email import message_from_bytes
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl, quote

from api.tracking_desk import Away, Desk
from api.tracking_requests import Asked, BodyTooLarge, Receive
from mautolib.contacts import preferences
from mautolib.pages import public

__all__ = ["NOT_COMPLETE", "away", "form_of", "language_for", "language_of", "page", "received", "same_address",
           "tell", "values_of", "wants_json"]  # fmt: skip

NOT_COMPLETE = "This link is not complete; nothing has been changed."
_HTML, _JSON = b"text/html; charset=utf-8", b"application/json"
#: A page does not wait longer to be in the right language.
_LANGUAGE_SECONDS = 0.5
_RETRY = (b"retry-after", b"10")


async def received(asked: Asked, receive: Receive) -> bytes | None:
    """The request's body; None when it was too large or too slow and that has been answered."""
    try:
        return await asked.body(receive)
    except BodyTooLarge:
        await asked.problem(413, "The body is larger than 8 KiB", (b"connection", b"close"), code="too_large")
    except TimeoutError:
        await asked.problem(408, "The body did not arrive in time", (b"connection", b"close"))
    return None


def form_of(content_type: str, body: bytes) -> dict[str, str] | None:
    """The fields of a form, {} for an empty body, None for anything else."""
    kind = content_type.partition(";")[0].strip().lower()
    if not body.strip():
        return {}
    if kind in ("application/x-www-form-urlencoded", ""):
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    if kind != "multipart/form-data":
        return None
    header = content_type.encode("latin-1", "replace")
    whole = message_from_bytes(b"Content-Type: " + header + b"\r\n\r\n" + body, policy=HTTP)
    fields: dict[str, str] = {}
    for part in whole.iter_parts() if whole.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            fields[name] = payload.decode("utf-8", "replace").strip()
    return fields or None


def values_of(asked: Asked, body: bytes) -> dict[str, str]:
    """The named values of a form, of a JSON object, else of the address; {} for a body that is neither."""
    content_type = asked.header(b"content-type")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        return {**asked.query, **(form_of(content_type, body) or {})}
    try:
        found = json.loads(body.decode("utf-8")) if body.strip() else {}
    except (ValueError, RecursionError):
        found = {}
    texts = {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
    return {**asked.query, **texts}


def language_of(asked: Asked, chosen: str = "") -> str:
    """The language to answer in: the person's, where they are known to have one of ours, else the browser's."""
    return public.language_for(chosen, asked.header(b"accept-language"))


async def language_for(asked: Asked, desk: Desk, contact_id: int) -> str:
    """The language to answer the person behind a genuine link in; the browser's when the database is away."""
    try:
        chosen = await desk.run(
            lambda tx: preferences.language_of(tx, contact_id), patience_seconds=_LANGUAGE_SECONDS
        )
    except Away:
        chosen = ""
    return language_of(asked, chosen)


def same_address(asked: Asked, s: str) -> str:
    """Where a page's form is posted: the address it was asked for, with its token."""
    path = "/".join(quote(part, safe="") for part in asked.path.split("/"))
    return f"{path}?s={quote(s, safe='')}"


def wants_json(asked: Asked) -> bool:
    """Whether a program asks."""
    accept = asked.header(b"accept").lower()
    return "application/json" in accept and "text/html" not in accept


async def tell(asked: Asked, answer: str | dict[str, Any], shown: str) -> None:
    """Answer with a message (or an object) where JSON is asked for, else with a page."""
    if wants_json(asked):
        body = {"message": answer} if isinstance(answer, str) else answer
        await asked.answer(200, _JSON, json.dumps(body).encode())
    else:
        await page(asked, shown)


async def page(asked: Asked, shown: str, *extra: tuple[bytes, bytes], status: int = 200) -> None:
    """Answer with a page."""
    policy = (b"content-security-policy", public.content_security_policy().encode())
    await asked.answer(status, _HTML, shown.encode(), policy, *extra)


async def away(asked: Asked) -> None:
    """Answer that the database is away: nothing was changed that we know of, and trying again is right."""
    if wants_json(asked):
        await asked.problem(503, "The service cannot be reached just now", _RETRY, code="unavailable")
    else:
        await page(asked, public.away(language_of(asked)), _RETRY, status=503)
