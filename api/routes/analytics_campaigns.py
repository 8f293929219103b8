"""Figures of campaigns: metrics, funnel, comparison, the best of them, and when people read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import Query, Response
from pydantic import ConfigDict, Field
from sqlalchemy import Connection

from api.calls import Outcome
from api.errors import Refused
from api.routing import CurrentCall, Router, allow, problems
from api.values import Answer, Id, Model, Shown, ShownDec, parse_id
from mautolib.analytics import readers_campaigns
from mautolib.analytics.readers_campaigns import TopMetric
from mautolib.auth.roles import Role
from mautolib.errors import NotFound

router = Router("Analytics")
MOST_COMPARED = 10
_COUNTED = (
    "Counted now up to 50,000 mails of campaigns in the whole house; above that as last recounted: seconds old while "
    "a campaign is sent, later nine minutes or a twentieth of its age."
)


class CampaignMetrics(Answer):
    """Every figure of one campaign. Rates are percent, 0.0 without a denominator."""

    campaign_id: Id
    campaign_name: str
    total_sent: int = Field(description="Accepted by the receiving side.", examples=[952])
    total_delivered: int = Field(description="Sent, without those that bounced later.", examples=[950])
    total_opened: int = Field(description="Opens by people.", examples=[507])
    unique_opens: int = Field(description="Recipients who opened or clicked.", examples=[383])
    total_clicked: int = Field(description="Clicks of people.", examples=[131])
    unique_clicks: int = Field(description="Recipients who clicked.", examples=[106])
    total_bounced: int = Field(examples=[12])
    total_unsubscribed: int = Field(examples=[7])
    delivery_rate: float = Field(description="Delivered / attempted.", examples=[98.75])
    open_rate: float = Field(description="Unique opens / delivered.", examples=[40.32])
    click_rate: float = Field(description="Unique clicks / delivered.", examples=[11.16])
    click_to_open_rate: float = Field(description="Unique clicks / unique opens.", examples=[27.68])
    bounce_rate: float = Field(description="Bounced / attempted.", examples=[1.25])
    unsubscribe_rate: float = Field(description="Unsubscribed / delivered.", examples=[0.74])
    total_attempted: int = Field(description="Sent, refused for good, or of unknown fate.", examples=[962])
    raw_opens: int = Field(description="Every open, machines included.", examples=[702])
    raw_clicks: int = Field(description="Every click, machines included.", examples=[188])
    total_complained: int = Field(examples=[1])
    orders: int = Field(description="Orders whose last touch was this campaign.", examples=[14])
    revenue: ShownDec = Field(description="Of those orders, net of refunds, in `reporting_currency`.")
    revenue_per_recipient: ShownDec = Field(description="Revenue / delivered, 4 decimals.")
    reporting_currency: str = Field(examples=["EUR"])


class EngagementHour(Answer):
    """Opens and clicks of people in one hour of the day."""

    hour: int = Field(ge=0, le=23)
    opens: int
    clicks: int


class CampaignEngagement(Answer):
    """When the people of a campaign open and click."""

    campaign_id: Id
    hourly: list[EngagementHour] = Field(description="24 hours of the day, in the time zone asked for.")
    peak_open_hour: int = Field(description="The earliest of the best hours; 0 without opens.", examples=[9])
    peak_click_hour: int = Field(examples=[20])
    avg_time_to_open_minutes: float | None = Field(
        description="Mean time from a mail to its first open or click by a person.", examples=[194.5]
    )


class FunnelStage(Answer):
    """One step of a funnel."""

    stage: Literal["sent", "delivered", "opened", "clicked"]
    count: int
    rate: float = Field(description="Percent of sent.", examples=[40.23])
    drop_off_rate: float = Field(description="Percent of the step before that were lost.", examples=[59.68])


class CampaignFunnel(Answer):
    """A campaign from sent to clicked; all counts are people. Rates are percent, 0.0 without a denominator."""

    campaign_id: Id
    campaign_name: str
    total_sent: int
    total_opened: int = Field(description="Recipients who opened or clicked.")
    total_clicked: int = Field(description="Recipients who clicked.")
    total_bounced: int
    total_unsubscribed: int
    open_rate: float
    click_rate: float
    ctor: float = Field(description="Clicked / opened.")
    bounce_rate: float = Field(description="Bounced / attempted.")
    unsubscribe_rate: float
    engagement_score: float = Field(
        description="min(100, 0.3 open + 0.4 ctor + 0.15 (100 - bounce) + 0.15 (100 - unsubscribe)), of the rates as "
        "shown; 0 if nothing was sent.", examples=[52.8],
    )  # fmt: skip
    funnel: list[FunnelStage]


class UnknownCampaign(Answer):
    """A campaign that does not exist, among those to be compared."""

    campaign_id: Id
    error: Literal["not found"] = "not found"


class ComparisonBody(Model):
    """Which campaigns to compare: at most ten."""

    model_config = ConfigDict(
        title="CampaignComparison", json_schema_extra={"example": {"campaign_ids": ["42", "43"]}}
    )  # fmt: skip

    campaign_ids: list[Id]


class TopCampaign(Answer):
    """A campaign in a ranking; counts are people."""

    campaign_id: Id
    campaign_name: str
    total_sent: int
    open_rate: float
    click_rate: float
    ctor: float
    bounce_rate: float
    engagement_score: float
    sent_at: Shown | None


@router.get(
    "/analytics/campaigns/{id}/metrics", response_model=CampaignMetrics,
    responses=problems(401, 422, s404="Campaign not found"), description=f"Every figure of one campaign. {_COUNTED} "
    "Orders and revenue are always counted now.",
)  # fmt: skip
@allow(Role.VIEWER)
def campaign_metrics(call: CurrentCall, id: str) -> CampaignMetrics:
    """Show the metrics of a campaign."""
    campaign_id = parse_id(id)
    if campaign_id is None:
        raise NotFound("Campaign not found")
    with call.engine.begin() as tx:
        found = readers_campaigns.metrics(tx, campaign_id, reporting_currency=call.settings.reporting_currency)
    return CampaignMetrics(**found)


@router.get(
    "/analytics/campaigns/{id}/engagement", response_model=CampaignEngagement, responses=problems(401, 422)
)
@allow(Role.VIEWER)
def campaign_engagement(
    call: CurrentCall, id: str,
    timezone: Annotated[
        str, Query(max_length=64, description="Whose clocks say the hour (IANA).", examples=["Europe/Berlin"])
    ] = "UTC",
) -> CampaignEngagement:  # fmt: skip
    """Show when people open and click.

    Opens and clicks of people by the hour of the day, counted now; of a campaign with more than 5,000 mails, from its
    second hour on, as of the last hourly refresh. An unknown campaign has zeros.
    """
    with call.engine.begin() as tx:
        found = readers_campaigns.engagement(tx, parse_id(id) or 0, timezone=timezone)
    return CampaignEngagement.model_validate({"campaign_id": id, **found})


@router.get(
    "/analytics/campaigns/{id}/funnel", response_model=CampaignFunnel,
    responses=problems(401, 422, s404="Campaign 42 not found"),
    description=f"How many of those who got it opened, and how many clicked. {_COUNTED}",
)  # fmt: skip
@allow(Role.VIEWER)
def campaign_funnel(call: CurrentCall, id: str) -> CampaignFunnel:
    """Show the funnel of a campaign."""
    campaign_id = parse_id(id)
    if campaign_id is None:
        raise NotFound(f"Campaign {id} not found")
    with call.engine.begin() as tx:
        return CampaignFunnel(**readers_campaigns.funnel(tx, campaign_id))


@router.post(
    "/analytics/campaigns/compare", response_model=list[CampaignFunnel | UnknownCampaign],
    responses=problems(401, 422, s400="Maximum 10 campaigns for comparison"),
)  # fmt: skip
@allow(Role.VIEWER, action="campaign.compare")
async def compare_campaigns(call: CurrentCall, body: ComparisonBody) -> Response:
    """Compare campaigns.

    Their funnels, in the order asked for; a campaign that does not exist has `error` instead.
    """
    if len(body.campaign_ids) > MOST_COMPARED:
        raise Refused(400, f"Maximum {MOST_COMPARED} campaigns for comparison")

    def look() -> list[CampaignFunnel | UnknownCampaign]:
        with call.engine.begin() as tx:
            found = readers_campaigns.funnels(tx, [parse_id(given) for given in body.campaign_ids])
        return [
            UnknownCampaign(campaign_id=given) if row is None else CampaignFunnel(**row)
            for given, row in zip(body.campaign_ids, found, strict=True)
        ]

    answer = await run_sync(look)

    def effect(_: Connection) -> Outcome:
        return Outcome(body=answer)

    return await call.commit(effect)


@router.get(
    "/analytics/top-campaigns", response_model=list[TopCampaign], responses=problems(401, 422),
    description=f"The best of all sent campaigns; of equal ones the larger goes first. {_COUNTED}",
)  # fmt: skip
@allow(Role.VIEWER)
def top_campaigns(
    call: CurrentCall,
    metric: Annotated[TopMetric, Query(description="What decides.")] = TopMetric.OPEN_RATE,
    limit: Annotated[int, Query(ge=1, le=50, description="At most this many rows.")] = 10,
    min_sent: Annotated[int, Query(ge=1, le=2**31 - 1, description="Leave out what fewer people got.")] = 10,
) -> Any:
    """Rank the campaigns."""
    with call.engine.begin() as tx:
        return readers_campaigns.top(tx, metric=metric, limit=limit, min_sent=min_sent)
