"""A month of a shop that uses the three recipes: who is there, what they do, and - worked out by hand - what is due.

`people` draws everybody from a seed. `expected` is a second, plain description of what docs/recipes promise: it looks
at one person at a time and knows neither SQL nor the engine. Time passes in turns of an hour: what is reported within
an hour takes effect at its end, as if `workflow_advance` ran then.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

#: A Monday; clocks change in Berlin on 25 October, in New York on 1 November.
START = datetime(2026, 10, 5, tzinfo=UTC)
END = START + timedelta(days=32)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
#: The last turn.
LAST = END - HOUR
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Tokyo", "Asia/Kathmandu", "America/Sao_Paulo")
EVALUATED_EVERY = 12
#: The hours of two days (UTC) in which people shop: turns without anything to do are cheap.
BUSY = (7, 20, 33)


@dataclass(frozen=True, kw_only=True)
class Act:
    """Something that happens to somebody.

    Args:
        at: when it happened; `told`: when we hear of it.
        cart: of a cart or an order.
        number: of an order or an event, for telling it twice.
    """

    kind: str
    at: datetime
    told: datetime
    cart: str | None = None
    number: str = ""


@dataclass(kw_only=True)
class Person:
    """Somebody, with their past (when they opened, ordered, were mailed) and this month."""

    email: str
    group: str
    zone: str
    opened: datetime | None = None
    ordered: datetime | None = None
    mailed: int = 0
    acts: list[Act] = field(default_factory=list)

    def does(self, kind: str, at: datetime, *, late: timedelta = timedelta(0), cart: str | None = None) -> None:
        """Add an act; of those that can be told twice one in five is, two days later."""
        number = f"{self.email}-{len(self.acts)}"
        self.acts.append(Act(kind=kind, at=at, told=at + late, cart=cart, number=number))
        if kind in ("order", "cart") and len(self.acts) % 5 == 0:
            self.acts.append(Act(kind=kind, at=at, told=at + late + 2 * DAY, cart=cart, number=number))


    def facts(self) -> list[Act]:
        """What happens, without what is told again."""
        return list({act.number: act for act in reversed(self.acts)}.values())[::-1]


def turn(moment: datetime) -> datetime:
    """When a turn of the engine first sees what is told at `moment`."""
    whole = moment.replace(minute=0, second=0, microsecond=0)
    return whole if whole == moment else whole + HOUR


def next_local(after: datetime, zone: str, clock: time, weekdays: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)) -> datetime:
    """The next moment later than `after` at which clocks in `zone` show `clock` (never a skipped or doubled hour)."""
    day: date = after.astimezone(ZoneInfo(zone)).date()
    while True:
        moment = datetime.combine(day, clock, ZoneInfo(zone)).astimezone(UTC)
        if day.isoweekday() in weekdays and moment > after:
            return moment
        day += DAY


# --- who there is ------------------------------------------------------------------------------------------------


def people(seed: int = 9) -> list[Person]:
    """Everybody, always the same."""
    dice = random.Random(seed)
    found = [_newcomer(dice, number) for number in range(75)]
    found += [_passer_by(dice, number) for number in range(10)]
    found += [_cart_owner(dice, number) for number in range(65)]
    found += [_reader(dice, number) for number in range(65)]
    return found


def _moment(dice: random.Random, first: float, last: float) -> datetime:
    """Some minute (never a whole hour) between two days of the month, in one of the hours people shop in."""
    hours = int(dice.uniform(first, last) * 24)
    hours += min((hour - hours) % 48 for hour in BUSY)
    return START + timedelta(hours=hours, minutes=dice.randrange(1, 60))


def _somebody(dice: random.Random, group: str, number: int) -> Person:
    return Person(email=f"{group}{number}@shop.example", group=group, zone=dice.choice(ZONES))


def _end(dice: random.Random, one: Person, first: float, last: float) -> None:
    """One in seven goes: by their own word, by a bounce, or erased."""
    if dice.random() < 0.2:
        one.does(dice.choice(("unsubscribe", "bounce", "erase")), _moment(dice, first, last))


def _newcomer(dice: random.Random, number: int) -> Person:
    one = _somebody(dice, "new", number)
    signed = _moment(dice, 0, 24)
    day = (signed - START) / DAY
    one.does("sign_up", signed)
    way = dice.random()
    if way < 0.65:  # soon, or after days
        one.does("confirm", signed + timedelta(minutes=dice.choice((3, 50, 700, 5003, 10001))))
    elif way < 0.8:  # later than a week
        one.does("confirm", signed + timedelta(days=dice.choice((7, 8)), hours=2))
    if dice.random() < 0.35:
        one.does("order", _moment(dice, day + 0.1, day + 6), late=dice.choice((0, 0, 1, 30)) * HOUR)
    _end(dice, one, day + 0.2, day + 7)
    return one


def _passer_by(dice: random.Random, number: int) -> Person:
    """Known from what the shop tells only: nobody has signed up."""
    one = _somebody(dice, "guest", number)
    one.does("first_seen", _moment(dice, 0, 20))
    return one


def _cart_owner(dice: random.Random, number: int) -> Person:
    one = _somebody(dice, "cart", number)
    first = _moment(dice, 0.1, 28)
    for turn_number, begun in enumerate((first, first + timedelta(hours=dice.choice((5, 30, 100, 200))))):
        if turn_number and dice.random() < 0.5:
            break
        cart = f"{one.email}:{turn_number}"
        late = dice.choice((0, 0, 0, 0, 2, 30)) * HOUR
        touched = begun
        for _ in range(dice.choice((1, 1, 2, 3))):
            one.does("cart", touched, late=late, cart=cart)
            touched += timedelta(minutes=dice.choice((7, 45, 200)))
        after = dice.choice((0.3, 2, 5, 9, 14, 40, 90))
        way = dice.random()
        if way < 0.55:
            one.does("order", touched + after * HOUR, late=dice.choice((0, 0, 0, 3, 20)) * HOUR, cart=cart)
        elif way < 0.65:
            one.does("order", touched + after * HOUR)  # something else, without that cart
        elif way < 0.75:
            one.does("empty", touched + after * HOUR, cart=cart)
    _end(dice, one, (first - START) / DAY, (first - START) / DAY + 3)
    return one


def _reader(dice: random.Random, number: int) -> Person:
    one = _somebody(dice, "reader", number)
    one.mailed = dice.choice((2, 4, 4, 4))
    for name, days in (("opened", (None, None, 200, 80, 30)), ("ordered", (None, None, None, 400, 175, 100))):
        back = dice.choice(days)
        if back is not None:
            setattr(one, name, START - timedelta(days=back, minutes=dice.randrange(1, 300)))
    if dice.random() < 0.5:
        kind = dice.choice(("open", "click", "visit", "order", "order"))
        late = dice.choice((0, 0, 3, 90)) * HOUR
        one.does(kind, _moment(dice, 0.2, 28), late=late)
    if dice.random() < 0.1:
        one.does("order", START - timedelta(days=dice.randrange(1, 9), minutes=7), late=timedelta(days=14))
    _end(dice, one, 0.2, 28)
    return one


# --- what is due -------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Expected:
    """What one person is due.

    Args:
        mails: which, and at which turn.
        refused: mails that are not sent, with the reason that is logged.
        ways: how each enrollment stands at the end of the month, None for erased people.
        tags: those the recipes have put on.
    """

    mails: list[tuple[str, datetime]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    ways: list[tuple[str, str, str | None]] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    let_go: bool = False


class _Way:
    """One person seen by one recipe: when they ended, and what they may be sent."""

    def __init__(self, one: Person) -> None:
        self.one, self.found = one, Expected()
        self.unsubscribed = self.first("unsubscribe")
        self.bounced = self.first("bounce")
        self.erased = self.first("erase")

    def first(self, *kinds: str, after: datetime | None = None) -> datetime | None:
        """The turn at which the first such act that happened after a moment is known."""
        told = [act.told for act in self.one.facts() if act.kind in kinds and (after is None or act.at > after)]
        return turn(min(told)) if told else None

    def is_gone(self, at: datetime) -> bool:
        return self.erased is not None and self.erased <= at

    def ends(self, name: str, at: datetime, *stops: tuple[datetime | None, str]) -> bool:
        """Whether the enrollment has left by a turn; the earliest stop says why."""
        left = [(moment, why) for moment, why in stops if moment is not None and moment <= at]
        if left:
            self.found.ways.append((name, "exited", min(left)[1]))
        return bool(left) or self.is_gone(at)

    def mail(self, name: str, at: datetime) -> None:
        """A mail that is due at a turn, unless the address is suppressed."""
        if at >= END:
            return
        if self.bounced is not None and self.bounced <= at:
            self.found.refused.append((name, "suppressed"))
        else:
            self.found.mails.append((name, at))


def expected(one: Person) -> Expected:
    """What is due to one person by the end of the month."""
    way = _Way(one)
    {"new": _welcome, "cart": _carts, "reader": _silence}.get(one.group, lambda _: None)(way)
    if way.is_gone(LAST):
        way.found.ways, way.found.refused, way.found.tags = [], [], set()
    return way.found


def _welcome(way: _Way) -> None:
    name, found = "Welcome series", way.found
    signed = way.one.acts[0].at
    found.mails.append(("Confirm", turn(signed)))
    confirmed, deadline = way.first("confirm"), turn(signed) + 7 * DAY
    if confirmed is None or confirmed > deadline:
        if not way.ends(name, min(deadline, LAST), (way.unsubscribed, "unsubscribed")):
            found.ways.append((name, "exited", "timeout") if deadline < END else (name, "waiting", None))
        return
    if way.ends(name, confirmed, (way.unsubscribed, "unsubscribed")):
        return
    way.mail("Welcome", confirmed)
    second = turn(next_local(confirmed + 2 * DAY, way.one.zone, time(9), (1, 2, 3, 4, 5)))
    ordered = way.first("order", after=signed)
    done = second if ordered is None else min(max(ordered, confirmed), second)
    if way.ends(name, min(done, LAST), (way.unsubscribed, "unsubscribed")):
        return
    if done >= END:
        found.ways.append((name, "waiting", None))
        return
    if ordered is None or ordered > second:
        way.mail("Newsletter", second)
    found.ways.append((name, "completed", None))
    found.tags.add("welcomed")


def _turns(acts: list[Act]) -> Iterator[tuple[datetime, list[Act]]]:
    """Each turn of the month with what it sees, in the order things happened."""
    by_turn: dict[datetime, list[Act]] = {}
    for act in acts:
        by_turn.setdefault(turn(act.told), []).append(act)
    now = START
    while now < END:
        yield now, sorted(by_turn.get(now, []), key=lambda act: act.at)
        now += HOUR


def _carts(way: _Way) -> None:
    touched: dict[str, datetime] = {}
    ordered: set[str] = set()
    # By cart: when its enrollment goes on, and whether the reminder is behind it.
    inside: dict[str, tuple[datetime, bool]] = {}
    entered: dict[str, datetime] = {}
    name, found = "Abandoned cart", way.found
    for now, acts in _turns(way.one.facts()):
        if way.is_gone(now):
            return
        for act in acts:
            cart = act.cart or ""
            if act.kind == "cart" and act.at > touched.get(cart, START - DAY):
                touched[cart] = act.at
            elif act.kind == "empty" and touched.get(cart, END) <= act.at:
                del touched[cart]
            elif act.kind == "order" and cart:
                ordered.add(cart)
                touched.pop(cart, None)
                if inside.pop(cart, None):
                    found.ways.append((name, "exited", "order_placed"))
            elif act.kind == "unsubscribe":
                found.ways += [(name, "exited", "unsubscribed") for _ in inside]
                inside.clear()
        due = sorted((at, cart) for cart, at in touched.items() if at + 3 * HOUR <= now)
        for _, cart in due:
            del touched[cart]
        left = [cart for _, cart in due if cart not in ordered][:1]
        if left and left[0] not in entered and all(now - at >= 72 * HOUR for at in entered.values()):
            entered[left[0]] = now
            inside[left[0]] = (turn(next_local(now, way.one.zone, time(10))), False)
        for cart, (at, is_reminded) in list(inside.items()):
            if at <= now and is_reminded:
                del inside[cart]
                found.ways.append((name, "completed", None))
            elif at <= now:
                if way.unsubscribed is not None and way.unsubscribed <= now:
                    found.refused.append(("Cart reminder", "unsubscribed"))
                else:
                    way.mail("Cart reminder", now)
                inside[cart] = (now + 72 * HOUR, True)
    found.ways += [(name, "waiting", None) for _ in inside]


def _silence(way: _Way) -> None:
    one, name, found = way.one, "Re-engagement", way.found
    begun = _falls_silent(way)
    if begun is None:
        return
    first = turn(next_local(begun, one.zone, time(10), (2, 3, 4)))
    second, last = first + 7 * DAY, first + 14 * DAY
    signs = [way.first("open", "click", "visit", after=begun)]
    signs += [_evaluation(turn(act.told)) for act in one.facts() if act.kind == "order" and act.at < END]
    alive = min((sign for sign in signs if sign is not None and sign > begun), default=None)
    stops = ((way.first("order", after=begun), "order_placed"), (way.unsubscribed, "unsubscribed"))
    for what, at in (("Win-back", first), ("Last question", second), ("", last)):
        came = alive if alive is not None and alive <= at else None
        if way.ends(name, min(came or at, LAST), *stops):
            return
        if came is not None and came < END:
            found.ways.append((name, "completed", None))
            found.tags.add("came back")
            return
        if at >= END:
            found.ways.append((name, "waiting", None))
            return
        if what:
            way.mail(what, at)
    found.ways.append((name, "exited", "silent"))
    found.let_go = True
    ordered = [turn(act.told) for act in one.facts() if act.kind == "order"]
    found.tags.add("won back" if any(last < at < END for at in ordered) else "silent")


def _evaluation(moment: datetime) -> datetime:
    """The first evaluation of the segments at or after a turn."""
    while moment.hour % EVALUATED_EVERY:
        moment += HOUR
    return moment


def _falls_silent(way: _Way) -> datetime | None:
    """The evaluation that first finds somebody silent, by what is known then."""
    one, now = way.one, START
    while now < END and one.mailed >= 3 and not way.is_gone(now):
        known = [act for act in one.facts() if turn(act.told) <= now]
        seen = [act.at for act in known if act.kind in ("open", "click", "visit")] + [one.opened or START - 999 * DAY]
        bought = [act.at for act in known if act.kind == "order"] + [one.ordered or START - 999 * DAY]
        is_out = any(act.kind in ("unsubscribe", "bounce") for act in known)
        if not is_out and max(seen) < now - 90 * DAY and max(bought) < now - 180 * DAY:
            return now
        now += EVALUATED_EVERY * HOUR
    return None
