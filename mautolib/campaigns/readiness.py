"""Whether a campaign can be sent: every problem at once, each with what to do about it.

Promise: what passes here renders for everybody; a template fault, a missing setting or something this version
cannot do is said before launch, never found while sending. Callers: launch, planning of scheduled campaigns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from mautolib import segments
from mautolib.campaigns.experiment_contents import armed_of, with_variant
from mautolib.campaigns.limits import default_zone, window_for
from mautolib.campaigns.model import Campaign, Problem
from mautolib.campaigns.senders import may_send_from, setting_problems
from mautolib.campaigns.windows import next_opening
from mautolib.channels.registry import open_channel
from mautolib.channels.wire import is_loopback, wire_address
from mautolib.contacts.address import is_address
from mautolib.errors import InvalidInput, Misconfigured, NotFound, ProviderRejected
from mautolib.events.links import is_web_url
from mautolib.settings import Settings, variable
from mautolib.templates import catalogue
from mautolib.templates.checks import CLIP_BYTES
from mautolib.templates.compile import SENDING_NAMES, CompiledTemplate, compile_template
from mautolib.templates.language import is_tag
from mautolib.templates.links import add_preheader, find_links

#: What a tracked link is longer than its target, and what pixel, footer and preheader take, in bytes.
_LINK_GROWS: Final = 140
_FOOTER: Final = 1_500
#: Names a template may use elsewhere, but a campaign does not give.
_NOT_GIVEN: Final = ("event", "confirm_url")


@dataclass(frozen=True, kw_only=True)
class Text:
    """What a campaign says in one language: its own words, else those of its template.

    Args:
        locale: the tag it was written for; "": the default content.
    """

    subject: str
    html_body: str
    text_body: str
    preheader: str = ""
    locale: str = ""
    template_id: int | None = None
    template_version: int | None = None
    template_name: str = ""
    strict: bool = False
    variables: tuple[str, ...] = ()


def text_of(tx: Connection, campaign: Campaign, locale: str = "") -> Text:
    """The subject and bodies of a campaign; own ones win over those of the template.

    Args:
        locale: a key of `campaign.locales`; "": the default content.
    Raises:
        NotFound: its template is gone.
    """
    own: Mapping[str, str] = campaign.locales[locale] if locale else dataclasses.asdict(campaign)
    text = Text(
        subject=own.get("subject") or "", html_body=own.get("html_body") or "", text_body=own.get("text_body") or "",
        preheader=own.get("preheader") or "", locale=locale,
    )  # fmt: skip
    if campaign.template_id is None:
        return text
    template = catalogue.get(tx, campaign.template_id)
    if not locale:
        text = dataclasses.replace(text, subject=text.subject.strip() or template.subject)
    if not locale and not (text.html_body.strip() or text.text_body.strip()):
        text = dataclasses.replace(text, html_body=template.html_body, text_body=template.text_body)
    return dataclasses.replace(
        text,
        template_id=template.template_id,
        template_version=template.version,
        template_name=template.name,
        strict=template.strict,
        variables=template.variables,
    )


def texts_of(tx: Connection, campaign: Campaign) -> list[Text]:
    """The default content, then that of every language.

    Raises:
        NotFound: its template is gone.
    """
    return [text_of(tx, campaign, locale) for locale in ("", *campaign.locales)]


def problems(tx: Connection, settings: Settings, campaign: Campaign) -> list[Problem]:
    """Everything that keeps `campaign` from being sent; empty: it can go."""
    return [
        *content_problems(tx, settings, campaign),
        *_variant_problems(tx, campaign),
        *_segment_problems(tx, settings, campaign),
        *_window_problems(settings, campaign),
    ]


def content_problems(tx: Connection, settings: Settings, campaign: Campaign) -> list[Problem]:
    """Everything that keeps a mail of `campaign` from being written, whoever it goes to."""
    return [
        *_text_problems(tx, campaign),
        *sender_problems(settings, from_email=campaign.from_email, reply_to=campaign.reply_to),
        *_setting_problems(settings),
        *_channel_problems(settings),
    ]


def refuse(found: Sequence[Problem], *, code: str = "not_sendable") -> None:
    """Raise every problem at once; returns if there is none."""
    if found:
        raise InvalidInput(
            "The campaign cannot be sent: " + "; ".join(problem.message for problem in found),
            code=code,
            problems=tuple((problem.path, problem.message) for problem in found),
        )


def _text_problems(tx: Connection, campaign: Campaign) -> Iterator[Problem]:
    try:
        texts = texts_of(tx, campaign)
    except NotFound as error:
        yield Problem(path=("template_id",), message=str(error))
        return
    yield from _tag_problems(campaign)
    for text in texts:
        yield from _problems_of(text)


def _variant_problems(tx: Connection, campaign: Campaign) -> Iterator[Problem]:
    """What is wrong with the variants of the A/B test it takes part in, as far as the campaign itself is not so."""
    tested = armed_of(tx, campaign.campaign_id)
    if tested is None:
        return
    said = {problem.message for problem in _text_problems(tx, campaign)}
    for number, variant in enumerate(tested.variants):
        for problem in _text_problems(tx, with_variant(campaign, variant)):
            if problem.message not in said:
                where = ("variants", number, *problem.path)
                yield Problem(path=where, message=f"Variant '{variant.name}': {problem.message}")


def _tag_problems(campaign: Campaign) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for tag in campaign.locales:
        if not is_tag(tag):
            yield Problem(path=("locales", tag), message=f"'{tag}' is no language tag such as de or pt-BR")
        elif tag.lower() in seen:
            yield Problem(path=("locales", tag), message=f"'{tag}' and '{seen[tag.lower()]}' are the same language")
        seen.setdefault(tag.lower(), tag)


def _problems_of(text: Text) -> Iterator[Problem]:
    """What is wrong with one content; for a language the path begins with `locales` and its tag."""
    where = ("locales", text.locale) if text.locale else ()
    who = f"The content for '{text.locale}'" if text.locale else "The campaign"
    if not text.subject.strip():
        yield Problem(path=(*where, "subject"), message=f"{who} has no subject")
    if not text.html_body.strip():
        more = "" if text.locale else " and no template that brings one"
        yield Problem(path=(*where, "html_body"), message=f"{who} has no HTML body{more}")
        return
    compiled = compiled_text(text)
    for found in compiled.problems:
        if text.strict and found.message.startswith("Undefined variable: "):
            continue  # said below, with its template
        part = ".".join((*where, found.part))
        yield Problem(path=(*where, found.part, found.line), message=f"{found.message} ({part}, line {found.line})")
    yield from _unknown_names(compiled, text, where)


def compiled_text(text: Text) -> CompiledTemplate:
    """A content as it will be filled in, before links and footer.

    What a template declares beside the names of sending stays empty in a campaign; a strict one cannot be sent so.
    """
    html = add_preheader(text.html_body, text.preheader)
    declared = () if text.strict else text.variables
    return compile_template(
        text.subject, html, text.text_body, strict=text.strict, variables=declared, language=text.locale
    )


def warnings_of(text: Text) -> list[str]:
    """What can be sent but will not be shown as meant: scripts, more HTML than Gmail shows."""
    where = f"locales.{text.locale}: " if text.locale else ""
    compiled = compiled_text(text)
    found = list(compiled.warnings)
    given = {name.split(".")[0] for name in compiled.variables} & set(text.variables)
    found += [f"Undefined variable: {name}; a campaign does not give it" for name in sorted(given - {*SENDING_NAMES})]
    size = len(text.html_body.encode("utf-8", "replace"))
    grown = size + sum(len(link.url) // 2 + _LINK_GROWS for link in find_links(text.html_body) if is_web_url(link.url))
    if size <= CLIP_BYTES < grown + _FOOTER:
        found.append("With tracked links and footer the HTML is larger than 102 KB: Gmail cuts it off")
    return [f"{where}{warning}" for warning in found]


def _unknown_names(compiled: CompiledTemplate, text: Text, where: tuple[str, ...]) -> Iterator[Problem]:
    unknown = {*compiled.undeclared, *(name for name in compiled.variables if name.split(".")[0] in _NOT_GIVEN)}
    lines = {
        found.message: (found.part, f" line {found.line}") for found in compiled.problems
        if found.message.startswith("Undefined variable: ")
    }  # fmt: skip
    for name in sorted(unknown):
        said = f"Undefined variable: {name}"
        part, line = lines.get(said, ("html_body", ""))
        about = [f"template '{text.template_name}'"] if text.template_name else []
        about += [f"locale {text.locale}" if text.locale else "default content", part + line] if line else []
        message = f"{said}; a campaign does not give it" + (f" ({', '.join(about)})" if about else "")
        yield Problem(path=(*where, part), message=message)


def sender_problems(settings: Settings, *, from_email: str, reply_to: str) -> Iterator[Problem]:
    """What is wrong with the addresses a mail would be sent from."""
    for name, address in (("from_email", from_email), ("reply_to", reply_to)):
        if address and not _can_send(address):
            yield Problem(path=(name,), message=f"{name} is not an address mail can be sent from")
    if not may_send_from(settings, from_email or settings.default_from_email):
        yield Problem(path=("from_email",), message=f"from_email must be of a domain in {variable('sender_domains')}: "
                      f"{', '.join(settings.sender_domains)}")  # fmt: skip
    if from_email:
        return
    setting = variable("default_from_email")
    if not settings.default_from_email:
        yield Problem(path=("from_email",), message=f"The mail has no sender; set from_email or {setting}")
    elif not _can_send(settings.default_from_email):
        yield Problem(path=("from_email",), message=f"{setting} is not an address mail can be sent from")


def _can_send(address: str) -> bool:
    try:
        wire_address(address)
    except ProviderRejected:
        return False
    return is_address(address)


def _setting_problems(settings: Settings) -> Iterator[Problem]:
    for name, message in setting_problems(settings):
        yield Problem(path=("settings", name), message=message)
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


def _channel_problems(settings: Settings) -> Iterator[Problem]:
    """Nothing is connected here: what the way out lacks in settings, not whether somebody answers."""
    try:
        open_channel(settings)
    except Misconfigured as error:
        yield Problem(path=("settings", "channel"), message=str(error))


def _segment_problems(tx: Connection, settings: Settings, campaign: Campaign) -> Iterator[Problem]:
    if campaign.segment_id is None:
        return
    try:
        # Whether it can be evaluated does not depend on the moment.
        segments.audience(tx, settings, campaign.segment_id, now=campaign.created_at)
    except (NotFound, InvalidInput) as error:
        yield Problem(path=("segment_id",), message=str(error))


def _window_problems(settings: Settings, campaign: Campaign) -> Iterator[Problem]:
    """A window that never opens would keep every message back until it expires."""
    given = campaign.send_window
    if bool(given.get("quiet_start")) != bool(given.get("quiet_end")):
        yield Problem(path=("send_window", "quiet_end"), message="Quiet hours have a start and an end")
        return
    if given.get("quiet_start") and given["quiet_start"] == given["quiet_end"]:
        yield Problem(path=("send_window", "quiet_end"), message="Quiet hours begin and end at the same time")
        return
    # Whether it opens within a week does not depend on the week.
    if next_opening(window_for(settings, campaign), default_zone(settings), campaign.created_at) is None:
        yield Problem(path=("send_window",), message="The window never opens: it has no weekday, no time between start "
                      "and end, or quiet hours all the time")  # fmt: skip
