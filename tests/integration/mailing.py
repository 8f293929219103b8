"""Contacts, campaigns and channels for tests of sending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from mautolib.campaigns import launch, planning, sending, store
from mautolib.campaigns.model import Campaign, NewCampaign
from mautolib.campaigns.sending import PumpResult
from mautolib.channels.null import Null
from mautolib.channels.protocol import Channel
from mautolib.errors import MautoError
from mautolib.ledger.model import Result
from mautolib.settings import Settings

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
HTML = (
    "<html><body><p>Hello {{ contact.first_name }}, see <a href=\"https://shop.example/sale?a=1&amp;b=2\">the sale</a>"
    " and <a href='https://shop.example/new'>what is new</a>.</p></body></html>"
)


def add_contacts(tx: Connection, count: int, *, prefix: str = "person") -> list[int]:
    """Contacts person1..n@mail.example, called Ann1..n."""
    return list(
        tx.scalars(
            text("""
                insert into contacts (email, email_key, first_name, custom_fields)
                select address, address, 'Ann' || n, jsonb_build_object('size', n)
                from generate_series(1, :count) as n
                cross join lateral (select :prefix || n || '@mail.example') as made (address)
                returning contact_id
            """),
            {"count": count, "prefix": prefix},
        )
    )


def new_campaign(**changes: Any) -> NewCampaign:
    return replace(NewCampaign(name="Autumn", subject="Hello {{ contact.first_name }}", html_body=HTML), **changes)


def add_campaign(tx: Connection, **changes: Any) -> Campaign:
    return store.create(tx, new_campaign(**changes), actor="test", now=NOW)


def launched(engine: Engine, settings: Settings, count: int = 3, *, now: datetime = NOW, **changes: Any) -> int:
    """A campaign to `count` contacts, requested and planned; senders with a clock of their own need the real `now`."""
    with engine.begin() as tx:
        add_contacts(tx, count)
        campaign = add_campaign(tx, **changes)
        launch.request_send(tx, settings, campaign.campaign_id, now=now)
    (plan,) = planning.plan_due(engine, settings, now)
    assert plan.problem is None
    return campaign.campaign_id


def run_pump(
    engine: Engine, settings: Settings, channel: Channel | None = None, *, later: timedelta = timedelta(0), **more: Any
) -> PumpResult:
    """A pump over `channel` (by default one that takes everything)."""
    made = channel or Null()
    return sending.pump(engine, settings, now=NOW + later, open_way=lambda _: made, **{"group_size": 10, **more})


def null(answers: dict[int, Result | MautoError]) -> Null:
    """A channel that answers person<n> as told."""
    return Null({f"person{number}@mail.example": answer for number, answer in answers.items()})


def rows(engine: Engine, sql: str, **parameters: Any) -> Sequence[Any]:
    with engine.connect() as connection:
        return connection.execute(text(sql), parameters).all()


def states(engine: Engine, campaign_id: int) -> dict[str, int]:
    """How many messages of a campaign are in each state, skipped ones by reason."""
    query = "select status || coalesce(' ' || reason, '') as state, count(*) as n from messages where campaign_id = :id"
    found = rows(engine, f"{query} group by 1", id=campaign_id)
    return {row.state: row.n for row in found}
