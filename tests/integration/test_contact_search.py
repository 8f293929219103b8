"""Searching contacts by a part of address or name: always complete, wherever the index reaches."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib.contacts import listing, searching
from mautolib.contacts.model import ContactFilter
from tests.builders import make_contact

PARTS = ["shop", "SHOP.ex", "ana", "na s", "ärz", "a%", "_", "\\", "o'b", "@", "zz", "", "x\0", "\ud800", "ana silva",
         "ß"]  # fmt: skip
PEOPLE = [
    ("ana@shop.example", "Ana", "Silva"), ("bo@SHOP.example".lower(), "Bo", "O'Brien"), ("c_d@mail.example", "", ""),
    ("100a%@mail.example", "Jana", "Schmidt"), ("e\\f@mail.example", "März", "ÄRZTIN"), ("zoe@x.example", "ZZ", "Groß"),
]  # fmt: skip


def found(tx: Connection, part: str) -> set[int]:
    ids = {one.contact_id for one in listing.search(tx, ContactFilter(q=part), limit=200)}
    assert listing.count(tx, ContactFilter(q=part)) == len(ids)
    assert listing.count(tx, ContactFilter(q=part, subscribed=True)) == len(ids)
    return ids


def fill(engine: Engine) -> list[int]:
    with engine.begin() as tx:
        return [make_contact(tx, email=email, first_name=a, last_name=b) for email, a, b in PEOPLE]


def expected(people: list[tuple[str, str, str]], ids: list[int], part: str) -> set[int]:
    part = part.replace("\0", "\ufffd").encode("utf-8", "replace").decode().lower()
    return {
        number for number, (email, first, last) in zip(ids, people, strict=True)
        if part in email.lower() or part in f"{first} {last}".lower()
    }  # fmt: skip


@pytest.mark.parametrize("common", [False, True], ids=["by id", "walking the list"])
@pytest.mark.parametrize("indexed", [0, 3, 6])
def test_every_contact_is_found_however_far_the_index_reaches(
    fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch, indexed: int, common: bool
) -> None:
    monkeypatch.setattr(searching, "_MOMENT_SECONDS", 0)
    monkeypatch.setattr(searching, "_CHUNK", 2)
    if common:
        monkeypatch.setattr(searching, "_RARE", 0)
    people, ids = PEOPLE, []
    with fresh_engine.begin() as tx:
        ids = [make_contact(tx, email=e, first_name=a, last_name=b) for e, a, b in people[:indexed]]
    assert searching.extend_index(fresh_engine) == indexed
    with fresh_engine.begin() as tx:
        ids += [make_contact(tx, email=e, first_name=a, last_name=b) for e, a, b in people[indexed:]]
    with fresh_engine.begin() as tx:
        for part in PARTS:
            assert found(tx, part) == (expected(people, ids, part) if part else set(ids)), part


def test_changes_and_deletions_reach_the_index(fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_MOMENT_SECONDS", 0)
    first, *_ = fill(fresh_engine)
    assert searching.extend_index(fresh_engine) == len(PEOPLE)
    with fresh_engine.begin() as tx:
        late = make_contact(tx, email="late@shop.example", first_name="Lena")
        for number in (first, late):
            rename = "update contacts set first_name = 'Anouk' where contact_id = :id"
            tx.execute(text(rename), {"id": number})
        assert found(tx, "anouk") == {first, late} and found(tx, "lena") == set()
        tx.execute(text("delete from contacts where contact_id = :id"), {"id": first})
        assert found(tx, "anouk") == {late}
        assert tx.scalar(text("select count(*) from contact_search where contact_id = :id"), {"id": first}) == 0


def test_an_id_drawn_early_and_committed_late_is_not_lost(
    fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_MOMENT_SECONDS", 0)
    slow = fresh_engine.connect()
    transaction = slow.begin()
    early = make_contact(slow, email="early@shop.example")
    with fresh_engine.begin() as tx:
        after = make_contact(tx, email="after@shop.example")
    assert searching.extend_index(fresh_engine, patience_seconds=0.2) == 0
    waiting = threading.Thread(target=searching.extend_index, args=(fresh_engine,), daemon=True)
    waiting.start()
    transaction.commit()
    waiting.join(30)
    slow.close()
    with fresh_engine.begin() as tx:
        assert tx.scalars(text("select contact_id from contact_search order by 1")).all() == [early, after]
        assert found(tx, "early") == {early}
    assert searching.extend_index(fresh_engine) == 0


def test_who_goes_while_being_indexed_leaves_no_words(fresh_engine: Engine) -> None:
    first, second, *_ = fill(fresh_engine)
    delete = text("delete from contacts where contact_id = :id")

    def go(contact_id: int) -> None:
        with fresh_engine.begin() as tx:
            tx.execute(delete, {"id": contact_id})

    going = threading.Thread(target=go, args=(second,))
    with fresh_engine.connect() as indexing, fresh_engine.begin() as leaving:
        leaving.execute(delete, {"id": first})
        # It begins before the first one is gone, and has not ended when the second one goes.
        run = threading.Thread(target=searching._index_next, args=(indexing, 100))
        run.start()
        run.join(0.3)
        leaving.commit()
        run.join(20)
        going.start()
        going.join(0.3)
        indexing.commit()
    going.join(20)
    with fresh_engine.begin() as tx:
        kept = tx.scalars(text("select contact_id from contact_search order by 1")).all()
        assert kept == tx.scalars(text("select contact_id from contacts order by 1")).all()
        assert len(kept) == len(PEOPLE) - 2


def test_two_runs_at_once_index_each_contact_once(fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_MOMENT_SECONDS", 0)
    monkeypatch.setattr(searching, "_CHUNK", 7)
    with fresh_engine.begin() as tx:
        ids = [make_contact(tx, email=f"p{number}@shop.example") for number in range(100)]
    runs = [threading.Thread(target=searching.extend_index, args=(fresh_engine,)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    with fresh_engine.begin() as tx:
        assert tx.scalars(text("select contact_id from contact_search order by 1")).all() == ids
        assert tx.scalar(text("select indexed_to from contact_search_progress")) >= ids[-1]


def test_a_tag_is_known_before_contacts_are_looked_at(tx: Connection) -> None:
    """By its id the planner sees whether everybody has it; a join by name took five seconds with 200000 contacts."""
    tag_id = tx.scalar(text("insert into tags (name) values ('VIP') returning tag_id"))
    for name, wanted in (("VIP", tag_id), ("vip", 0), ("nobody", 0)):
        (condition,) = listing.conditions(tx, ContactFilter(tag=name))
        told = str(condition.compile(compile_kwargs={"literal_binds": True}))
        assert f"contact_tags.tag_id = {wanted}" in told and "tags.name" not in told
