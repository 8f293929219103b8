"""How much may go in an hour or a day: of a campaign, of one receiving domain, of everything, and to one person.

Promise: a limit holds for every span of that length, not only for whole hours on the clock: what was claimed in a
minute counts until that whole minute is an hour (a day) ago. Of two limits the smaller counts, 0 is none. Pure but
for `explain`; callers: pacing, planning, the API's explain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from mautolib.campaigns.model import Campaign
from mautolib.campaigns.walltime import UTC_ZONE, local_of, zone_of, zone_or
from mautolib.campaigns.windows import Window, next_opening, window_of
from mautolib.contacts.address import domain_name
from mautolib.db.statements import statement
from mautolib.settings import Settings

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
_MINUTE: Final = timedelta(minutes=1)
#: Whoever waits for a limit is woken when a tenth of it is free again, not for every single message.
_WORTH_WAKING: Final = 10
ANY_DOMAIN: Final = "*"
#: Where a warm-up ends: no sender needs more, and the sum must not grow without end.
_WARM: Final = 10**9

#: Messages claimed by minute, oldest first.
Tallies = Sequence[tuple[datetime, int]]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most messages in any hour and any day, and in any hour by receiving domain (0: no limit)."""

    per_hour: int = 0
    per_day: int = 0
    domains: Mapping[str, int] = field(default_factory=dict)

    @property
    def are_none(self) -> bool:
        """Whether nothing is limited."""
        return not (self.per_hour or self.per_day or any(self.domains.values()))

    def of_domain(self, domain: str) -> int:
        """The limit of one domain: its own, else that of `*`."""
        return self.domains.get(domain, self.domains.get(ANY_DOMAIN, 0))


@dataclass(frozen=True, kw_only=True)
class Room:
    """How many may go now; `free_at` when more may, if that is fewer than wanted."""

    left: int
    free_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """One answer about one contact, in the words of `GET /campaigns/{id}/explain`."""

    check: str
    passed: bool
    detail: str


def smaller(*limits: int) -> int:
    """The smaller of some limits; 0 is none."""
    return min((limit for limit in limits if limit > 0), default=0)


def domain_keys(domain_limits: Mapping[str, int]) -> dict[str, int]:
    """`domain_limits` by domain as addresses are compared (lower case, punycode); two spellings: the smaller."""
    found: dict[str, int] = {}
    for name, limit in domain_limits.items():
        key = name if name == ANY_DOMAIN else (domain_name(name) or name.strip().lower())
        found[key] = smaller(found[key], limit) if key in found else limit
    return found


def limits_of(campaign: Campaign, *, schedule_per_hour: int = 0, schedule_per_day: int = 0) -> Limits:
    """The limits of a campaign and its schedule together."""
    return Limits(
        per_hour=smaller(campaign.max_per_hour, schedule_per_hour),
        per_day=smaller(campaign.max_per_day, schedule_per_day),
        domains=domain_keys(campaign.domain_limits),
    )


def limits_of_all(settings: Settings, now: datetime) -> Limits:
    """The limits of all marketing mail together: the hourly one, and that day's of the warm-up."""
    return Limits(per_hour=settings.max_per_hour, per_day=warmup_limit(settings, now))


def warmup_limit(settings: Settings, now: datetime) -> int:
    """How much may go on this day of the warm-up (0: no warm-up, or it has not begun)."""
    zone = zone_of(settings.default_timezone)
    if not settings.warmup_per_day or not settings.warmup_from or zone is None:
        return 0
    days = (local_of(now, zone).date() - date.fromisoformat(settings.warmup_from)).days
    limit = settings.warmup_per_day
    for _ in range(min(days, 3650)):
        limit += max(1, limit * settings.warmup_growth_percent // 100) if settings.warmup_growth_percent else 0
        if limit >= _WARM:
            return _WARM
    return limit if days >= 0 else settings.warmup_per_day


def room(tallies: Tallies, limit: int, span: timedelta, now: datetime) -> Room:
    """What a limit leaves at `now`.

    Args:
        tallies: all of the last `span` and a minute; older ones do not matter.
    """
    counting = [(minute, claimed) for minute, claimed in tallies if minute + _MINUTE + span > now]
    left = limit - sum(claimed for _, claimed in counting)
    if left > 0:
        return Room(left=left)
    wanted, free = max(1, limit // _WORTH_WAKING), left
    for minute, claimed in sorted(counting):
        free += claimed
        if free >= wanted:
            return Room(left=0, free_at=minute + _MINUTE + span)
    return Room(left=0, free_at=now + _MINUTE)


def narrowest(rooms: Iterable[Room], wanted: int) -> Room:
    """What several limits leave together: the least, and when the last of those that are full is free again."""
    left, free_at = wanted, None
    for one in rooms:
        left = min(left, one.left)
        if one.free_at is not None:
            free_at = one.free_at if free_at is None else max(free_at, one.free_at)
    return Room(left=left, free_at=free_at)


def explain(tx: Connection, settings: Settings, campaign: Campaign, contact_id: int, *, now: datetime) -> list[Check]:
    """Whether a message of `campaign` to a contact may go at `now` as far as time and quantity go.

    Gives the checks `send_window` (hours, weekdays, quiet hours; the detail names the next opening), `limits` and
    `frequency_cap`, each once; none for a contact that does not exist. For `GET /campaigns/{id}/explain`; to know
    the moment alone use `windows.next_opening(window_for(...), zone, now)`.
    """
    row = tx.execute(
        statement("pacing.explain"),
        {"campaign_id": campaign.campaign_id, "contact_id": contact_id, "cap_since": cap_since(settings, now)},
    ).one_or_none()
    if row is None:
        return []
    default = default_zone(settings)
    window = window_for(settings, campaign, schedule_zone=row.timezone_name)
    zone = zone_or(row.timezone, default)
    opening = next_opening(window, zone, now)
    if opening == now:
        shown = "open now"
    else:
        shown = "never opens" if opening is None else f"opens at {opening.isoformat().replace('+00:00', 'Z')}"
    waits = row.waits_for == "limit" and row.wake_at is not None and row.wake_at > now
    until = row.wake_at.isoformat().replace("+00:00", "Z") if waits else ""
    cap = settings.frequency_cap
    return [
        Check(check="send_window", passed=opening == now, detail=f"{shown} ({zone.key})"),
        Check(check="limits", passed=not waits, detail=f"full until {until}" if waits else "within its limits"),
        Check(
            check="frequency_cap", passed=not cap or row.recent < cap,
            detail=f"{row.recent} of {cap} marketing mails in {settings.frequency_cap_days} days" if cap else "no cap",
        ),
    ]  # fmt: skip


def default_zone(settings: Settings) -> ZoneInfo:
    """The zone of contacts without one."""
    return zone_or(settings.default_timezone, UTC_ZONE)


def window_for(settings: Settings, campaign: Campaign, *, schedule_zone: str | None = None) -> Window:
    """The window of a campaign as it is judged now.

    Args:
        schedule_zone: `timezone_name` of its schedule, where it has one.
    """
    default = default_zone(settings)
    return window_of(
        campaign.send_window, zone=zone_or(schedule_zone or "", default), default_zone=default,
        quiet_hours=settings.quiet_hours,
    )  # fmt: skip


def cap_since(settings: Settings, now: datetime) -> datetime:
    """From when on marketing mails count for the frequency cap."""
    return now - timedelta(days=settings.frequency_cap_days)
