"""Whether a campaign can be sent: every problem at once, each with what to do about it.

Promise: what passes here renders for everybody; a template fault, a missing setting or something this version
cannot do is said before launch, never found while sending. Callers: launch, planning of scheduled campaigns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from mautolib import segments
from mautolib.campaigns.model import Campaign, Problem
from mautolib.channels.wire import is_loopback, wire_address
from mautolib.contacts.address import is_address
from mautolib.errors import InvalidInput, NotFound, ProviderRejected
from mautolib.settings import Settings, variable
from mautolib.templates import catalogue
from mautolib.templates.compile import CompiledTemplate, compile_template
from mautolib.templates.links import add_preheader

#: Names a template may use elsewhere, but a campaign does not give.
_NOT_GIVEN: Final = ("event", "confirm_url")


@dataclass(frozen=True, kw_only=True)
class Text:
    """What a campaign says: its own words, else those of its template."""

    subject: str
    html_body: str
    text_body: str
    template_id: int | None = None
    template_version: int | None = None
    strict: bool = False
    variables: tuple[str, ...] = ()


def text_of(tx: Connection, campaign: Campaign) -> Text:
    """The subject and bodies of a campaign; own ones win over those of the template.

    Raises:
        NotFound: its template is gone.
    """
    if campaign.template_id is None:
        return Text(subject=campaign.subject, html_body=campaign.html_body, text_body=campaign.text_body)
    template = catalogue.get(tx, campaign.template_id)
    has_own_body = bool(campaign.html_body.strip() or campaign.text_body.strip())
    return Text(
        subject=campaign.subject.strip() or template.subject,
        html_body=campaign.html_body if has_own_body else template.html_body,
        text_body=campaign.text_body if has_own_body else template.text_body,
        template_id=template.template_id,
        template_version=template.version,
        strict=template.strict,
        variables=template.variables,
    )


def problems(tx: Connection, settings: Settings, campaign: Campaign) -> list[Problem]:
    """Everything that keeps `campaign` from being sent; empty: it can go."""
    return [
        *_text_problems(tx, campaign),
        *_sender_problems(settings, campaign),
        *_setting_problems(settings),
        *_segment_problems(tx, settings, campaign),
        *_beyond_this_version(campaign),
    ]


def _text_problems(tx: Connection, campaign: Campaign) -> Iterator[Problem]:
    try:
        text = text_of(tx, campaign)
    except NotFound as error:
        yield Problem(path=("template_id",), message=str(error))
        return
    if not text.subject.strip():
        yield Problem(path=("subject",), message="The campaign has no subject")
    if not text.html_body.strip():
        yield Problem(path=("html_body",), message="The campaign has no HTML body and no template that brings one")
        return
    html = add_preheader(text.html_body, campaign.preheader)
    compiled = compile_template(text.subject, html, text.text_body, strict=text.strict, variables=text.variables)
    for found in compiled.problems:
        yield Problem(path=(found.part, found.line), message=f"{found.message} ({found.part}, line {found.line})")
    yield from _unknown_names(compiled)


def _unknown_names(compiled: CompiledTemplate) -> Iterator[Problem]:
    unknown = {*compiled.undeclared, *(name for name in compiled.variables if name.split(".")[0] in _NOT_GIVEN)}
    for name in sorted(unknown):
        yield Problem(path=("html_body",), message=f"Undefined variable: {name}; a campaign does not give it")


def _sender_problems(settings: Settings, campaign: Campaign) -> Iterator[Problem]:
    for name, address in (("from_email", campaign.from_email), ("reply_to", campaign.reply_to)):
        if address and not _can_send(address):
            yield Problem(path=(name,), message=f"{name} is not an address mail can be sent from")
    if campaign.from_email:
        return
    setting = variable("default_from_email")
    if not settings.default_from_email:
        yield Problem(path=("from_email",), message=f"The campaign has no sender; set from_email or {setting}")
    elif not _can_send(settings.default_from_email):
        yield Problem(path=("from_email",), message=f"{setting} is not an address mail can be sent from")


def _can_send(address: str) -> bool:
    try:
        wire_address(address)
    except ProviderRejected:
        return False
    return is_address(address)


def _setting_problems(settings: Settings) -> Iterator[Problem]:
    if not settings.postal_address.strip():
        yield Problem(path=("settings", "postal_address"), message=f"{variable('postal_address')} is not set; every "
                      "marketing mail shows the sender's postal address")  # fmt: skip
    scheme, _, rest = settings.public_base_url.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    is_here = settings.environment == "development" and is_loopback(name)
    if not host or not (scheme == "https" or (scheme == "http" and is_here)):
        yield Problem(path=("settings", "public_base_url"), message=f"{variable('public_base_url')} must be an https "
                      "address: it makes the links and the unsubscribe header of every mail (RFC 8058)")  # fmt: skip


def _segment_problems(tx: Connection, settings: Settings, campaign: Campaign) -> Iterator[Problem]:
    if campaign.segment_id is None:
        return
    try:
        # Whether it can be evaluated does not depend on the moment.
        segments.audience(tx, settings, campaign.segment_id, now=campaign.created_at)
    except (NotFound, InvalidInput) as error:
        yield Problem(path=("segment_id",), message=str(error))


def _beyond_this_version(campaign: Campaign) -> Iterator[Problem]:
    """What can be stored but not honoured yet must not be sent as if it were not there."""
    for name in ("locales", "send_window", "max_per_hour", "max_per_day", "domain_limits"):
        if getattr(campaign, name):
            yield Problem(path=(name,), message=f"{name} is not supported yet; leave it empty")
