"""Opens and clicks judged again: by what came together, in figures only, and the same whoever asks how often."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, text

from mautolib import feedback
from mautolib.analytics import readers
from mautolib.classification.hit_verdicts import (
    BURST,
    CROWD,
    LINKS_AT_ONCE,
    LOOK_BACK_VERSION,
    RULE_VERSION,
    judge,
    may_be_crowded,
)
from mautolib.db import tables
from mautolib.errors import InvalidInput
from tests.builders import NOW, make_campaign, make_contact, make_content, make_hit, make_message
from tests.tracked import BROWSER, links_of, path_of, tracked

LATER = NOW + timedelta(days=2)
NETWORK = "203.0.113.0/24"


class Sent:
    """A campaign on its way into a database."""

    def __init__(self, tx: Connection) -> None:
        self.tx = tx
        self.campaign = make_campaign(tx, name="Spring", status="sent")
        self.content = make_content(tx)

    def message(self, **fields: Any) -> tuple[int, int]:
        contact = make_contact(self.tx)
        row = {"campaign_id": self.campaign, "content_id": self.content, "sent_at": NOW, **fields}
        return contact, make_message(self.tx, contact, **row)

    def hit(self, message: tuple[int, int], seconds: float, kind: str = "open", **fields: Any) -> int:
        """A hit so many seconds after the hand-over, judged human when it came in."""
        values = {"user_agent": BROWSER, "network": NETWORK, "campaign_id": self.campaign,
                  "rule_version": RULE_VERSION, **fields}  # fmt: skip
        return make_hit(self.tx, *message, kind, occurred_at=NOW + timedelta(seconds=seconds), **values)


def newest(engine: Engine) -> dict[int, str]:
    query = text("select distinct on (hit_id) hit_id, verdict from hit_verdicts order by hit_id, rule_version desc")
    with engine.connect() as connection:
        return {row.hit_id: row.verdict for row in connection.execute(query)}


def count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text(f"select count(*) from {table}")) or 0)


def again(engine: Engine, *, since: datetime = NOW - timedelta(days=1), now: datetime = LATER) -> feedback.Recomputed:
    return feedback.recompute(engine, since=since, now=now)


def test_everything_that_came_together_is_judged_together(fresh_engine: Engine) -> None:
    expected = {}
    with fresh_engine.begin() as tx:
        sent = Sent(tx)
        reader = sent.message()
        for seconds, kind in ((60, "open"), (60.4, "open"), (63, "click"), (90, "click")):
            expected[sent.hit(reader, seconds, kind, link_position=1)] = "human"
        # A gateway follows every link at once, each from another network: the first ones are its, too.
        gateway = sent.message()
        for number in range(LINKS_AT_ONCE):
            network = f"198.51.{number}.0/24"
            expected[sent.hit(gateway, 300 + number / 10, "click", link_position=number, network=network)] = "bot"
        expected[sent.hit(gateway, 4000, "click", link_position=0)] = "human"
        # Somebody impatient: one link, again and again.
        impatient = sent.message()
        for number in range(BURST):
            expected[sent.hit(impatient, 500 + number / 5, "click", link_position=2)] = "human"
        burst = sent.message()
        for number in range(BURST + 1):
            expected[sent.hit(burst, 700 + number / 10)] = "bot"
        quick = sent.message()
        expected[sent.hit(quick, 0.5)] = "bot"
        expected[sent.hit(quick, -0.5)] = "bot"
        expected[sent.hit(quick, 1.5)] = "human"
        # Settled long after its hand-over: the readers before that were no machines.
        late = sent.message(sent_at=NOW + timedelta(hours=5))
        expected[sent.hit(late, 3600)] = "human"
        named = sent.message()
        expected[sent.hit(named, 900, user_agent="Mozilla/5.0 (compatible; Nutch-1.18)")] = "bot"
        expected[sent.hit(named, 920, user_agent="Mozilla/5.0")] = "prefetch"
        expected[sent.hit(named, 940, is_head=True)] = "prefetch"
        expected[sent.hit(named, 960, purpose="Prefetch")] = "prefetch"
        expected[sent.hit(named, 980, user_agent="")] = "bot"
    done = again(fresh_engine)
    assert newest(fresh_engine) == expected
    assert (done.judged, done.changed, done.campaigns) == (
        len(expected), sum(verdict != "human" for verdict in expected.values()), 1)  # fmt: skip
    with fresh_engine.connect() as connection:
        versions = connection.execute(text("select rule_version, count(*) from hit_verdicts group by 1 order by 1"))
        assert list(versions.all()) == [(RULE_VERSION, len(expected)), (LOOK_BACK_VERSION, done.changed)]
    twice = again(fresh_engine)
    assert (twice.judged, twice.changed) == (len(expected), 0)


def test_one_network_that_opens_many_messages_is_a_machine(fresh_engine: Engine) -> None:
    expected = {}
    with fresh_engine.begin() as tx:
        sent = Sent(tx)
        proxy = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
        for number in range(CROWD + 1):
            second = 100 + number / 100
            expected[sent.hit(sent.message(), second)] = "bot"
            expected[sent.hit(sent.message(), second, user_agent=proxy)] = "human"
            expected[sent.hit(sent.message(), second, network="10.0.0.0/24")] = "human"
            expected[sent.hit(sent.message(), second, network="198.51.100.0/24", user_agent=f"{BROWSER} {number}")
                     ] = "human"  # fmt: skip
            # An office at its desks: as many, in a minute.
            expected[sent.hit(sent.message(), 1000 + number * 3, network="192.0.2.0/24")] = "human"
    again(fresh_engine)
    assert newest(fresh_engine) == expected


def test_what_cannot_be_judged_keeps_its_verdict(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        sent = Sent(tx)
        _, message_id = sent.message()
        kept = {
            # Of somebody erased nothing is left: not even a name to judge by.
            sent.hit((0, message_id), 900, user_agent="", network=""): "human",
            make_hit(tx, 0, message_id, verdict="invalid", occurred_at=NOW + timedelta(seconds=901)): "invalid",
            sent.hit(sent.message(), 902, "unsubscribe", user_agent=""): "human",
            # A later rule has spoken.
            sent.hit(sent.message(), 903, user_agent="", rule_version=LOOK_BACK_VERSION + 1): "human",
            # Too young: what came with it may be in a spool.
            sent.hit(sent.message(), 2 * 86400 - 60, user_agent=""): "human",
        }
    assert again(fresh_engine).changed == 0
    assert newest(fresh_engine) == kept
    with pytest.raises(InvalidInput, match="future"):
        again(fresh_engine, since=LATER + timedelta(days=1))


def test_days_are_joined_without_a_seam(fresh_engine: Engine) -> None:
    """A burst across the end of a day's step is one burst, whatever day the look back begins."""
    with fresh_engine.begin() as tx:
        sent = Sent(tx)
        message = sent.message()
        hits = [sent.hit(message, 86400 + number / 10 - 0.2) for number in range(BURST + 1)]
    again(fresh_engine, since=NOW)
    assert newest(fresh_engine) == dict.fromkeys(hits, "bot")


def test_effects_fire_once_and_figures_follow(fresh_engine: Engine, settings: Any) -> None:
    """Real hits: their events stay what they were; the campaign's figures are those of the newest verdict."""
    with fresh_engine.begin() as tx:
        sent = Sent(tx)
        contact_id, message_id = sent.message()
        row = {"campaign_id": sent.campaign, "recipients": 1, "refreshed_at": NOW}
        tx.execute(insert(tables.campaign_totals).values(**row))
    links = links_of(settings, contact_id, campaign_id=sent.campaign, message_id=message_id)
    with tracked(settings) as client:
        for number in range(LINKS_AT_ONCE):
            client.get(path_of(links.click(f"https://shop.example/{number}", position=number)))
    tables_of_effects = ("events", "event_pending", "event_keys", "outbox", "hits")
    before = [count(fresh_engine, table) for table in tables_of_effects]
    assert before[:2] == [LINKS_AT_ONCE, LINKS_AT_ONCE]
    with fresh_engine.begin() as tx:
        now = tx.execute(text("select max(occurred_at) from hits")).scalar_one() + timedelta(hours=1)
        # However slow this machine is: they came together.
        raw = tx.execute(text("select * from hits order by hit_id")).all()
        tx.execute(text("update hits set occurred_at = :at"), {"at": now - timedelta(minutes=50)})
        assert readers.campaign_performance(tx, sent.campaign)["unique_clicks"] == 1
    assert len(raw) == LINKS_AT_ONCE
    done = again(fresh_engine, since=now - timedelta(days=1), now=now)
    assert (done.changed, done.campaigns) == (LINKS_AT_ONCE, 1)
    assert [count(fresh_engine, table) for table in tables_of_effects] == before
    with fresh_engine.connect() as connection:
        figures = readers.campaign_performance(connection, sent.campaign)
        assert (figures["raw_clicks"], figures["unique_clicks"], figures["unique_opens"]) == (LINKS_AT_ONCE, 0, 0)
        stored = connection.execute(text("select raw_clicks, unique_clicks, refreshed_at from campaign_totals")).one()
        assert tuple(stored) == (LINKS_AT_ONCE, 0, now)
        first = text("select count(*) from hit_verdicts where rule_version = :version and verdict = 'human'")
        assert connection.scalar(first, {"version": RULE_VERSION}) == LINKS_AT_ONCE


def test_both_ways_to_judge_agree_on_a_single_hit(fresh_engine: Engine) -> None:
    """What needs no company is judged alike at the hit and in SQL."""
    names = [BROWSER, "", "curl/8.5.0", "Mozilla/5.0", "okhttp/4.1", "YahooMailProxy", "Barracuda Sentinel"]
    cases = [
        {"user_agent": name, "is_head": is_head, "purpose": purpose, "seconds_since_made": seconds}
        for name in names for is_head in (False, True) for purpose in ("", "prefetch", "navigate")
        for seconds in (0.5, 30.0)
    ]  # fmt: skip
    expected = {}
    with fresh_engine.begin() as tx:
        sent = Sent(tx)
        for number, case in enumerate(cases):
            at = NOW + timedelta(minutes=number)
            message = sent.message(sent_at=at)
            hit = sent.hit(message, number * 60 + float(case["seconds_since_made"]), user_agent=case["user_agent"],
                           is_head=case["is_head"], purpose=case["purpose"])  # fmt: skip
            expected[hit] = judge(**case).value
    again(fresh_engine)
    assert newest(fresh_engine) == expected


def test_postgresql_and_python_know_the_same_networks(tx: Connection) -> None:
    from mautolib.classification.hit_verdicts import INSIDE

    some = [f"{a}.{b}.0.0/24" for a in (1, 10, 100, 101, 127, 169, 172, 192) for b in (0, 15, 16, 31, 32, 64, 127, 128,
            168, 254)] + ["", "::/48", "fc00::/48", "fd12::/48", "fe80::/48", "2001:db8::/48", "ff02::/48"]  # fmt: skip
    found = tx.execute(text("select network, network ~ :inside from unnest(cast(:some as text[])) as network"),
                       {"inside": INSIDE, "some": some}).all()  # fmt: skip
    assert {row[0]: row[1] for row in found} == {one: may_be_crowded(BROWSER, one) for one in some}
