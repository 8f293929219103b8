"""Every message has its content, and keeps it: proved by the database, whatever the program does."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from mautolib.settings import Settings
from tests.integration.mailing import launched, rows

COPY = """
    insert into messages (contact_id, kind, content_id, dedupe_key, to_email, to_key, due_at, next_try_at, give_up_at)
    select 0, 'transactional', :content_id + n % 2 * :wrong, 'tx:' || n, 'a@mail.example', 'a@mail.example',
        now(), now(), now() + interval '1 day'
    from generate_series(1, 10) as n
"""


def content_of(tx: Connection) -> int:
    query = "insert into message_contents (subject, html_body) values ('s', 'h') returning content_id"
    return int(tx.execute(text(query)).scalar_one())


def test_a_message_without_a_content_is_refused(tx: Connection) -> None:
    content_id = content_of(tx)
    tx.execute(text(COPY), {"content_id": content_id, "wrong": 0})
    with pytest.raises(IntegrityError, match=f"message content {content_id + 999} does not exist"), tx.begin_nested():
        tx.execute(text(COPY.replace("'tx:'", "'ty:'")), {"content_id": content_id, "wrong": 999})
    assert tx.scalar(text("select count(*) from messages where content_id = :id"), {"id": content_id}) == 10


def test_what_a_message_says_is_frozen_and_stays(tx: Connection) -> None:
    content_id, other = content_of(tx), content_of(tx)
    tx.execute(text(COPY), {"content_id": content_id, "wrong": 0})
    with pytest.raises(IntegrityError, match="frozen"), tx.begin_nested():
        tx.execute(text("update messages set content_id = :id"), {"id": other})
    with pytest.raises(IntegrityError, match=f"message content {content_id} is in use"), tx.begin_nested():
        tx.execute(text("delete from message_contents where content_id = :id"), {"id": content_id})
    tx.execute(text("update messages set content_id = content_id, status = 'skipped', reason = 'cancelled'"))
    assert tx.execute(text("delete from message_contents where content_id = :id"), {"id": other}).rowcount == 1


def test_a_content_cannot_go_while_a_message_comes(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        content_id = content_of(tx)
    refused: list[str] = []

    def delete() -> None:
        try:
            with fresh_engine.begin() as tx:
                tx.execute(text("delete from message_contents where content_id = :id"), {"id": content_id})
        except IntegrityError as error:
            refused.append(str(error.orig))

    with fresh_engine.begin() as tx:
        tx.execute(text(COPY), {"content_id": content_id, "wrong": 0})
        deleting = threading.Thread(target=delete)
        deleting.start()
        deleting.join(0.3)
        assert deleting.is_alive(), "it waits for the message"
    deleting.join(20)
    assert [message.split("\n")[0] for message in refused] == [f"message content {content_id} is in use"]
    assert rows(fresh_engine, "select count(*) as n from message_contents")[0].n == 1


def test_the_worker_needs_no_more_than_it_has(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 3)
    query = COPY.replace(":content_id", "(select min(content_id) from message_contents)").replace(":wrong", "0")
    with fresh_engine.begin() as tx:
        tx.execute(text("set local role mauto_worker"))
        assert tx.execute(text(query)).rowcount == 10
