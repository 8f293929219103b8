"""Campaigns: write a draft, send it, stop it, look at its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import Connection

from api import paging
from api.calls import JSON, MIB, Call, Outcome, json_bytes
from api.concurrency import check_if_match, etag
from api.errors import Refused, invalid
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import (
    Answer,
    BodyPart,
    Id,
    Int32,
    Line64,
    Line200,
    Line320,
    Line500,
    Model,
    Moment,
    Name300,
    OptionalId,
    Shown,
    parse_id,
    path_id,
)
from mautolib.auth.roles import Role
from mautolib.campaigns import editing, launch, store, totals
from mautolib.campaigns.languages import is_tag
from mautolib.campaigns.model import Campaign, NewCampaign, Status, Totals
from mautolib.contacts.address import domain_name
from mautolib.errors import DomainError, InvalidInput, InvalidTransition

router = Router("Campaigns")
MISSING = "Campaign not found"
LARGE = 4 * MIB
Limit = Annotated[int, Field(ge=0, le=2**31 - 1, description="0: no limit.")]

_EXAMPLE: dict[str, JsonValue] = {
    "name": "Spring newsletter", "subject": "Hello {{ contact.first_name }}",
    "html_body": '<p>Hello {{ contact.first_name }}</p><p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>',
}  # fmt: skip


class Utm(Model):
    """Parameters added to links that lack them."""

    source: Line200 = ""
    medium: Line200 = ""
    campaign: Line200 = ""
    term: Line200 = ""
    content: Line200 = ""


def _tag(value: str) -> str:
    if not is_tag(value):
        raise PydanticCustomError("language_tag", "This is no language tag such as de or pt-BR")
    return value


def _domain(value: str) -> str:
    name = value if value == "*" else domain_name(value)
    if name is None:
        raise PydanticCustomError("domain", "This is no domain such as shop.example, and not *")
    return name


class LocaleContent(Model):
    """What a campaign says in one language."""

    subject: Line500
    preheader: Line200 = ""
    html_body: BodyPart
    text_body: BodyPart = ""


class SendWindow(Model):
    """When mail may go out; hours are those of the campaign's zone, with `local_time` those of each recipient."""

    local_time: bool = Field(default=False, description="Send at the scheduled wall-clock time of each recipient.")
    start: str = Field(default="00:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    end: str = Field(default="24:00", pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$")
    weekdays: list[Annotated[int, Field(ge=1, le=7)]] = Field(
        default=[1, 2, 3, 4, 5, 6, 7], min_length=1, max_length=7, description="1 is Monday."
    )
    quiet_start: str | None = Field(default=None, pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    quiet_end: str | None = Field(default=None, pattern=r"^([01]\d|2[0-3]):[0-5]\d$")

    @model_validator(mode="after")
    def _opens(self) -> SendWindow:
        if self.start == self.end:
            raise PydanticCustomError("window", "start and end are the same: the window never opens")
        if (self.quiet_start is None) is not (self.quiet_end is None):
            raise PydanticCustomError("window", "quiet_start and quiet_end belong together")
        if self.quiet_start is not None and self.quiet_start == self.quiet_end:
            raise PydanticCustomError("window", "quiet_start and quiet_end are the same")
        if len(set(self.weekdays)) != len(self.weekdays):
            raise PydanticCustomError("window", "A weekday is named once")
        return self


Tag = Annotated[Line64, AfterValidator(_tag)]
Domain = Annotated[Line320, AfterValidator(_domain)]


class CampaignBody(Model):
    """What may be given for a campaign."""

    name: Name300
    subject: Line500
    preheader: Line200 = ""
    from_name: Line200 = ""
    from_email: Line320 = ""
    reply_to: Line320 = ""
    html_body: BodyPart = Field(default="", description="Sandboxed Jinja2; own bodies win over the template's.")
    text_body: BodyPart = Field(default="", description="Empty: made from the HTML.")
    template_id: OptionalId = None
    segment_id: OptionalId = Field(default=None, description="None: all contacts.")
    locales: dict[Tag, LocaleContent] = Field(
        default={}, max_length=100, description="Content by language tag (BCP 47); others get the default content."
    )
    track_opens: bool = True
    track_clicks: bool = True
    utm: Utm = Field(default=Utm())
    send_window: SendWindow = Field(default=SendWindow())
    max_per_hour: Limit = 0
    max_per_day: Limit = 0
    domain_limits: dict[Domain, Limit] = Field(
        default={}, max_length=1000, description="Messages an hour by recipient domain; `*`: any other domain."
    )
    expires_after_hours: Annotated[int, Field(ge=1, le=720)] = 24
    scheduled_at: Moment | None = Field(default=None, description="A note until the campaign is scheduled.")

    def given(self) -> dict[str, Any]:
        """The fields that were sent, as the library takes them."""
        values = self.model_dump(exclude_unset=True)
        for name in ("template_id", "segment_id"):
            if values.get(name) is not None:
                values[name] = _reference(name, values[name])
        seen: set[str] = set()
        for tag in values.get("locales", ()):
            if tag.lower() in seen:
                raise InvalidInput(f"'{tag}' is there twice", path=("body", "locales", tag))
            seen.add(tag.lower())
        return values


class NewCampaignBody(CampaignBody):
    """A new campaign; it begins as a draft."""

    model_config = ConfigDict(title="CampaignCreate", json_schema_extra={"example": _EXAMPLE})


class CampaignPatch(CampaignBody):
    """The fields to change; `status` does what the action of that state does."""

    model_config = ConfigDict(title="CampaignPatch", json_schema_extra={"example": {"subject": "Hello again"}})

    name: Name300 = ""
    subject: Line500 = ""
    status: Annotated[
        Status | None, Field(strict=False, description="draft, scheduled, paused, sending (resumes) or cancelled.")
    ] = None


class ShownCampaign(Answer):
    """A campaign with its figures. `total_recipients` is the sum over all states of its messages."""

    model_config = ConfigDict(title="Campaign")

    id: Id
    name: str
    subject: str
    preheader: str
    from_name: str
    from_email: str
    reply_to: str
    status: Status
    template_id: OptionalId
    segment_id: OptionalId
    locales: dict[str, Any]
    track_opens: bool
    track_clicks: bool
    utm: dict[str, Any]
    send_window: dict[str, Any]
    max_per_hour: Int32
    max_per_day: Int32
    domain_limits: dict[str, Any]
    expires_after_hours: Int32
    total_recipients: int
    total_sent: int
    total_opened: int = Field(description="People who opened.")
    total_clicked: int = Field(description="Clicks of people.")
    total_bounced: int
    total_unsubscribed: int
    total_complained: int
    total_skipped: int
    total_failed: int
    total_unknown: int
    in_flight: int
    scheduled_at: Shown | None
    schedule_id: OptionalId
    started_at: Shown | None
    sent_at: Shown | None
    status_reason: str | None
    version: int
    created_at: Shown
    updated_at: Shown | None


class WholeCampaign(ShownCampaign):
    """A campaign with its bodies."""

    model_config = ConfigDict(title="CampaignWithBodies")

    html_body: str
    text_body: str


class ScheduleCampaignBody(Model):
    """When to send it."""

    model_config = ConfigDict(
        title="CampaignSchedule",
        json_schema_extra={"example": {"send_at": "2030-01-07T08:00:00Z", "timezone_name": "Europe/Berlin"}},
    )

    send_at: Moment
    timezone_name: Line64 = "UTC"


class Queued(Answer):
    """The campaign waits for the senders."""

    message: Literal["Campaign queued for sending"] = "Campaign queued for sending"
    campaign_id: str


def _reference(name: str, given: str) -> int:
    number = parse_id(given)
    if number is None:
        raise InvalidInput(f"{name.removesuffix('_id').capitalize()} not found", path=("body", name))
    return number


def _values(campaign: Campaign, counted: Totals) -> dict[str, Any]:
    same = (
        "name", "subject", "preheader", "from_name", "from_email", "reply_to", "status", "track_opens", "track_clicks",
        "max_per_hour", "max_per_day", "expires_after_hours", "scheduled_at", "started_at", "sent_at",
        "status_reason", "version", "created_at", "updated_at",
    )  # fmt: skip
    dicts = {name: dict(getattr(campaign, name)) for name in ("locales", "utm", "send_window", "domain_limits")}
    ids = {name: _shown_id(getattr(campaign, name)) for name in ("template_id", "segment_id", "schedule_id")}
    return {
        "id": str(campaign.campaign_id), **{name: getattr(campaign, name) for name in same}, **dicts, **ids,
        "total_recipients": counted.recipients, "total_sent": counted.sent, "total_opened": counted.unique_opens,
        "total_clicked": counted.human_clicks, "total_bounced": counted.bounced,
        "total_unsubscribed": counted.unsubscribed, "total_complained": counted.complained,
        "total_skipped": counted.skipped, "total_failed": counted.failed, "total_unknown": counted.unknown,
        "in_flight": counted.in_flight,
    }  # fmt: skip


def _shown_id(value: int | None) -> str | None:
    return None if value is None else str(value)


def _whole(tx: Connection, campaign: Campaign) -> WholeCampaign:
    counted = totals.totals_of(tx, [campaign.campaign_id])[campaign.campaign_id]
    return WholeCampaign(**_values(campaign, counted), html_body=campaign.html_body, text_body=campaign.text_body)


def outcome_of(
    tx: Connection, campaign: Campaign, *, status: int = 200, changes: Mapping[str, Any] | None = None
) -> Outcome:
    """The answer that shows a campaign, with its version."""
    return Outcome(
        status=status, body=_whole(tx, campaign), resource_id=campaign.campaign_id, changes=changes or {},
        headers={"etag": etag(campaign.version)},
    )  # fmt: skip


@router.get("/campaigns/", response_model=list[ShownCampaign], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_campaigns(
    call: CurrentCall,
    page: paging.SkipLimit,
    status: Annotated[Status | None, Query(description="Exact state.")] = None,
) -> Response:
    """List campaigns.

    Newest first, without their bodies.
    """
    before = paging.position_id(page)
    with call.engine.begin() as tx:
        rows = store.list_campaigns(tx, status=status, skip=page.skip, limit=page.limit + 1, before=before)
        kept = rows[: page.limit]
        counted = totals.totals_of(tx, [row.campaign_id for row in kept])
        total = store.count(tx, status=status)
    shown = [ShownCampaign(**_values(row, counted[row.campaign_id])) for row in kept]
    last = (kept[-1].campaign_id,) if kept else None
    return paging.list_response(call, shown, page, total=total, last=last, remain=len(rows) > page.limit)


@router.post("/campaigns/", status_code=201, response_model=WholeCampaign, responses=problems(401, 403, 422))
@allow(Role.EDITOR, action="campaign.create", body_limit=LARGE)
async def create_campaign(call: CurrentCall, body: NewCampaignBody) -> Response:
    """Create a campaign.

    It is a draft until it is sent. A faulty body can be saved, but not sent.
    """

    def effect(tx: Connection) -> Outcome:
        made = store.create(tx, NewCampaign(**body.given()), actor=str(call.actor), now=call.now)
        return outcome_of(tx, made, status=201)

    return await call.commit(effect)


@router.get("/campaigns/{id}", response_model=WholeCampaign, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_campaign(call: CurrentCall, id: str) -> Response:
    """Show a campaign.

    Its figures are counted from the message ledger, at most 10 s old while sending.
    """
    with call.engine.begin() as tx:
        campaign = store.get(tx, path_id(id, MISSING))
        body = _whole(tx, campaign)
    return Response(json_bytes(body), media_type=JSON, headers={"etag": etag(campaign.version)})


@router.patch(
    "/campaigns/{id}", response_model=WholeCampaign,
    responses=problems(401, 403, 412, 422, s404=MISSING, s409="Its state forbids this"),
)  # fmt: skip
@allow(Role.EDITOR, action="campaign.update", body_limit=LARGE)
async def update_campaign(call: CurrentCall, id: str, body: CampaignPatch) -> Response:
    """Change a campaign.

    Everything may be edited in draft and scheduled, limits and window also in sending and paused, the name always;
    else 409 `not_editable`. `status` does what the actions do: `scheduled` needs a `scheduled_at` ahead, `draft`
    unschedules, `sending` resumes; the state it already has changes nothing. On a scheduled campaign `scheduled_at`
    moves the date.
    """
    changes = body.given()
    status = changes.pop("status", None)
    if status is None and "status" in body.model_fields_set:
        raise Refused(422, invalid(["body", "status"], "A status is not null"))

    def effect(tx: Connection) -> Outcome:
        campaign = locked(call, tx, id)
        changed = editing.edit(
            tx, call.settings, campaign.campaign_id, changes, now=call.now, status=status, actor=str(call.actor)
        )
        return outcome_of(tx, changed, changes={"fields": sorted(body.model_fields_set)})

    return await call.commit(effect)


@router.delete(
    "/campaigns/{id}", status_code=204, response_class=Response,
    responses=problems(
        401, 403, 412, s400="Cannot delete a campaign that is currently sending", s404=MISSING, s409="It is paused"
    ),
)  # fmt: skip
@allow(Role.EDITOR, action="campaign.delete")
async def delete_campaign(call: CurrentCall, id: str) -> Response:
    """Delete a campaign.

    Its schedule goes with it; its messages and totals stay in the figures.
    """

    def effect(tx: Connection) -> Outcome:
        campaign = locked(call, tx, id)
        if campaign.status is Status.SENDING:
            raise DomainError("Cannot delete a campaign that is currently sending", code="invalid_state")
        store.remove(tx, campaign.campaign_id)
        return Outcome(status=204, resource_id=campaign.campaign_id)

    return await call.commit(effect)


@router.post(
    "/campaigns/{id}/send", status_code=202, response_model=Queued,
    responses=problems(
        401, 403, 412, s400="Cannot send campaign in '<status>' status", s404=MISSING,
        s422="`not_sendable`, with every problem",
    ),
)  # fmt: skip
@allow(Role.EDITOR, action="campaign.send")
async def send_campaign(call: CurrentCall, id: str) -> Response:
    """Send a campaign.

    Answers at once; content and audience are frozen and handed over in the background within two minutes.
    """

    def effect(tx: Connection) -> Outcome:
        campaign = locked(call, tx, id)
        try:
            launch.request_send(tx, call.settings, campaign.campaign_id, now=call.now)
        except InvalidTransition as error:
            raise DomainError(str(error), code="invalid_state") from None
        return Outcome(status=202, body=Queued(campaign_id=str(campaign.campaign_id)), resource_id=campaign.campaign_id)

    return await call.commit(effect)


@router.post(
    "/campaigns/{id}/schedule", response_model=WholeCampaign,
    responses=problems(401, 403, 412, s404=MISSING, s409="It is no draft", s422="Past, or `not_sendable`"),
)  # fmt: skip
@allow(Role.EDITOR, action="campaign.schedule")
async def schedule_campaign(call: CurrentCall, id: str, body: ScheduleCampaignBody) -> Response:
    """Schedule a campaign.

    It is sent once, at that moment; with `local_time` at what clocks in `timezone_name` show then, on everybody's own.
    A PATCH of `scheduled_at` moves it, of `status` to draft takes it back; `/schedules/` can repeat it.
    """

    def effect(tx: Connection) -> Outcome:
        campaign = launch.schedule(
            tx, call.settings, locked(call, tx, id).campaign_id, at=body.send_at, timezone_name=body.timezone_name,
            now=call.now, actor=str(call.actor),
        )  # fmt: skip
        return outcome_of(tx, campaign)

    return await call.commit(effect)


@router.post(
    "/campaigns/{id}/pause", response_model=WholeCampaign,
    responses=problems(401, 403, 412, s404=MISSING, s409="Its state forbids this"),
)  # fmt: skip
@allow(Role.EDITOR, action="campaign.pause")
async def pause_campaign(call: CurrentCall, id: str) -> Response:
    """Pause a campaign.

    From the answer on no further message is claimed; those in flight finish.
    """
    return await call.commit(lambda tx: outcome_of(tx, _move(call, tx, locked(call, tx, id), Status.PAUSED)))


@router.post(
    "/campaigns/{id}/resume", response_model=WholeCampaign,
    responses=problems(401, 403, 412, s404=MISSING, s409="Its state forbids this"),
)  # fmt: skip
@allow(Role.EDITOR, action="campaign.resume")
async def resume_campaign(call: CurrentCall, id: str) -> Response:
    """Resume a paused campaign."""
    return await call.commit(lambda tx: outcome_of(tx, _move(call, tx, locked(call, tx, id), Status.SENDING)))


@router.post(
    "/campaigns/{id}/cancel", response_model=WholeCampaign,
    responses=problems(401, 403, 412, s404=MISSING, s409="Its state forbids this"),
)  # fmt: skip
@allow(Role.EDITOR, action="campaign.cancel")
async def cancel_campaign(call: CurrentCall, id: str) -> Response:
    """Cancel a campaign for good.

    What is queued is skipped; what is in flight finishes.
    """
    return await call.commit(lambda tx: outcome_of(tx, _move(call, tx, locked(call, tx, id), Status.CANCELLED)))


def locked(call: Call, tx: Connection, given: str) -> Campaign:
    """The campaign of a path, locked, if the caller's copy is of its version."""
    campaign = store.get(tx, path_id(given, MISSING), for_update=True)
    check_if_match(call.request, campaign.version)
    return campaign


def _move(call: Call, tx: Connection, campaign: Campaign, target: Status) -> Campaign:
    return editing.move(tx, call.settings, campaign, target, now=call.now)
