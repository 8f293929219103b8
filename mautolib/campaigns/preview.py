"""Looking before sending: how many would get a campaign, why others would not, and what one person would read.

Promise: nothing changes and no link in what is shown works for anybody; the audience is the query planning freezes,
what is rendered goes through the process with limits, and what is wrong is what launch would refuse. Called by the API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, Integer, func, literal_column, select, tuple_

from mautolib.campaigns import store
from mautolib.campaigns.audience import audience
from mautolib.campaigns.experiment_assignment import Slices
from mautolib.campaigns.experiment_contents import slices_of, variant_of, with_variant
from mautolib.campaigns.model import Campaign, Problem
from mautolib.campaigns.planning import content_of
from mautolib.campaigns.readiness import Text, content_problems, problems, warnings_of
from mautolib.campaigns.single import contact_values, nobody, text_for
from mautolib.errors import InvalidInput, NotFound
from mautolib.ledger.model import NewContent
from mautolib.segments.reading import reading
from mautolib.settings import Settings
from mautolib.templates.language import with_language
from mautolib.templates.links import add_preheader, ensure_footer
from mautolib.templates.render import render_limited

#: Domains shown one by one; the rest is summed up under `REST`.
DOMAINS: Final = 20
REST: Final = "*"
#: Key of the default content in `by_locale`.
DEFAULT: Final = "default"
#: A million contacts are counted in about two seconds.
COUNT_TIMEOUT_MS: Final = 20_000
_MARK: Final = "{{ unsubscribe_url }}"
_ATOMS: Final = re.compile(r"[\w !#$%&'*+/=?^`{|}~-]*")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The audience a campaign would have now; languages and domains are those of the people who would be mailed."""

    candidates: int = 0
    mailable: int = 0
    excluded: Mapping[str, int] = field(default_factory=dict)
    by_locale: Mapping[str, int] = field(default_factory=dict)
    by_domain: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What one person would read, links as written."""

    subject: str
    preheader: str
    html_body: str
    text_body: str
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A campaign before it is sent; `rendered` is None where it cannot be written."""

    counts: Counts
    rendered: Shown | None
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]


def preview(
    engine: Engine, settings: Settings, campaign_id: int, *, now: datetime, contact_id: int | None = None,
    locale: str | None = None, variant_id: int | None = None,
) -> Preview:  # fmt: skip
    """What sending `campaign_id` now would do.

    Args:
        contact_id: whose mail to show; None: that of somebody without any data.
        locale: the language to show instead of that person's.
        variant_id: the variant of one of its A/B tests to show; None: the campaign's own words.
    Raises:
        NotFound: there is no such campaign.
        InvalidInput: no such contact or variant, no language tag, or a segment that takes too long to evaluate.
    """
    with engine.begin() as tx:
        campaign = store.get(tx, campaign_id)
        found = problems(tx, settings, campaign)
        person = nobody() if contact_id is None else contact_values(tx, contact_id)
        if person is None:
            raise InvalidInput("Contact not found", path=("query", "contact_id"))
        slices = slices_of(tx, campaign_id)
        spoken = campaign
        if variant_id is not None:
            spoken = with_variant(campaign, variant_of(tx, campaign_id, variant_id))
            found += [each for each in content_problems(tx, settings, spoken) if each not in found]
        text = _text(tx, spoken, person, locale)
    with reading(engine, timeout_ms=COUNT_TIMEOUT_MS, path=("path", "id")) as tx:
        counts = count(tx, settings, campaign, now=now, slices=slices)
    warnings = [] if text is None else warnings_of(text)
    if not counts.mailable:
        warnings.append("Nobody would get this campaign as things stand")
    rendered = None
    if text is not None:
        try:
            rendered, more = _rendered(settings, campaign, text, person, now)
            warnings += [warning for warning in more if warning not in warnings]
        except InvalidInput as error:
            if not found:
                found = [Problem(path=("html_body",), message=str(error))]
    return Preview(counts=counts, rendered=rendered, problems=tuple(found), warnings=tuple(warnings))


def count(
    tx: Connection, settings: Settings, campaign: Campaign, *, now: datetime, slices: Slices | None = None
) -> Counts:
    """The audience by what would become of it, in one statement; nobody where the segment cannot be evaluated.

    Args:
        slices: of the A/B test the campaign takes part in.
    """
    tags = ("", *campaign.locales)
    numbers = {tag: number for number, tag in enumerate(tags)}
    try:
        query = audience(tx, settings, campaign, content_ids=numbers, now=now, slices=slices)
    except (NotFound, InvalidInput):
        return Counts()
    domain = func.split_part(literal_column("contact_mailability.email_key"), "@", 2)
    people = query.add_columns(domain.label("domain")).subquery("people").c
    grouped = (
        select(
            people.reason, people.content_id, people.domain,
            func.grouping(people.domain, type_=Integer).label("is_rest"), func.count().label("people"),
            func.count().filter(people.reason.is_(None)).label("mailable"),
        ).group_by(func.grouping_sets(tuple_(people.reason, people.content_id), tuple_(people.domain)))
    ).subquery("grouped").c  # fmt: skip
    rank = func.row_number().over(partition_by=grouped.is_rest, order_by=(grouped.mailable.desc(), grouped.domain))
    ranked = select(*grouped, rank.label("rank")).subquery("ranked")
    rows = tx.execute(
        select(ranked).where((ranked.c.is_rest == 1) | (ranked.c.rank <= DOMAINS)).order_by(ranked.c.rank)
    ).all()
    return _counts([row for row in rows if row.is_rest], [row for row in rows if not row.is_rest], tags)


def _counts(kinds: list[Any], domains: list[Any], tags: tuple[str, ...]) -> Counts:
    excluded: dict[str, int] = {}
    by_locale: dict[str, int] = {}
    for row in kinds:
        if row.reason is None:
            by_locale[tags[row.content_id] or DEFAULT] = row.people
        else:
            excluded[row.reason] = excluded.get(row.reason, 0) + row.people
    mailable = sum(by_locale.values())
    by_domain = {row.domain: row.mailable for row in domains if row.mailable}
    rest = mailable - sum(by_domain.values())
    return Counts(
        candidates=mailable + sum(excluded.values()), mailable=mailable, excluded=excluded, by_locale=by_locale,
        by_domain={**by_domain, **({REST: rest} if rest else {})},
    )  # fmt: skip


def _text(tx: Connection, campaign: Campaign, person: Mapping[str, Any], locale: str | None) -> Text | None:
    try:
        return text_for(tx, campaign, person, locale)
    except NotFound:
        return None  # Its template is gone: one of the problems.
    except InvalidInput as error:
        raise InvalidInput(str(error), path=("query", "locale")) from None


def _rendered(
    settings: Settings, campaign: Campaign, text: Text, person: Mapping[str, Any], now: datetime
) -> tuple[Shown, tuple[str, ...]]:
    content = content_of(settings, campaign, text, 1)
    # Unsigned: whoever opens it sees a page that changes nothing.
    pages = f"{settings.public_base_url}/api/v1/track"
    links = {f"{name}_url": f"{pages}/{name}/preview/preview" for name in ("unsubscribe", "preferences")}
    names = {
        "contact": dict(person), "campaign": {"id": str(campaign.campaign_id), "name": campaign.name}, "now": now,
        **links,
    }  # fmt: skip
    html, words = ensure_footer(
        content.html_body, content.text_body, _MARK, settings.postal_address, content.locale or "en"
    )
    made = render_limited(
        content.subject, with_language(add_preheader(html, content.preheader), content.locale), words, names,
        strict=content.strict, language=content.locale,
    )  # fmt: skip
    line = render_limited(content.preheader, "<p></p>", "", names, language=content.locale).rendered.subject
    shown = Shown(
        subject=made.rendered.subject, preheader=line, html_body=made.rendered.html, text_body=made.rendered.text,
        headers=_headers(content, person, made.rendered.subject, links["unsubscribe_url"]),
    )  # fmt: skip
    return shown, made.warnings


def _headers(content: NewContent, person: Mapping[str, Any], subject: str, unsubscribe: str) -> dict[str, str]:
    """The headers a person may read, as text: encoded for mail only when it is sent."""
    sender = f"{_phrase(content.from_name)} <{content.from_email}>" if content.from_name else content.from_email
    headers = {"From": sender, "To": str(person["email"]), "Subject": subject}
    if content.reply_to:
        headers["Reply-To"] = content.reply_to
    return {
        **headers, "List-Unsubscribe": f"<{unsubscribe}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }  # fmt: skip


def _phrase(name: str) -> str:
    if _ATOMS.fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
