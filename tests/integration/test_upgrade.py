"""An installation of an earlier day with data in it: every later migration applies, and what was there still holds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from mautolib.campaigns import finishing
from mautolib.db import migrate as migrations
from mautolib.db.engine import connect
from mautolib.ledger import check
from mautolib.settings import Settings
from tests.conftest import Server
from tests.integration.mailing import rows, run_pump, states

#: Plain SQL as that day's code would have left it: three people, a campaign with one message sent and two queued.
_DATA = """
insert into contacts (email, email_key, first_name)
select 'person' || n || '@mail.example', 'person' || n || '@mail.example', 'Ann' from generate_series(1, 3) as n;
insert into campaigns (name, subject, html_body, status, requested_at, planned_at, started_at, occurrence)
values ('Autumn', 'Hello', '<p>Hello</p>', 'sending', '2026-11-22 08:00Z', '2026-11-22 08:00Z', '2026-11-22 08:00Z', 1);
insert into message_contents (campaign_id, subject, html_body)
select campaign_id, 'Hello', '<p>Hello</p>' from campaigns;
insert into messages (contact_id, kind, campaign_id, content_id, dedupe_key, due_at, next_try_at, give_up_at)
select contact_id, 'campaign', campaign_id, content_id, 'campaign:1:occ:1:contact:' || contact_id,
    '2026-11-22 08:00Z', '2026-11-22 08:00Z', '2026-11-23 08:00Z'
from contacts cross join message_contents;
insert into message_keys (dedupe_key, contact_id, message_id) select dedupe_key, contact_id, message_id from messages;
update messages set status = 'sent', sent_at = '2026-11-22 08:01Z', attempt_no = 1, attempt_id = 1,
    rfc_message_id = 'a@shop.example' where message_id = 1;
insert into message_attempts (message_id, contact_id, attempt_no, attempt_id, claimed_at, outcome)
select message_id, contact_id, 1, 1, '2026-11-22 08:01Z', 'sent' from messages where message_id = 1;
insert into events (contact_id, occurred_at, event_type, source, campaign_id, message_id)
select contact_id, '2026-11-22 08:01Z', 'email_sent', 'mauto', campaign_id, message_id
from messages where message_id = 1;
select nextval('attempt_ids');
insert into users (email, email_key, password_hash, role) values ('a@shop.example', 'a@shop.example', 'x', 'admin');
"""


@pytest.mark.parametrize("last", ["0027", "0040"])
def test_an_earlier_schema_with_data_is_brought_to_the_newest(
    cluster: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    name = cluster.create()
    engine = connect(cluster.url(name))
    everything = migrations.files()
    early = [item for item in everything if item.name.startswith("migrations/") and item.name[11:15] <= last]
    assert early[-1].name.startswith(f"migrations/{last}")
    try:
        with monkeypatch.context() as then:
            then.setattr(migrations, "files", lambda: early)
            migrations.migrate(engine)
        with engine.begin() as tx:
            tx.execute(text(_DATA))
        applied = migrations.migrate(engine)
        assert [item for item in applied if item.startswith("migrations/")] == [
            item.name for item in everything if item.name.startswith("migrations/") and item.name[11:15] > last
        ]
        assert migrations.migrate(engine) == [] and migrations.pending(engine) == []
        assert states(engine, 1) == {"sent": 1, "queued": 2}
        assert run_pump(engine, settings).counts == {"sent": 2}
        finishing.finish(engine, datetime.now(UTC))
        assert states(engine, 1) == {"sent": 3}
        with engine.connect() as tx:
            assert check.check(tx) == []
        assert len(rows(engine, "select from users")) == 1
    finally:
        engine.dispose()
        cluster.drop(name)
