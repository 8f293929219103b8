"""Campaigns before and after sending: test mails, preview, who got what and why, sending again, copying."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Response
from pydantic import ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import Outcome
from api.routes.campaigns import MISSING, WholeCampaign, locked, outcome_of
from api.routes.messages import ShownMessage, shown
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Int32, Line64, Line320, Model, Name300, OptionalId, Shown, parse_id, path_id
from mautolib.auth.roles import Role
from mautolib.campaigns import explaining, preview, retrying, single, store
from mautolib.campaigns.explaining import Outcome as Fate
from mautolib.campaigns.retrying import RETRYABLE
from mautolib.errors import InvalidInput
from mautolib.ledger import reading
from mautolib.ledger.model import Kind, Status

router = Router("Campaigns")
NO_CONTACT = "Contact not found"
EITHER_MISSING = "Campaign not found, or Contact not found"
_NO_VARIANT = "Variant not found"
_TEST_EXAMPLE: dict[str, JsonValue] = {"addresses": ["editor@shop.example"], "locale": "de"}


class TestBody(Model):
    """Where to send a test, and as whom."""

    model_config = ConfigDict(title="CampaignTest", json_schema_extra={"example": _TEST_EXAMPLE})

    addresses: list[Line320] = Field(min_length=1, max_length=10)
    contact_id: OptionalId = Field(default=None, description="Whose data fills it; none: names stay empty.")
    locale: Line64 | None = Field(default=None, description="The content of this language (BCP 47).")
    variant_id: OptionalId = Field(
        default=None, description="A variant of one of its A/B tests; none: the campaign's own words."
    )


class TestQueued(Answer):
    """The tests wait for the senders."""

    model_config = ConfigDict(title="CampaignTestQueued")

    message: str = Field(examples=["1 test mails queued"])
    message_ids: list[Id]


class ShownAudience(Answer):
    """Who would get the campaign now."""

    model_config = ConfigDict(title="CampaignAudience")

    candidates: int
    mailable: int
    excluded: dict[str, int] = Field(description="Who would get nothing, by reason.", examples=[{"unsubscribed": 3}])
    by_locale: dict[str, int] = Field(
        description="Mailable people by the content they get; `default` is the campaign's own.", examples=[{"de": 40}]
    )
    by_domain: dict[str, int] = Field(
        description="Mailable people of the 20 largest domains; `*`: all others.", examples=[{"gmail.com": 25}]
    )


class ShownMail(Answer):
    """What one person would read. Links are as written: they are signed when the mail is sent."""

    model_config = ConfigDict(title="RenderedMail")

    subject: str
    preheader: str
    html_body: str
    text_body: str
    headers: dict[str, str] = Field(examples=[{"Subject": "Hello Ana"}])


class PreviewProblem(Answer):
    """One thing that keeps the campaign from being sent."""

    path: list[str | int] = Field(examples=[["html_body"]])
    message: str


class ShownPreview(Answer):
    """A campaign before it is sent."""

    model_config = ConfigDict(title="CampaignPreview")

    campaign_id: Id
    as_of: Shown
    audience: ShownAudience
    rendered: ShownMail | None
    problems: list[PreviewProblem]
    warnings: list[str]


class ShownCheck(Answer):
    """One question that decides about a message."""

    model_config = ConfigDict(title="CampaignCheck")

    check: str = Field(examples=["mailable"])
    passed: bool
    detail: str


class ShownFate(Answer):
    """What becomes of one contact in the campaign, and why."""

    model_config = ConfigDict(title="CampaignExplanation")

    contact_id: Id
    outcome: Literal["will_send", "queued", "handed_over", "skipped", "not_in_audience"]
    reason: str
    checks: list[ShownCheck]
    message: ShownMessage | None


class RetryBody(Model):
    """Which messages to send again."""

    model_config = ConfigDict(title="CampaignRetry", json_schema_extra={"example": {"statuses": ["failed"]}})

    statuses: list[Annotated[Status, Field(strict=False)]] = Field(
        default=[Status.FAILED], min_length=1, max_length=2, description="failed, unknown.",
        json_schema_extra={"items": {"enum": [status.value for status in RETRYABLE]}},
    )  # fmt: skip
    confirm_duplicates: bool = Field(default=False, description="Needed for unknown: somebody may get the mail twice.")


class Requeued(Answer):
    """How many messages go out again."""

    model_config = ConfigDict(title="CampaignRequeued")

    message: str = Field(examples=["2 messages queued again"])
    requeued: int


class CloneBody(Model):
    """What the copy is called."""

    model_config = ConfigDict(title="CampaignClone", json_schema_extra={"example": {"name": "Summer newsletter"}})

    name: Name300 | None = None


@router.post(
    "/campaigns/{id}/test", status_code=202, response_model=TestQueued,
    responses=problems(401, 403, 412, s404=MISSING, s409="An address is suppressed as complaint or compliance",
                       s422="`not_sendable`, with every problem, or a value that is not acceptable"),
)  # fmt: skip
@allow(Role.EDITOR, action="campaign.test")
async def test_campaign(call: CurrentCall, id: str, body: TestBody) -> Response:
    """Send a test of a campaign.

    The campaign as it is now, in any state, to addresses of the team. Tests count in no total; the unsubscribe link
    of a test changes nothing for the contact whose data is shown.
    """
    contact_id = None if body.contact_id is None else _reference(body.contact_id, "body")
    variant_id = _variant(body.variant_id, "body")

    def effect(tx: Connection) -> Outcome:
        campaign = locked(call, tx, id)
        try:
            made = single.send_test(
                tx, call.settings, campaign, body.addresses, now=call.now, contact_id=contact_id, locale=body.locale,
                variant_id=variant_id,
            )  # fmt: skip
        except InvalidInput as error:
            if error.path in (("locale",), ("variant_id",)):
                raise InvalidInput(str(error), path=("body", *error.path)) from None
            raise
        answer = TestQueued(message=f"{len(made)} test mails queued", message_ids=[str(number) for number in made])
        changes = {"message_ids": answer.message_ids}
        return Outcome(status=202, body=answer, resource_id=campaign.campaign_id, changes=changes)

    return await call.commit(effect)


@router.get(
    "/campaigns/{id}/preview", response_model=ShownPreview, responses=problems(401, 422, s404=MISSING)
)  # fmt: skip
@allow(Role.VIEWER)
def preview_campaign(
    call: CurrentCall, id: str,
    contact_id: Annotated[str | None, Query(description="Whose mail to show; none: nobody's.")] = None,
    locale: Annotated[str | None, Query(description="The language to show (BCP 47).")] = None,
    variant_id: Annotated[str | None, Query(description="A variant of one of its A/B tests.")] = None,
) -> ShownPreview:  # fmt: skip
    """Preview a campaign.

    Counts the audience as launching it now would freeze it, and renders one mail. It has no effect. HTML is shown as
    data: put it into a sandboxed frame without scripts.
    """
    campaign_id = path_id(id, MISSING)
    contact = None if contact_id is None else _reference(contact_id, "query")
    variant = _variant(variant_id, "query")
    try:
        found = preview.preview(
            call.engine, call.settings, campaign_id, now=call.now, contact_id=contact, locale=locale, variant_id=variant
        )
    except InvalidInput as error:
        if error.path == ("variant_id",):
            raise InvalidInput(str(error), path=("query", "variant_id")) from None
        raise
    return ShownPreview(
        campaign_id=str(campaign_id), as_of=call.now, audience=ShownAudience.model_validate(found.counts),
        rendered=None if found.rendered is None else ShownMail.model_validate(found.rendered),
        problems=[PreviewProblem(path=list(problem.path), message=problem.message) for problem in found.problems],
        warnings=list(found.warnings),
    )  # fmt: skip


@router.get(
    "/campaigns/{id}/messages", response_model=list[ShownMessage], responses=listed(problems(401, 422, s404=MISSING))
)  # fmt: skip
@allow(Role.VIEWER)
def list_campaign_messages(
    call: CurrentCall, id: str, page: paging.SkipLimit,
    status: Annotated[Status | None, Query(description="Only in this state.")] = None,
    reason: Annotated[str | None, Query(max_length=100, description="Only with this reason.")] = None,
    variant_id: Annotated[str | None, Query(description="Only of this variant.")] = None,
    occurrence: Annotated[Int32 | None, Query(description="Only of this run.")] = None,
    contact_id: Annotated[str | None, Query(description="Only to this contact.")] = None,
) -> Response:  # fmt: skip
    """List the messages of a campaign.

    Newest first, one for each person of the audience and run, those that were skipped too; test mails are not among
    them. An unknown contact or variant has none.
    """
    campaign_id, before = path_id(id, MISSING), paging.position_id(page)
    wanted = reading.MessageFilter(
        campaign_id=campaign_id, kind=Kind.CAMPAIGN, status=status, reason=reason, occurrence=occurrence,
        variant_id=_filtered(variant_id), contact_id=_filtered(contact_id),
    )  # fmt: skip
    with call.engine.begin() as tx:
        store.get(tx, campaign_id)
        rows = reading.messages(tx, wanted, skip=page.skip, limit=page.limit + 1, before=before)
        total = reading.count_messages(tx, wanted, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].message_id,) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.get(
    "/campaigns/{id}/explain", response_model=ShownFate, responses=problems(401, 422, s404=EITHER_MISSING)
)  # fmt: skip
@allow(Role.VIEWER)
def explain_campaign(
    call: CurrentCall, id: str, contact_id: Annotated[str, Query(description="Whom to explain.")]
) -> ShownFate:
    """Explain what becomes of a contact.

    Asks what planning and sending would ask at this moment, in their order. Where the ledger has a message, it speaks.
    """
    campaign, contact = path_id(id, MISSING), path_id(contact_id, NO_CONTACT)
    found = explaining.explain(call.engine, call.settings, campaign, contact, now=call.now)
    checks = [ShownCheck(check=item.check, passed=item.passed, detail=item.detail) for item in found.checks]
    return ShownFate(
        contact_id=str(contact), outcome=Fate(found.outcome).value, reason=found.reason, checks=checks,
        message=None if found.message is None else shown(found.message),
    )  # fmt: skip


@router.post(
    "/campaigns/{id}/retry", status_code=202, response_model=Requeued,
    responses=problems(401, 403, 412, s404=MISSING, s409="Its state forbids this",
                       s422="`unknown` without confirm_duplicates, or a value that is not acceptable"),
)  # fmt: skip
@allow(Role.EDITOR, action="campaign.retry")
async def retry_campaign(call: CurrentCall, id: str, body: RetryBody | None = None) -> Response:
    """Send messages again that failed or may not have arrived.

    From sending, paused and sent; a sent campaign is sending again. Messages in doubt (`unknown`) may have arrived:
    they need `confirm_duplicates`.
    """
    wanted = body or RetryBody()
    for number, status in enumerate(wanted.statuses):
        if status not in RETRYABLE:
            raise InvalidInput("Only failed and unknown can be sent again", path=("body", "statuses", number))

    def effect(tx: Connection) -> Outcome:
        campaign = locked(call, tx, id)
        requeued = retrying.retry(
            tx, campaign.campaign_id, wanted.statuses, now=call.now, confirm_duplicates=wanted.confirm_duplicates
        )
        answer = Requeued(message=f"{requeued} messages queued again", requeued=requeued)
        changes = {"statuses": [status.value for status in wanted.statuses], "requeued": requeued}
        return Outcome(status=202, body=answer, resource_id=campaign.campaign_id, changes=changes)

    return await call.commit(effect)


@router.post(
    "/campaigns/{id}/clone", status_code=201, response_model=WholeCampaign,
    responses=problems(401, 403, 412, 422, s404=MISSING),
)  # fmt: skip
@allow(Role.EDITOR, action="campaign.clone")
async def clone_campaign(call: CurrentCall, id: str, body: CloneBody | None = None) -> Response:
    """Copy a campaign.

    Content and settings of any campaign make a new draft, without its date, schedule and figures.
    """
    name = body.name if body is not None else None

    def effect(tx: Connection) -> Outcome:
        campaign = locked(call, tx, id)
        made = store.clone(tx, campaign.campaign_id, actor=str(call.actor), now=call.now, name=name)
        return outcome_of(tx, made, status=201, changes={"cloned_from": str(campaign.campaign_id)})

    return await call.commit(effect)


def _reference(given: str, where: str) -> int:
    number = parse_id(given)
    if number is None:
        raise InvalidInput(NO_CONTACT, path=(where, "contact_id"))
    return number


def _variant(given: str | None, where: str) -> int | None:
    number = None if given is None else parse_id(given)
    if given is not None and number is None:
        raise InvalidInput(_NO_VARIANT, path=(where, "variant_id"))
    return number


def _filtered(given: str | None) -> int | None:
    """The id to filter by; one nothing can have matches nothing."""
    return None if given is None else parse_id(given) or -1
