"""Writing the mail: a frozen content becomes a blueprint once, and the blueprint a finished message per person.

Promise: links are rewritten and templates compiled once per content; each message carries its Message-ID, signed
links, and as marketing mail the postal address, an unsubscribe link and both headers of RFC 8058. A test parses what
is built with the standard parser. Called by the sending pump; it neither reads nor writes the ledger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache, partial
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from mautolib.campaigns.assembly import Assembly, Frame, Path, WholeNeeded
from mautolib.campaigns.dkim import DkimSigner
from mautolib.campaigns.mime import mailbox_header, plain_header, quoted_printable, text_header
from mautolib.campaigns.senders import bounce_domain_of, sender_of
from mautolib.channels.protocol import Outgoing
from mautolib.channels.wire import wire_address
from mautolib.errors import Misconfigured
from mautolib.events.link_batch import CONTACT_LENGTH, TOKEN_LENGTH, Form, LinkBatch, Wanted
from mautolib.events.links import LinkSigner, MessageLinks, Owner, Purpose, is_web_url
from mautolib.events.verp import ReturnPaths
from mautolib.ledger.model import Claimed, Kind, NewContent
from mautolib.settings import Settings, variable
from mautolib.templates.compile import CompiledTemplate, compile_template
from mautolib.templates.language import with_language
from mautolib.templates.links import add_pixel, add_preheader, ensure_footer, rewrite_links

ATTEMPT_HEADER: Final = "X-Mauto-Attempt"
_ONE_CLICK: Final = b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
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
        self.sender = sender_of(settings, content.from_email)
        self._template = self._compiled(content, settings, is_tracked)
        self._template.refuse()
        self._names_preferences = any(name.split(".")[0] == "preferences_url" for name in self._template.variables)
        self._head = self._static_head(content, settings)
        self._dkim = DkimSigner.from_settings(settings)
        self._bounce_domain = bounce_domain_of(settings)
        self._return_paths = ReturnPaths.from_settings(settings) if self._bounce_domain else None
        boundary = "=_mauto_" + hashlib.sha256(repr(content).encode("utf-8", "replace")).hexdigest()[:24]
        self._opening = (
            f'MIME-Version: 1.0\r\nContent-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n\r\n'
            f"--{boundary}{_PART.format(kind='plain')}"
        ).encode()
        self._between = f"\r\n--{boundary}{_PART.format(kind='html')}".encode()
        self._closing = f"\r\n--{boundary}--\r\n".encode()
        self._assembly = self._assembled(content.strict)

    @property
    def is_assembled(self) -> bool:
        """Whether messages are put together from encoded pieces; else each is rendered and encoded as a whole."""
        return self._assembly is not None

    def write(self, message: Claimed, made_at: datetime) -> Outgoing:
        """The finished message.

        Raises:
            InvalidInput: the text cannot be rendered for this person.
            ProviderRejected: the address cannot be written to.
        """
        recipient = wire_address(message.to_email, smtputf8=True)
        data = None
        if self._assembly is not None:
            data = self._put_together(self._assembly, message, recipient, made_at)
        # Pieces are encoded so that nothing in them can end a line or begin it with a dot; an address is not.
        is_checked = data is not None and recipient.isascii()
        if data is None:
            data = self._written_whole(message, recipient, made_at)
        if self._dkim is not None:
            data = self._dkim.header(data, made_at) + data
        return Outgoing(
            message.message_id, message.contact_id, message.attempt_id, self._envelope_sender(message),
            message.to_email, data, is_checked,
        )  # fmt: skip

    def _envelope_sender(self, message: Claimed) -> str:
        """Where bounces go: an address that names the message, else the sender's."""
        if self._return_paths is None:
            return self.sender
        return f"{self._return_paths.make(message.message_id, message.attempt_id)}@{self._bounce_domain}"

    def _put_together(
        self, assembly: Assembly, message: Claimed, recipient: str, made_at: datetime
    ) -> bytes | None:
        try:
            subject, texts = assembly.filled(message.contact, partial(self._rest, message, made_at))
        except WholeNeeded:
            return None
        milliseconds = int(made_at.timestamp() * 1000)
        contact, tokens = self._batch.sign(message.contact_id, message.message_id, milliseconds)
        framed = [
            recipient.encode(), text_header("Subject", subject), _date(milliseconds // 1000),
            message.rfc_message_id.encode("ascii"), b"%d" % message.attempt_id, contact, *tokens,
        ]  # fmt: skip
        return assembly.write(framed, texts)

    def _written_whole(self, message: Claimed, recipient: str, made_at: datetime) -> bytes:
        links = self._links(message, made_at)
        rest = self._rest(message, made_at, True)
        rendered = self._template.render({**rest, "contact": message.contact})
        head = [
            self._head,
            plain_header("To", recipient),
            text_header("Subject", rendered.subject),
            _date(int(made_at.timestamp())),
            plain_header("Message-ID", f"<{message.rfc_message_id}>"),
            plain_header(ATTEMPT_HEADER, str(message.attempt_id)),
        ]
        if self._is_marketing:
            head += [plain_header("List-Unsubscribe", f"<{links.unsubscribe()}>"), _ONE_CLICK]
        text, html = quoted_printable(rendered.text), quoted_printable(rendered.html)
        return b"".join((*head, self._opening, text, self._between, html, self._closing))

    def _assembled(self, is_strict: bool) -> Assembly | None:
        """The content laid out beforehand; None where every message has to be rendered as a whole."""
        if any(name.split(".")[0] == "confirm_url" for name in self._template.variables):
            return None
        named: dict[Path, Wanted] = {
            ("links", number): Wanted(Purpose.CLICK, url, position)
            for number, (url, position) in enumerate(self._clicks)
        }
        named[("unsubscribe_url",)] = Wanted(Purpose.UNSUBSCRIBE)
        if self._has_pixel:
            named[("open_url",)] = Wanted(Purpose.OPEN)
        if self._names_preferences:
            named[("preferences_url",)] = Wanted(Purpose.PREFERENCES)
        self._batch = LinkBatch(self._signer, self._owner, list(named.values()))
        forms = dict(zip(named, self._batch.forms, strict=True))
        form = forms["unsubscribe_url",]
        if self._is_marketing:
            # Never too long for a line: only the id and the token differ from message to message.
            sample = f"<{form.before}{'u' * CONTACT_LENGTH}{form.between}{'t' * TOKEN_LENGTH}{form.after}>"
            plain_header("List-Unsubscribe", sample)
        constants: dict[Path, str] = {("campaign", name): value for name, value in self._campaign.items()}
        try:
            assembly = Assembly(
                self._template, forms=forms, constants=constants, strict=is_strict,
                frame=self._frame(form),
            )  # fmt: skip
        except WholeNeeded:
            return None
        tokens = [("token", number) for number in range(self._batch.token_count)]
        assembly.numbered(["to", "subject", "date", "message_id", "attempt", "contact", *tokens])
        return assembly

    def _frame(self, form: Form) -> Frame:
        head: list[tuple[Any, bytes]] = [
            ("to", b"\r\n"), ("subject", b""), ("date", b"Message-ID: <"),
            ("message_id", f">\r\n{ATTEMPT_HEADER}: ".encode()), ("attempt", b"\r\n"),
        ]  # fmt: skip
        if self._is_marketing:
            before, between, after = (text.encode("ascii") for text in form[:3])
            head[-1] = ("attempt", b"\r\nList-Unsubscribe: <" + before)
            head += [("contact", between), (("token", form.token), after + b">\r\n" + _ONE_CLICK)]
        last, following = head[-1]
        head[-1] = (last, following + self._opening)
        return Frame(start=self._head + b"To: ", head=head, between=self._between, end=self._closing)

    def _links(self, message: Claimed, made_at: datetime) -> MessageLinks:
        return self._signer.for_message(
            owner=self._owner, contact_id=message.contact_id, message_id=message.message_id, made_at=made_at
        )

    def _rest(self, message: Claimed, made_at: datetime, with_links: bool, /) -> dict[str, Any]:
        """What a template may name besides the contact."""
        # A test's content belongs to no campaign, so that tests never stand in its way: the message names it.
        given: dict[str, Any] = {"campaign": {}, **(message.context or {}), "now": made_at}
        if self._campaign:
            given["campaign"] = self._campaign
        if not with_links:
            return given
        links = self._links(message, made_at)
        given["unsubscribe_url"] = links.unsubscribe()
        if self._names_preferences:
            given["preferences_url"] = links.preferences()
        if message.kind is Kind.CONFIRMATION:
            given["confirm_url"] = links.confirm()
        if self._clicks:
            given["links"] = [links.click(url, position=position) for url, position in self._clicks]
        if self._has_pixel:
            given["open_url"] = links.open()
        return given

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
        # What else the message gives is known only with the message: then a strict one misses what it lacks.
        return compile_template(
            content.subject, html, text, variables=("links", "open_url"), language=content.locale
        ).with_strictness(strict=content.strict)

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


@lru_cache(maxsize=8)
def _date(second: int) -> bytes:
    return b"Date: " + format_datetime(datetime.fromtimestamp(second, UTC)).encode("ascii") + b"\r\n"
