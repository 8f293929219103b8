"""Writing the mail: a frozen content becomes a blueprint once, and the blueprint a finished message per person.

Promise: links are rewritten and templates compiled once per content; each message carries its Message-ID, signed
links, and as marketing mail the postal address, an unsubscribe link and both headers of RFC 8058. A test parses what
is built with the standard parser. Called by the sending pump; it neither reads nor writes the ledger.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from mautolib.campaigns.mime import mailbox_header, plain_header, quoted_printable, text_header
from mautolib.channels.protocol import Outgoing
from mautolib.channels.wire import wire_address
from mautolib.errors import Misconfigured, ProviderRejected
from mautolib.events.links import LinkSigner, MessageLinks, Owner, is_web_url
from mautolib.ledger.model import Claimed, Kind, NewContent
from mautolib.settings import Settings, variable
from mautolib.templates.compile import CompiledTemplate, compile_template
from mautolib.templates.language import with_language
from mautolib.templates.links import add_pixel, add_preheader, ensure_footer, rewrite_links

ATTEMPT_HEADER: Final = "X-Mauto-Attempt"
_UNSUBSCRIBE_MARK: Final = "{{ unsubscribe_url }}"
_UTM: Final = ("source", "medium", "campaign", "term", "content")
_PART: Final = "\r\nContent-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"


class Blueprint:
    """One content, ready to be written to anybody.

    Args:
        is_marketing: show postal address and unsubscribe link, add the List-Unsubscribe headers.
        is_tracked: links and pixel as the content says; off for messages to nobody we know.
    """

    def __init__(
        self,
        content: NewContent,
        *,
        settings: Settings,
        signer: LinkSigner,
        campaign_name: str = "",
        is_marketing: bool = True,
        is_tracked: bool = True,
    ) -> None:
        self._signer = signer
        self._is_marketing = is_marketing
        self._clicks: list[tuple[str, int]] = []
        self._has_pixel = is_tracked and content.track_opens
        self._owner = Owner.of(campaign_id=content.campaign_id, workflow_id=content.workflow_id)
        self._campaign: Mapping[str, str] = (
            {} if content.campaign_id is None else {"id": str(content.campaign_id), "name": campaign_name}
        )
        self.sender = _sender(content, settings)
        self._template = self._compiled(content, settings, is_tracked)
        self._template.refuse()
        self._names_preferences = any(name.split(".")[0] == "preferences_url" for name in self._template.variables)
        self._head = self._static_head(content, settings)
        boundary = "=_mauto_" + hashlib.sha256(repr(content).encode("utf-8", "replace")).hexdigest()[:24]
        self._opening = (
            f'MIME-Version: 1.0\r\nContent-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n\r\n'
            f"--{boundary}{_PART.format(kind='plain')}"
        ).encode()
        self._between = f"\r\n--{boundary}{_PART.format(kind='html')}".encode()
        self._closing = f"\r\n--{boundary}--\r\n".encode()

    def write(self, message: Claimed, made_at: datetime) -> Outgoing:
        """The finished message.

        Raises:
            InvalidInput: the text cannot be rendered for this person.
            ProviderRejected: the address cannot be written to.
        """
        recipient = wire_address(message.to_email, smtputf8=True)
        links = self._signer.for_message(
            owner=self._owner, contact_id=message.contact_id, message_id=message.message_id, made_at=made_at
        )
        unsubscribe = links.unsubscribe()
        rendered = self._template.render(self._context(message, links, unsubscribe, made_at))
        head = [
            self._head,
            plain_header("To", recipient),
            text_header("Subject", rendered.subject),
            _date(int(made_at.timestamp())),
            plain_header("Message-ID", f"<{message.rfc_message_id}>"),
            plain_header(ATTEMPT_HEADER, str(message.attempt_id)),
        ]
        if self._is_marketing:
            head += [
                plain_header("List-Unsubscribe", f"<{unsubscribe}>"),
                b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
            ]
        text, html = quoted_printable(rendered.text), quoted_printable(rendered.html)
        return Outgoing(
            message_id=message.message_id,
            contact_id=message.contact_id,
            attempt_id=message.attempt_id,
            sender=self.sender,
            recipient=message.to_email,
            data=b"".join((*head, self._opening, text, self._between, html, self._closing)),
        )

    def _context(
        self, message: Claimed, links: MessageLinks, unsubscribe: str, made_at: datetime
    ) -> dict[str, Any]:
        context: dict[str, Any] = {
            **(message.context or {}), "contact": message.contact, "campaign": self._campaign,
            "unsubscribe_url": unsubscribe, "now": made_at,
        }  # fmt: skip
        if message.kind is Kind.TEST:
            # Its content belongs to no campaign, so that tests never stand in the way of the real one.
            context["campaign"] = (message.context or {}).get("campaign", {})
        if self._names_preferences:
            context["preferences_url"] = links.preferences()
        if message.kind is Kind.CONFIRMATION:
            context["confirm_url"] = links.confirm()
        if self._clicks:
            context["links"] = [links.click(url, position=position) for url, position in self._clicks]
        if self._has_pixel:
            context["open_url"] = links.open()
        return context

    def _compiled(self, content: NewContent, settings: Settings, is_tracked: bool) -> CompiledTemplate:
        html, text = content.html_body, content.text_body
        if self._is_marketing:
            if not settings.postal_address.strip():
                raise Misconfigured(f"{variable('postal_address')} is not set; every marketing mail shows it")
            html, text = ensure_footer(
                html, text, _UNSUBSCRIBE_MARK, settings.postal_address, content.locale or "en"
            )
        html = with_language(add_preheader(html, content.preheader), content.locale)

        def replaced(url: str, position: int) -> str:
            target = with_utm(url, content.utm)
            if not (is_tracked and content.track_clicks and is_web_url(target)):
                return target
            self._clicks.append((target, position))
            return f"{{{{ links[{len(self._clicks) - 1}] }}}}"

        html = rewrite_links(html, replaced)
        if self._has_pixel:
            html = add_pixel(html, "{{ open_url }}")
        return compile_template(
            content.subject, html, text, strict=content.strict, variables=("links", "open_url"),
            language=content.locale,
        )  # fmt: skip

    def _static_head(self, content: NewContent, settings: Settings) -> bytes:
        name = content.from_name or ("" if content.from_email else settings.default_from_name)
        head = mailbox_header("From", name, self.sender)
        if content.reply_to:
            head += mailbox_header("Reply-To", "", wire_address(content.reply_to))
        return head


def with_utm(url: str, utm: Mapping[str, str]) -> str:
    """`url` with the utm parameters it lacks; what cannot be read as a URL stays as it is."""
    if not utm:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    present = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    missing = [
        f"utm_{name}={quote(str(utm[name]), safe='')}"
        for name in _UTM
        if utm.get(name) and f"utm_{name}" not in present
    ]
    return urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, *missing]))))


def _sender(content: NewContent, settings: Settings) -> str:
    address = content.from_email or settings.default_from_email
    if not address:
        raise Misconfigured(f"{variable('default_from_email')} is not set and the message names no sender")
    try:
        return wire_address(address)
    except ProviderRejected as error:
        raise Misconfigured(f"{re.sub(r'[^ -~]', '?', address)} cannot be a sender: {error}") from error


@lru_cache(maxsize=8)
def _date(second: int) -> bytes:
    return b"Date: " + format_datetime(datetime.fromtimestamp(second, UTC)).encode("ascii") + b"\r\n"
