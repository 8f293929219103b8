"""Claiming under windows, limits and the frequency cap: one campaign at a time, under the lock of its pace.

Promise: however many senders run, together they exceed no limit, hand nothing over outside its window and give
nobody more marketing mail than the cap; a message that may not go yet is put where it may (`held_for`), a campaign
that is full or closed sleeps until `wake_at`, and neither keeps other campaigns waiting. Called by the pump, inside
the transaction that also records its previous group. Campaigns without any of this never come here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from mautolib.campaigns.limits import (
    DAY,
    HOUR,
    Limits,
    Room,
    cap_since,
    default_zone,
    limits_of,
    limits_of_all,
    narrowest,
    room,
    window_for,
)
from mautolib.campaigns.slots import DomainSlots
from mautolib.campaigns.windows import Gate, Window, next_opening, window_of
from mautolib.db.statements import statement
from mautolib.ledger import claim, installation
from mautolib.ledger.identity import MessageIdentity
from mautolib.ledger.model import Skip
from mautolib.settings import Settings

#: The row that stands for all campaigns together.
ALL: Final = 0
#: How often a sender that is busy otherwise looks for paced campaigns.
_LOOK_SECONDS: Final = 1.0
_MOST_PICKED, _BATCH = 2000, 10_000
_LIMIT, _WINDOW = "limit", "window"


@dataclass(frozen=True, kw_only=True)
class _Decided:
    """What becomes of one locked message: it goes, is skipped, or is held until a moment."""

    row: Any
    reason: str | None = None
    held_until: datetime | None = None
    held_for: str | None = None


@dataclass
class Turnstile:
    """Where one sender gets its messages: those without a pace directly, the others campaign by campaign."""

    settings: Settings
    identity: MessageIdentity
    size: int
    shard: int = 0
    shards: int = 1
    clock: Callable[[], float] = time.monotonic
    #: Only what people wait for: no campaign, no workflow.
    urgent_only: bool = False
    _looked_at: float = float("-inf")
    _is_paced_turn: bool = False
    _last: int = -1
    _picked: Counter[int] = field(default_factory=Counter)
    _gates: dict[Window, Gate] = field(default_factory=dict)

    @property
    def paces_all(self) -> bool:
        """Whether a setting concerns every campaign."""
        given = self.settings
        return bool(given.quiet_hours or given.frequency_cap or given.max_per_hour or given.warmup_per_day)

    def next_group(self, tx: Connection, attempt_id: int, now: datetime) -> claim.Group:
        """The next group; empty if nothing may go now."""
        if not installation.is_open(tx):
            return claim.Group(attempt_id=attempt_id)
        if self.urgent_only:
            return self._unpaced(tx, attempt_id, now, paces_all=True)
        is_time = self.clock() - self._looked_at >= _LOOK_SECONDS
        if self._is_paced_turn or is_time:
            group = self._paced(tx, attempt_id, now)
            self._is_paced_turn = False
            if not group.is_empty:
                return group
        group = self._unpaced(tx, attempt_id, now, paces_all=self.paces_all)
        if group.is_empty and not is_time:
            group = self._paced(tx, attempt_id, now)
        else:
            # Whoever found a paced campaign last time goes on taking turns.
            self._is_paced_turn = self._last >= 0
        return group

    def _unpaced(self, tx: Connection, attempt_id: int, now: datetime, *, paces_all: bool) -> claim.Group:
        return claim.claim(
            tx, attempt_id=attempt_id, size=self.size, identity=self.identity, now=now, shard=self.shard,
            shards=self.shards, require_consent=self.settings.require_consent, paces_all=paces_all,
        )  # fmt: skip

    def _paced(self, tx: Connection, attempt_id: int, now: datetime) -> claim.Group:
        self._looked_at = self.clock()
        parameters = {"now": now, "paces_all": self.paces_all, "shard": self.shard, "shards": self.shards}
        found = tx.scalars(statement("pacing.candidates"), parameters).all()
        if found and not limits_of_all(self.settings, now).are_none:
            lock_pace(tx, ALL)
        # The one after the last comes first, so that all get their turn. Locks are taken in order of the ids alone, so
        # the round is begun anew in a transaction of its own.
        for campaign_id in (key for key in found if key > self._last):
            group = _Claim(self, tx, attempt_id, campaign_id, now).run()
            if not group.is_empty:
                self._last = campaign_id
                return group
        is_cut = any(key <= self._last for key in found)
        self._last = -1
        return claim.Group(attempt_id=attempt_id, is_busy=is_cut)

    def gate(self, window: Window) -> Gate:
        """The gate of a window, kept from claim to claim."""
        return self._gates.setdefault(window, Gate(window, default_zone(self.settings)))


@dataclass
class _Claim:
    """One claim of one campaign."""

    turnstile: Turnstile
    tx: Connection
    attempt_id: int
    campaign_id: int
    now: datetime

    def run(self) -> claim.Group:
        nothing = claim.Group(attempt_id=self.attempt_id)
        found = self._lock()
        if found is None:
            return nothing
        window, limits = found
        settled = self._settle()
        if settled is not None:
            return settled
        if self._is_asleep or self._is_closed(window):
            return nothing
        own, domain_tallies = self._rooms(limits)
        left = narrowest(own, self.turnstile.size)
        if left.left <= 0:
            return self._sleep(left.free_at or self.now + HOUR, _LIMIT)
        left = narrowest(self._common_rooms(), left.left)
        if left.left <= 0:
            # A setting, not this campaign: it is looked at anew each time, the time is only for who wakes us.
            self._put_wake(ALL, left.free_at or self.now + HOUR, _LIMIT)
            return nothing
        picked = self._pick(left.left)
        rows = self._under_the_cap(picked)
        decided = self._decide(rows, window, limits, left.left, domain_tallies)
        return self._take(decided, limits, is_contended=len(rows) < len(picked))

    def _lock(self) -> tuple[Window, Limits] | None:
        """Window and limits of the campaign, which nobody else claims or edits from here on; None if it is over."""
        settings = self.turnstile.settings
        row: Any = None
        if self.campaign_id != ALL:
            row = self.tx.execute(statement("pacing.lock_campaign"), {"campaign_id": self.campaign_id}).one_or_none()
            if row is None:
                return None
            self.tx.execute(statement("pacing.make_pace"), {"campaign_id": self.campaign_id})
        self._pace = lock_pace(self.tx, self.campaign_id)
        self._is_asleep = (
            self.campaign_id != ALL and self._pace.wake_at is not None and self._pace.wake_at > self.now
        )
        everything = limits_of_all(settings, self.now)
        self._counts_all = self.campaign_id != ALL and not everything.are_none
        if row is None:
            zone = default_zone(settings)
            return window_of({}, zone=zone, quiet_hours=settings.quiet_hours), everything
        window = window_for(settings, row, schedule_zone=row.timezone_name)
        limits = limits_of(row, schedule_per_hour=row.schedule_per_hour, schedule_per_day=row.schedule_per_day)
        return window, limits

    def _settle(self) -> claim.Group | None:
        """What an edit or the time has left to do before anything is claimed, in batches; None if nothing."""
        given = {"campaign_id": self.campaign_id, "now": self.now, "size": _BATCH}
        is_late = self._pace.expires_at is not None and self._pace.expires_at <= self.now
        if not (self._pace.is_stale or is_late):
            return None
        released = self.tx.execute(statement("pacing.release_held"), given).rowcount if self._pace.is_stale else 0
        expired = self.tx.execute(statement("pacing.expire"), given).rowcount if is_late else 0
        if _BATCH not in (released, expired):
            self.tx.execute(statement("pacing.awake"), {"campaign_id": self.campaign_id})
        if not (released or expired):
            return None
        skipped = {Skip.EXPIRED.value: expired} if expired else {}
        return claim.Group(attempt_id=self.attempt_id, skipped=skipped, is_busy=True)

    def _is_closed(self, window: Window) -> bool:
        """Whether it is closed for everybody; then it sleeps, and no message is touched."""
        if window.local_time:
            return False
        opening = next_opening(replace(window, quiet=()), window.zone, self.now)
        if opening == self.now:
            return False
        self._sleep(opening or self.now + DAY, _WINDOW)
        return True

    def _sleep(self, until: datetime, waits_for: str) -> claim.Group:
        """Claim nothing before `until`."""
        if self.campaign_id == ALL:
            # Other mail shares this queue: it is not stopped, its marketing mail is put off.
            rows = self._pick(_MOST_PICKED)
            self._write([_held(row, until, waits_for) for row in rows])
            return claim.Group(attempt_id=self.attempt_id, is_busy=bool(rows))
        self._put_wake(self.campaign_id, until, waits_for)
        return claim.Group(attempt_id=self.attempt_id)

    def _put_wake(self, campaign_id: int, until: datetime, waits_for: str) -> None:
        parameters = {"campaign_id": campaign_id, "wake_at": until, "waits_for": waits_for}
        self.tx.execute(statement("pacing.sleep"), parameters)

    def _rooms(self, limits: Limits) -> tuple[list[Room], dict[str, list[tuple[datetime, int]]]]:
        """What the limits of the campaign leave, and what was claimed by domain."""
        totals, domains = self._tallies(self.campaign_id, limits)
        return _rooms(totals, limits, self.now), domains

    def _common_rooms(self) -> list[Room]:
        """What the limits of all campaigns together leave."""
        if not self._counts_all:
            return []
        everything = limits_of_all(self.turnstile.settings, self.now)
        return _rooms(self._tallies(ALL, everything)[0], everything, self.now)

    def _tallies(
        self, campaign_id: int, limits: Limits
    ) -> tuple[list[tuple[datetime, int]], dict[str, list[tuple[datetime, int]]]]:
        totals: list[tuple[datetime, int]] = []
        domains: dict[str, list[tuple[datetime, int]]] = {}
        if limits.are_none:
            return totals, domains
        span = (DAY if limits.per_day else HOUR) + timedelta(minutes=2)
        given = {"campaign_id": campaign_id, "now": self.now, "span": span}
        for row in self.tx.execute(statement("pacing.tallies"), given):
            (domains.setdefault(row.domain, []) if row.domain else totals).append((row.minute, row.claimed))
        return totals, domains

    def _pick(self, allowed: int) -> Sequence[Any]:
        turnstile = self.turnstile
        given = {
            "campaign_id": self.campaign_id, "now": self.now, "shard": turnstile.shard, "shards": turnstile.shards,
            "require_consent": turnstile.settings.require_consent,
            "size": max(allowed, turnstile._picked[self.campaign_id]),
        }  # fmt: skip
        return self.tx.execute(statement("pacing.picked"), given).all()

    def _under_the_cap(self, rows: Sequence[Any]) -> list[Any]:
        """The rows nobody else is deciding about, with those over the frequency cap marked in `_capped`."""
        self._capped: set[int] = set()
        settings = self.turnstile.settings
        if not settings.frequency_cap or not rows:
            return list(rows)
        contact_ids = sorted({row.contact_id for row in rows})
        locked = set(self.tx.scalars(statement("pacing.lock_contacts"), {"contact_ids": contact_ids}))
        # Counted by a statement of its own: only that sees what others committed before we got the locks.
        given = {"contact_ids": sorted(locked), "since": cap_since(settings, self.now)}
        recent = Counter({row.contact_id: row.message_count for row in self.tx.execute(
            statement("pacing.recent_marketing"), given)})  # fmt: skip
        kept = [row for row in rows if row.contact_id in locked or row.reason is not None]
        for row in kept:
            if row.reason is None:
                recent[row.contact_id] += 1
                if recent[row.contact_id] > settings.frequency_cap:
                    recent[row.contact_id] -= 1
                    self._capped.add(row.message_id)
        return kept

    def _decide(
        self, rows: Sequence[Any], window: Window, limits: Limits, allowed: int,
        tallies: Mapping[str, list[tuple[datetime, int]]],
    ) -> list[_Decided]:  # fmt: skip
        gate = self.turnstile.gate(window)
        full = DomainSlots(self.tx, self.campaign_id, limits, tallies, self.now)
        decided: list[_Decided] = []
        taken = 0
        for row in rows:
            if row.reason is not None:
                decided.append(_Decided(row=row, reason=row.reason))
            elif (opens_at := gate.opens_at(row.timezone, self.now, row.give_up_at)) is not None:
                decided.append(_held(row, opens_at, _WINDOW))
            elif row.message_id in self._capped:
                decided.append(_Decided(row=row, reason=Skip.FREQUENCY_CAP.value))
            elif taken < allowed:
                if full.takes(row.domain):
                    decided.append(_Decided(row=row))
                    taken += 1
                else:
                    decided.append(_held(row, full.slot(row.domain), _LIMIT))
        full.remember()
        held = sum(item.held_until is not None for item in decided)
        # Many that must wait before few that may go: look further next time.
        wider = min(_MOST_PICKED, max(len(rows), self.turnstile.size) * 4) if held > taken else 0
        self.turnstile._picked[self.campaign_id] = wider
        return decided

    def _take(self, decided: Sequence[_Decided], limits: Limits, *, is_contended: bool) -> claim.Group:
        self._write(decided)
        skipped = Counter(item.reason for item in decided if item.reason is not None)
        going = [item.row for item in decided if item.reason is None and item.held_until is None]
        is_held = len(decided) > len(going) + skipped.total()
        if not going:
            is_busy = is_held or is_contended
            return claim.Group(attempt_id=self.attempt_id, skipped=skipped, is_busy=is_busy, is_contended=is_contended)
        tallied = {
            row.message_id: [(self.campaign_id, "")]
            + ([(self.campaign_id, row.domain)] if limits.of_domain(row.domain) else [])
            + ([(ALL, "")] if self._counts_all else [])
            for row in going
        }
        count(self.tx, Counter(key for keys in tallied.values() for key in keys), self.now)
        return claim.Group(
            attempt_id=self.attempt_id, messages=claim.held(self.tx, self.attempt_id), skipped=skipped, tallied=tallied
        )

    def _write(self, decided: Sequence[_Decided]) -> None:
        if not decided:
            return
        identity = self.turnstile.identity
        given = {
            "contact_ids": [item.row.contact_id for item in decided],
            "message_ids": [item.row.message_id for item in decided],
            "reasons": [item.reason for item in decided], "held_until": [item.held_until for item in decided],
            "held_for": [item.held_for for item in decided], "attempt_id": self.attempt_id,
            "lease_seconds": claim.LEASE_SECONDS, "inner_key": identity.inner_key, "outer_key": identity.outer_key,
            "domain": identity.domain,
        }  # fmt: skip
        self.tx.execute(statement("pacing.take"), given)


def lock_pace(tx: Connection, campaign_id: int) -> Any:
    """Lock the pace of a campaign; of several take them in order, `ALL` first."""
    return tx.execute(statement("pacing.lock_pace"), {"campaign_id": campaign_id}).one()


def give_back(tx: Connection, unused: Mapping[tuple[int, str], int], claimed_at: datetime) -> None:
    """Messages that were claimed at `claimed_at` but not handed over count no more; in a transaction of its own."""
    campaign_ids = sorted({campaign_id for campaign_id, _ in unused})
    for campaign_id in campaign_ids:
        lock_pace(tx, campaign_id)
    count(tx, {key: -number for key, number in unused.items()}, claimed_at)
    tx.execute(statement("pacing.wake"), {"campaign_ids": campaign_ids})


def count(tx: Connection, claimed: Mapping[tuple[int, str], int], now: datetime) -> None:
    """Add to the tallies of `now`'s minute: messages by (campaign, domain)."""
    if claimed:
        keys = sorted(claimed)
        given = {
            "campaign_ids": [key[0] for key in keys], "domains": [key[1] for key in keys],
            "counts": [claimed[key] for key in keys], "minute": now.replace(second=0, microsecond=0),
        }  # fmt: skip
        tx.execute(statement("pacing.tally"), given)


def _rooms(totals: Sequence[tuple[datetime, int]], limits: Limits, now: datetime) -> list[Room]:
    spans = ((limits.per_hour, HOUR), (limits.per_day, DAY))
    return [room(totals, limit, span, now) for limit, span in spans if limit]


def _held(row: Any, until: datetime, held_for: str) -> _Decided:
    return _Decided(row=row, held_until=min(until, row.give_up_at), held_for=held_for)
