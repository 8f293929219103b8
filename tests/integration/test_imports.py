"""Imports in a real database: what a file makes and changes, and what becomes of the import itself."""

from __future__ import annotations

import csv
import gzip
import io
import json
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import OperationalError

from mautolib import contacts
from mautolib.contacts import consent, imports
from mautolib.contacts.imports import merging, running
from mautolib.contacts.imports.model import ImportStatus
from mautolib.contacts.model import NewContact, SuppressionReason
from mautolib.db.engine import connect
from mautolib.errors import Conflict, InvalidInput, InvalidTransition, NotFound, ProviderUnavailable
from mautolib.settings import Settings
from tests.conftest import Server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
WAITING = "select event_id from event_pending, unnest(event_ids) as event_id order by 1"


class Bed:
    """A database, and a folder for files."""

    def __init__(self, engine: Engine, settings: Settings, folder: Path) -> None:
        self.engine, self.settings, self.folder = engine, settings, folder

    def ask(self, lines: str | Sequence[str], **options: Any) -> int:
        data = lines if isinstance(lines, str) else "\n".join(lines) + "\n"
        path = self.folder / f"{abs(hash(data))}.csv"
        path.write_text(data, encoding="utf-8")
        with self.engine.begin() as tx:
            return imports.request_file(tx, path, options, actor="user:1", now=NOW)

    def take(self, lines: str | Sequence[str], *, now: datetime = NOW, **options: Any) -> imports.Import:
        return imports.run(self.engine, self.settings, self.ask(lines, **options), now=now)

    def one(self, email: str) -> contacts.Contact:
        with self.engine.begin() as tx:
            found = contacts.find_by_email(tx, email)
        assert found is not None
        return found

    def scalars(self, query: str, **binds: Any) -> list[Any]:
        with self.engine.begin() as tx:
            return list(tx.scalars(text(query), binds))

    def count(self, table: str, condition: str = "true") -> int:
        return int(self.scalars(f"select count(*) from {table} where {condition}")[0])


@pytest.fixture(scope="module")
def own_engine(cluster: Server, template_database: str) -> Iterator[Engine]:
    """One database for this file, emptied before each test: imports commit, and a database a test takes seconds."""
    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    yield engine
    engine.dispose()
    cluster.drop(name)


@pytest.fixture
def bed(own_engine: Engine, settings: Settings, tmp_path: Path) -> Bed:
    with own_engine.begin() as tx:
        tx.execute(text(
            "truncate contacts, contact_tags, contact_history, consents, suppressions, tags, imports, import_rejects, "
            "events, event_keys, event_pending, outbox, webhook_endpoints restart identity cascade"
        ))  # fmt: skip
    return Bed(own_engine, settings, tmp_path)


def counts(done: imports.Import) -> tuple[int | None, int, int, int, int, int]:
    return done.total_rows, done.created, done.updated, done.skipped, done.rejected, done.suppressed


def create(bed: Bed, email: str, **fields: Any) -> contacts.Contact:
    with bed.engine.begin() as tx:
        return contacts.create(tx, NewContact(email=email, **fields), actor="test", now=NOW - timedelta(days=9))


# --- what a file makes -----------------------------------------------------------------------------------------------


def test_a_file_becomes_contacts(bed: Bed) -> None:
    done = bed.take([
        "email,First Name,country,language,tags,created_at,Size",
        "Anna@Shop.example,Anna,Germany,de,vip|new,2025-01-02,M",
        "ben@gmail.com,,,,,,",
        "ANNA@shop.example,Annie,,,,,",
        "nobody,x,,,,,",
    ])  # fmt: skip
    assert (done.status, counts(done)) == ("completed", (4, 2, 0, 2, 1, 0))
    assert (done.started_at, done.finished_at, done.created_by) == (NOW, NOW, "user:1")
    anna, ben = bed.one("anna@shop.example"), bed.one("ben@gmail.com")
    assert (anna.email, anna.first_name, anna.country, anna.language) == ("Anna@shop.example", "Anna", "DE", "de")
    assert (anna.custom_fields, anna.created_at) == ({"Size": "M"}, datetime(2025, 1, 2, tzinfo=UTC))
    assert [tag.name for tag in anna.tags] == ["new", "vip"]
    assert (ben.language, ben.subscribed, ben.consent_status, ben.created_at) == ("en", True, "unknown", NOW)
    assert (ben.is_free_provider, anna.is_free_provider) == (True, False)
    with bed.engine.begin() as tx:
        [reject] = imports.rejects(tx, done.import_id)
        told = tx.execute(text("select event_type, occurred_at, source, properties from events where contact_id = :id "
                               "order by event_id"), {"id": anna.contact_id}).all()  # fmt: skip
    assert (reject.line, reject.column, reject.code, reject.reason, reject.value) == (
        5, "email", "invalid_email", "Invalid email", "nobody")  # fmt: skip
    assert [(row.event_type, row.source) for row in told] == [
        ("contact_created", "mauto"), ("tag_added", "mauto"), ("tag_added", "mauto")]  # fmt: skip
    assert told[0].properties == {"source": "import", "import_id": str(done.import_id)}
    assert told[0].occurred_at == NOW
    assert bed.scalars(WAITING) == bed.scalars("select event_id from events order by 1")
    assert bed.count("events") == 4


def test_the_same_file_twice_changes_nothing(bed: Bed) -> None:
    lines = ["email,first_name,Size", "a@x.co,A,S", "b@x.co,B,", "a@x.co,Z,L"]
    bed.take(lines)
    before = bed.scalars("select contacts::text from contacts order by contact_id")
    assert counts(bed.take(lines)) == (3, 0, 0, 3, 0, 0)
    assert bed.scalars("select contacts::text from contacts order by contact_id") == before
    merged = bed.take(lines, update_policy="merge")
    assert counts(merged) == (3, 0, 2, 1, 0, 0)
    after = bed.scalars("select contacts::text from contacts order by contact_id")
    again = bed.take(lines, update_policy="merge", now=LATER)
    assert counts(again) == (3, 0, 0, 3, 0, 0)
    assert bed.scalars("select contacts::text from contacts order by contact_id") == after


@pytest.mark.parametrize(
    ("policy", "first", "last", "phone", "custom", "tally"),
    [
        ("skip", "Old", "", "1", {"a": "1", "b": "2"}, (2, 0, 0, 2, 0, 0)),
        ("fill_empty", "Old", "L1", "1", {"a": "1", "b": "2", "c": "3"}, (2, 0, 2, 0, 0, 0)),
        ("merge", "New2", "L1", "1", {"a": "1", "b": "9", "c": "3"}, (2, 0, 2, 0, 0, 0)),
        ("overwrite", "New2", "", "", {"b": "9", "c": "3"}, (2, 0, 2, 0, 0, 0)),
    ],
)
def test_each_policy_does_what_it_says_to_a_known_contact(
    bed: Bed, policy: str, first: str, last: str, phone: str, custom: dict[str, str], tally: tuple[int, ...]
) -> None:
    known = create(bed, "a@x.co", first_name="Old", phone="1", country="DE", custom_fields={"a": "1", "b": "2"})
    done = bed.take([
        "email,first_name,last_name,phone,a,b,c",
        "a@x.co,New1,L1,,,8,3",
        "A@x.co,New2,,,,9,",
    ], update_policy=policy, now=LATER)  # fmt: skip
    assert counts(done) == tally
    after = bed.one("a@x.co")
    if policy == "overwrite":
        custom = {"b": "9"}
    assert (after.first_name, after.last_name, after.phone, after.country) == (first, last, phone, "DE")
    assert dict(after.custom_fields) == custom
    assert (after.version, after.updated_at) == ((1, None) if policy == "skip" else (2, LATER))
    assert after.created_at == known.created_at
    history = bed.scalars("select first_name from contact_history where contact_id = :id", id=known.contact_id)
    assert history == ([] if policy == "skip" else ["Old"])
    assert bed.count("events", "event_type = 'contact_updated'") == (policy != "skip")


@pytest.mark.parametrize(
    ("policy", "names", "tally"),
    [
        ("skip", ("One", "", {"k": "1"}), (3, 1, 0, 2, 0, 0)),
        ("fill_empty", ("One", "L2", {"k": "1", "m": "2"}), (3, 1, 2, 0, 0, 0)),
        ("merge", ("Three", "L2", {"k": "3", "m": "2"}), (3, 1, 2, 0, 0, 0)),
        ("overwrite", ("Three", "", {"k": "3"}), (3, 1, 2, 0, 0, 0)),
    ],
)
def test_a_repeated_address_follows_the_policy(
    bed: Bed, policy: str, names: tuple[Any, ...], tally: tuple[int, ...]
) -> None:
    lines = ["email,first_name,last_name,k,m,created_at", "a@x.co,One,,1,,2025-01-01", "a@x.co,,L2,,2,2024-01-01",
             "A@X.co,Three,,3,,2023-01-01"]  # fmt: skip
    assert counts(bed.take(lines, update_policy=policy)) == tally
    after = bed.one("a@x.co")
    assert (after.first_name, after.last_name, dict(after.custom_fields)) == names
    assert after.created_at == datetime(2025, 1, 1, tzinfo=UTC)


def test_an_import_opts_out_but_never_in(bed: Bed) -> None:
    out = create(bed, "out@x.co", subscribed=False)
    inn = create(bed, "in@x.co")
    lines = ["email,subscribed", "out@x.co,true", "in@x.co,no", "new@x.co,0", "yes@x.co,1", "blank@x.co,"]
    assert counts(bed.take(lines)) == (5, 3, 0, 2, 0, 0)
    assert [bed.one(one.email).subscribed for one in (out, inn)] == [False, True]
    assert [bed.one(f"{name}@x.co").subscribed for name in ("new", "yes", "blank")] == [False, True, True]
    assert counts(bed.take(lines, update_policy="fill_empty")) == (5, 0, 0, 5, 0, 0)
    done = bed.take(lines, update_policy="merge", now=LATER)
    assert counts(done) == (5, 0, 1, 4, 0, 0)
    after = bed.one("in@x.co")
    assert (after.subscribed, after.consent_status, after.consent_source, after.consent_at) == (
        False, "withdrawn", "import", LATER)  # fmt: skip
    assert not bed.one("out@x.co").subscribed
    assert bed.scalars("select event_type from events where contact_id = :id order by event_type",
                       id=after.contact_id) == ["contact_created", "contact_updated", "unsubscribed"]  # fmt: skip
    assert bed.scalars("select actor || ' ' || status || ' ' || source from consents") == ["user:1 withdrawn import"]
    everybody_out = bed.take(["email", "quiet@x.co"], subscribed_default=False)
    assert (counts(everybody_out)[1], bed.one("quiet@x.co").subscribed) == (1, False)


def test_a_suppressed_address_stays_suppressed(bed: Bed) -> None:
    with bed.engine.begin() as tx:
        reasons = {"no@münchen.example": "unsubscribe", "law@x.co": "compliance", "dead@x.co": "bounce"}
        for email, reason in reasons.items():
            consent.suppress(tx, email, SuppressionReason(reason), actor="test", now=NOW)
    lines = ["email,subscribed", "NO@xn--mnchen-3ya.example,true", "Law@X.co,yes", "dead@x.co,yes", "dead@x.co,yes"]
    assert counts(bed.take(lines, consent_source="fair")) == (4, 3, 0, 1, 0, 4)
    states = {one: bed.one(one) for one in ("no@münchen.example", "law@x.co", "dead@x.co")}
    assert [(one.subscribed, one.suppressed) for one in states.values()] == [(False, True), (False, True), (True, True)]
    assert [one.consent_status for one in states.values()] == ["unknown", "unknown", "granted"]
    assert bed.count("mailable_contacts") == 0
    assert bed.count("suppressions") == 3


def test_consent_comes_with_a_source_and_a_time_and_for_new_contacts_only(bed: Bed) -> None:
    create(bed, "known@x.co")
    bed.take(
        ["email,subscribed,consent_status,consent_source,consent_at", "a@x.co,,,,", "b@x.co,no,,,",
         "c@x.co,,pending,,", "d@x.co,,granted,web form,2024-05-06T07:08:09Z", "known@x.co,,granted,x,2024-01-01"],
        consent_source="fair", consent_at="2025-01-01T00:00:00Z", update_policy="merge",
    )  # fmt: skip
    with bed.engine.begin() as tx:
        found = tx.execute(text("select left(email, 1), consent_status, consent_source, consent_at from contacts "
                                "where email <> 'known@x.co' order by email")).all()  # fmt: skip
    fair = datetime(2025, 1, 1, tzinfo=UTC)
    assert [tuple(row) for row in found] == [
        ("a", "granted", "fair", fair), ("b", "unknown", None, None), ("c", "pending", "fair", fair),
        ("d", "granted", "web form", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
    ]  # fmt: skip
    assert bed.one("known@x.co").consent_status == "unknown"
    assert bed.scalars("select status from consents order by status") == ["granted", "granted", "pending"]


def test_tags_are_made_once_added_and_never_taken_off(bed: Bed) -> None:
    vip = bed.scalars("insert into tags (name) values ('VIP') returning tag_id")[0]
    fair = bed.scalars("insert into tags (name) values ('Fair') returning tag_id")[0]
    create(bed, "known@x.co", tag_ids=[vip])
    lines = ["email,tags", r"a@x.co,vip|New\|er", "known@x.co,other", "a@x.co,more"]
    bed.take(lines, tag_ids=[str(fair)])
    assert [tag.name for tag in bed.one("a@x.co").tags] == ["Fair", "more", "New|er", "VIP"]
    assert [tag.name for tag in bed.one("known@x.co").tags] == ["VIP"]
    bed.take(lines, tag_ids=[str(fair)], update_policy="merge")
    assert [tag.name for tag in bed.one("known@x.co").tags] == ["Fair", "other", "VIP"]
    assert bed.scalars("select name from tags order by lower(name)") == ["Fair", "more", "New|er", "other", "VIP"]
    assert bed.count("events", "event_type = 'tag_added'") == bed.count("contact_tags") == 7
    with pytest.raises(InvalidInput, match="no tag 999999"):
        bed.ask(lines, tag_ids=[999_999])


def test_webhooks_hear_of_an_import_only_where_somebody_listens(bed: Bed) -> None:
    bed.take(["email", "a@x.co"])
    assert bed.count("outbox") == 0
    bed.scalars("insert into webhook_endpoints (url, secret_encrypted, events) "
                "values ('https://x.example', '', '{contact.created}') returning endpoint_id")  # fmt: skip
    bed.take(["email,first_name,tags", "b@x.co,B,vip", "a@x.co,A,"], update_policy="merge")
    with bed.engine.begin() as tx:
        [(name, data)] = tx.execute(text("select event_name, data from outbox")).all()
    assert (name, data["contact"]["email"], data["contact"]["tags"][0]["name"]) == ("contact.created", "b@x.co", "vip")
    shown = contacts.store.as_json(bed.one("b@x.co"))
    assert data["contact"].keys() == shown.keys()
    moments = {"created_at", "updated_at", "consent_at"}
    assert {k: v for k, v in data["contact"].items() if k not in moments} == {
        k: v for k, v in shown.items() if k not in moments}  # fmt: skip


# --- the import itself -----------------------------------------------------------------------------------------------


def test_counts_always_add_up(bed: Bed) -> None:
    done = bed.take(["email,n", "a@x.co,1", "b@x.co", "c@x.co,\"1", "d@x.co,2", ",3", "a@x.co,4", "e@x.co,5,6"])
    assert counts(done) == (7, 2, 0, 5, 4, 0)
    with bed.engine.begin() as tx:
        found = [(reject.line, reject.code) for reject in imports.rejects(tx, done.import_id)]
        assert found == [(3, "ragged_row"), (4, "unbalanced_quote"), (6, "invalid_email"), (8, "ragged_row")]
        assert [one.line for one in imports.rejects(tx, done.import_id, after_line=4, limit=1)] == [6]
        written = io.BytesIO()
        imports.write_rejects(tx, done.import_id, written.write)
    rows = list(csv.reader(io.StringIO(written.getvalue().decode())))
    assert rows[0] == ["line", "column", "code", "reason", "value"]
    assert rows[1] == ["3", "", "ragged_row", "Row has more or fewer cells than the header", "b@x.co"]


def test_a_dry_run_counts_the_same_and_changes_nothing(bed: Bed) -> None:
    create(bed, "b@x.co")
    lines = ["email,first_name,tags", "a@x.co,A,t", "b@x.co,B,t", "nope,C,t"]
    trial = bed.take(lines, update_policy="merge", dry_run=True)
    assert (trial.status, counts(trial)) == ("completed", (3, 1, 1, 1, 1, 0))
    assert (bed.count("contacts"), bed.count("tags"), bed.count("events")) == (1, 0, 1)
    with bed.engine.begin() as tx:
        assert [reject.line for reject in imports.rejects(tx, trial.import_id)] == [4]
    assert counts(bed.take(lines, update_policy="merge")) == counts(trial)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("a,b\n1,2\n", {}, "Could not detect an email column. Please ensure a column named 'email' exists."),
        ("", {}, "line 1 must name the columns"), ("email\na@x.co\n", {"mapping": {"Mail": "email"}}, "does not have"),
        ("email,opt-in\na@x.co,1\n", {}, "looks like consent"), ("email\n" + "x" * 1_100_000, {}, "Line 2 is longer"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_taken_fails_with_one_sentence(
    bed: Bed, data: str, options: dict[str, Any], message: str
) -> None:
    done = bed.take(data, **options)
    assert (done.status, done.finished_at) == ("failed", NOW)
    assert message in (done.error or "")
    assert bed.count("contacts") == bed.count("import_rejects") == 0


def test_a_damaged_file_leaves_nothing_half_done(bed: Bed) -> None:
    path = bed.folder / "cut.csv.gz"
    lines = "".join(f"c{n}@x.co\n" for n in range(200_000))
    path.write_bytes(gzip.compress(b"email\n" + lines.encode())[:-2000])
    with bed.engine.begin() as tx:
        import_id = imports.request_file(tx, path, {}, actor="test", now=NOW)
        assert imports.get(tx, import_id).format == "csv.gz"
    done = imports.run(bed.engine, bed.settings, import_id, now=NOW)
    assert done.status == "failed"
    assert "damaged or cut off" in (done.error or "")
    assert bed.count("contacts") == 0


def test_what_does_not_exist_or_is_finished_is_said(bed: Bed) -> None:
    done = bed.take(["email", "a@x.co"])
    with bed.engine.begin() as tx:
        with pytest.raises(NotFound, match=r"^Import not found$"):
            imports.get(tx, 4711)
        with pytest.raises(NotFound):
            imports.cancel(tx, 4711, now=NOW)
        with pytest.raises(InvalidTransition, match="completed"):
            imports.cancel(tx, done.import_id, now=NOW)
        with pytest.raises(InvalidInput, match="cannot be read"):
            imports.request_file(tx, bed.folder / "gone.csv", {}, actor="test", now=NOW)
        with pytest.raises(InvalidInput, match="cannot be read"):
            imports.request_file(tx, Path("a\0b"), {}, actor="test", now=NOW)
    with pytest.raises(Conflict, match="completed"):
        imports.run(bed.engine, bed.settings, done.import_id, now=NOW)
    with pytest.raises(NotFound):
        imports.run(bed.engine, bed.settings, 4711, now=NOW)
    assert list(imports.run_waiting(bed.engine, bed.settings)) == []


def test_waiting_imports_are_taken_in_order(bed: Bed) -> None:
    wanted = [bed.ask(["email", f"{name}@x.co"]) for name in "abc"]
    only = list(imports.run_waiting(bed.engine, bed.settings, clock=lambda: LATER, only=[wanted[2]]))
    assert [(done.import_id, done.finished_at) for done in only] == [(wanted[2], LATER)]
    rest = list(imports.run_waiting(bed.engine, bed.settings, clock=lambda: LATER))
    assert [done.import_id for done in rest] == wanted[:2]
    with bed.engine.begin() as tx:
        newest = [one.import_id for one in imports.list_imports(tx, status=ImportStatus.COMPLETED, limit=2)]
    assert newest == [wanted[2], wanted[1]]


def test_an_import_says_when_it_ended_and_its_contacts_when_it_began(bed: Bed) -> None:
    bed.ask(["email", "a@x.co"])
    ticks = iter([NOW, NOW, *(LATER + timedelta(seconds=n) for n in range(9))])
    [done] = imports.run_waiting(bed.engine, bed.settings, clock=lambda: next(ticks))
    assert (done.started_at, done.finished_at) == (NOW, LATER)
    assert bed.one("a@x.co").created_at == NOW


def test_a_waiting_import_is_cancelled_at_once(bed: Bed) -> None:
    import_id = bed.ask(["email", "a@x.co"])
    with bed.engine.begin() as tx:
        assert imports.cancel(tx, import_id, now=LATER).finished_at == LATER
    assert list(imports.run_waiting(bed.engine, bed.settings)) == []
    assert bed.count("contacts") == 0


def test_a_running_import_is_cancelled_before_it_changes_anything(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BEAT_SECONDS", 0.01)
    import_id = bed.ask("email\n" + "".join(f"c{n}@x.co\n" for n in range(9000)))
    seen: list[int] = []

    def stop(rows: int) -> None:
        if not seen:
            with bed.engine.begin() as tx:
                assert imports.cancel(tx, import_id, now=NOW).status == "cancelling"
                assert imports.cancel(tx, import_id, now=NOW).status == "cancelling"
            wait_for(lambda: "cancelling" not in bed.scalars("select status from imports") or beaten(bed))
        seen.append(rows)

    done = imports.run(bed.engine, bed.settings, import_id, now=NOW, progress=stop)
    assert (done.status, done.created, bed.count("contacts")) == ("cancelled", 0, 0)


def beaten(bed: Bed) -> bool:
    """Whether the worker has given a sign of life with its progress."""
    return bed.scalars("select coalesce(total_rows, 0) from imports")[0] > 0


def wait_for(condition: Any) -> None:
    clock = threading.Event()
    for _ in range(1000):
        if condition():
            return
        clock.wait(0.01)
    raise AssertionError("it did not happen within 10 s")


def test_progress_is_seen_while_it_runs(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BEAT_SECONDS", 0.01)
    import_id = bed.ask("email\n" + "".join(f"c{n}@x.co\n" for n in range(6000)))
    seen: list[tuple[int, int, str]] = []

    def look(rows: int) -> None:
        wait_for(lambda: (bed.scalars("select coalesce(total_rows, 0) from imports")[0]) >= rows - 2000)
        with bed.engine.begin() as tx:
            now = imports.get(tx, import_id)
        seen.append((rows, now.total_rows or 0, str(now.status)))

    done = imports.run(bed.engine, bed.settings, import_id, now=NOW, progress=look)
    assert [rows for rows, _, _ in seen] == [100, 2100, 4100, 6000] or [rows for rows, _, _ in seen][-1] == 6000
    assert {status for _, _, status in seen} == {"running"}
    assert done.total_rows == 6000


def test_a_killed_run_is_taken_again_and_gives_the_same(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["email", *(f"c{n % 40}@x.co" for n in range(60)), "bad"]
    import_id = bed.ask(lines)
    claim = imports.claim_next(bed.engine, now=NOW)
    assert claim is not None
    # This worker dies after the merge, before the commit; its lease still runs.
    with bed.engine.connect() as dying:
        with dying.begin():
            merging.open_staging(dying)
            merging.stage(dying, ["line", "email", "email_key", "flags"], [b"2\tz@x.co\tz@x.co\t0\n"])
        transaction = dying.begin()
        merging.merge(dying, import_id, imports.ImportOptions(), columns=[], actor="x", now=NOW)
        transaction.rollback()
        dying.invalidate()
    assert list(imports.run_waiting(bed.engine, bed.settings)) == []
    bed.scalars("update imports set lease_until = clock_timestamp() - interval '1 second' returning 1")
    [done] = imports.run_waiting(bed.engine, bed.settings, clock=lambda: LATER)
    assert (done.import_id, done.status, counts(done)) == (import_id, "completed", (61, 40, 0, 21, 1, 0))
    assert done.started_at == NOW
    assert bed.count("contacts") == bed.count("events") == 40
    # The first worker wakes up: whatever it still wants to say is not heard.
    running._fail(bed.engine, claim, "late", LATER)
    running._give_back(bed.engine, claim)
    with bed.engine.begin() as tx:
        assert imports.get(tx, import_id) == done


def test_a_worker_that_lost_its_lease_changes_nothing(bed: Bed) -> None:
    import_id = bed.ask("email\n" + "".join(f"c{n}@x.co\n" for n in range(3000)))
    taken: list[imports.Import] = []

    def freeze(rows: int) -> None:
        if not taken:
            bed.scalars("update imports set lease_until = clock_timestamp() - interval '1 second' returning 1")
            taken.extend(imports.run_waiting(bed.engine, bed.settings, clock=lambda: NOW))

    ended = imports.run(bed.engine, bed.settings, import_id, now=LATER, progress=freeze)
    assert [counts(done) for done in taken] == [(3000, 3000, 0, 0, 0, 0)]
    assert ended == taken[0]
    assert bed.count("contacts") == bed.count("events") == 3000


def test_a_lost_database_gives_the_import_back(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    import_id = bed.ask(["email", "a@x.co"])

    def lose(connection: Connection, *_: Any, **__: Any) -> None:
        raise OperationalError("select", {}, Exception("server closed the connection"), connection_invalidated=True)

    with monkeypatch.context() as patch:
        patch.setattr(running, "merge_or_try", lose)
        with pytest.raises(ProviderUnavailable):
            imports.run(bed.engine, bed.settings, import_id, now=NOW)
    with bed.engine.begin() as tx:
        assert imports.get(tx, import_id).status == "queued"
    assert imports.run(bed.engine, bed.settings, import_id, now=LATER).created == 1


@pytest.mark.parametrize(("policy", "updated"), [("skip", 0), ("merge", 1)])
def test_an_address_somebody_else_makes_meanwhile_is_known(bed: Bed, policy: str, updated: int) -> None:
    """The import is past looking for known addresses when the other commits: it looks again, and tells nobody twice."""
    import_id = bed.ask(["email,first_name", "a@x.co,A", "b@x.co,B", "c@x.co,C"], update_policy=policy)
    done: list[imports.Import] = []
    thread = threading.Thread(
        target=lambda: done.append(imports.run(bed.engine, bed.settings, import_id, now=LATER))
    )
    with bed.engine.begin() as other:
        known = contacts.create(other, NewContact(email="b@x.co"), actor="test", now=NOW)
        thread.start()
        wait_for(lambda: bed.scalars("select count(*) from pg_stat_activity where datname = current_database() "
                                     "and wait_event_type = 'Lock'")[0])  # fmt: skip
    thread.join()
    assert [(one.status, counts(one)) for one in done] == [("completed", (3, 2, updated, 1 - updated, 0, 0))]
    assert bed.one("b@x.co").contact_id == known.contact_id
    assert bed.one("b@x.co").first_name == ("B" if updated else "")
    told = "select event_type || ' ' || count(*) from events group by event_type order by 1"
    assert bed.scalars(told) == ["contact_created 3", *["contact_updated 1"] * updated]
    assert bed.scalars(WAITING) == bed.scalars("select event_id from events order by 1")


def test_a_contact_changed_meanwhile_is_merged_with_that_change(bed: Bed) -> None:
    bed.take(["email,first_name,Size", "a@x.co,A,S", "b@x.co,B,S"])
    import_id = bed.ask(["email,first_name,Size", "a@x.co,Ann,M", "b@x.co,B,S"], update_policy="merge")
    done: list[imports.Import] = []
    thread = threading.Thread(
        target=lambda: done.append(imports.run(bed.engine, bed.settings, import_id, now=LATER))
    )
    with bed.engine.begin() as other:
        other.execute(text("update contacts set custom_fields = custom_fields || '{\"Shoe\": \"42\"}', phone = '1'"))
        thread.start()
        wait_for(lambda: bed.scalars("select count(*) from pg_stat_activity where datname = current_database() "
                                     "and wait_event_type = 'Lock'")[0])  # fmt: skip
    thread.join()
    # The second contact is as the file says either way: it is not waited for, nor written.
    assert [(one.status, counts(one)) for one in done] == [("completed", (2, 0, 1, 1, 0, 0))]
    ann, ben = bed.one("a@x.co"), bed.one("b@x.co")
    assert (ann.first_name, ann.phone, ann.custom_fields) == ("Ann", "1", {"Size": "M", "Shoe": "42"})
    assert (ben.custom_fields, ben.version) == ({"Size": "S", "Shoe": "42"}, 1)


def test_an_import_picked_to_end_a_deadlock_merges_again(bed: Bed) -> None:
    """Others lock contacts in another order: suppressing a list goes by id, not by address."""
    bed.take(["email,first_name", "a@x.co,A"])
    bed.take(["email,first_name", "z@x.co,Z"])
    earlier, later = bed.one("a@x.co").contact_id, bed.one("z@x.co").contact_id
    import_id = bed.ask(["email,first_name", "a@x.co,B", "z@x.co,Y"], update_policy="merge")
    lock = text("select from contacts where contact_id = :id for update")
    waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    done: list[imports.Import] = []
    thread = threading.Thread(
        target=lambda: done.append(imports.run(bed.engine, bed.settings, import_id, now=LATER))
    )
    with bed.engine.begin() as other:
        other.execute(lock, {"id": later})
        thread.start()
        until = time.monotonic() + 20
        while not bed.scalars(waiting)[0] and time.monotonic() < until:
            time.sleep(0.02)
        # The import waited first, so it is the one that finds the circle and is picked.
        other.execute(lock, {"id": earlier})
    thread.join()
    assert [(one.status, counts(one)) for one in done] == [("completed", (2, 0, 2, 0, 0, 0))]
    assert (bed.one("a@x.co").first_name, bed.one("z@x.co").first_name) == ("B", "Y")


def test_a_fault_of_ours_fails_the_import_and_is_raised(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    import_id = bed.ask(["email", "a@x.co"])

    def stumble(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(running, "merge_or_try", stumble)
        with pytest.raises(ZeroDivisionError):
            imports.run(bed.engine, bed.settings, import_id, now=NOW)
    with bed.engine.begin() as tx:
        done = imports.get(tx, import_id)
    assert (done.status, done.error) == (
        "failed", f"Unexpected ZeroDivisionError; the log of import {import_id} says more")  # fmt: skip


def test_imports_side_by_side_give_the_same_sums(bed: Bed) -> None:
    files = [[f"c{n * step % 3000}@x.co" for n in range(2000)] for step in (1, 7, 11, 13)]
    wanted = [
        bed.ask(["email,first_name", *(f"{one},N{k}" for one in file)], update_policy="merge" if k % 2 else "skip")
        for k, file in enumerate(files)
    ]
    done: list[imports.Import] = []
    threads = [threading.Thread(target=lambda: done.extend(imports.run_waiting(bed.engine, bed.settings)))
               for _ in range(4)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    people = len({one for file in files for one in file})
    assert sorted(one.import_id for one in done) == wanted
    assert {one.status for one in done} == {ImportStatus.COMPLETED}
    assert sum(one.created for one in done) == bed.count("contacts") == people
    assert all(one.total_rows == one.created + one.updated + one.skipped == 2000 for one in done)
    assert bed.count("events", "event_type = 'contact_created'") == people


# --- uploads, lists, previews ----------------------------------------------------------------------------------------


def test_an_upload_is_stored_under_its_own_name_and_forgotten_when_done(bed: Bed) -> None:
    stored = imports.store_upload(bed.settings, iter([b"email\n", b"a@x.co\n"]))
    path = bed.settings.storage_path / stored.uri
    assert (stored.size, stored.format, path.read_bytes()) == (13, "csv", b"email\na@x.co\n")
    with bed.engine.begin() as tx:
        import_id = imports.request(tx, filename="C:\\x\\Liste.csv", uri=stored.uri, options={}, actor="a", now=NOW,
                                    sha256=stored.sha256)  # fmt: skip
    done = imports.run(bed.engine, bed.settings, import_id, now=NOW)
    assert (done.filename, done.created, path.exists()) == ("Liste.csv", 1, False)


def test_an_upload_has_a_limit_and_a_kind(bed: Bed, settings: Settings) -> None:
    from dataclasses import replace

    for blocks, code in (([b"x" * 600] * 2, "too_large"), ([b"PK\x03\x04", b"x"], "unsupported_file")):
        with pytest.raises(InvalidInput) as failure:
            imports.store_upload(replace(bed.settings, max_import_bytes=1000), iter(blocks))
        assert failure.value.code == code
    assert list((bed.settings.storage_path / "uploads").iterdir()) == []
    assert imports.store_upload(bed.settings, [gzip.compress(b"email\n")]).format == "csv.gz"


def test_a_list_is_taken_as_a_whole(bed: Bed) -> None:
    vip = bed.scalars("insert into tags (name) values ('vip') returning tag_id")[0]
    create(bed, "known@x.co")
    custom = {"n": [1, {"x": None}], "q": 'a"\n'}
    items = [
        NewContact(email="A@X.co", first_name="A\\", custom_fields=custom, tag_ids=[vip, 9]),
        NewContact(email="known@x.co", first_name="Changed", tag_ids=[vip]),
        NewContact(email="a@x.co", subscribed=False),
        NewContact(email="b@mailinator.com", consent_status="granted", consent_source="form", subscribed=False),
    ]  # fmt: skip
    with bed.engine.begin() as tx:
        done = imports.import_items(tx, items, actor="user:1", now=NOW)
    assert (done.status, done.format, counts(done)) == ("completed", "json", (4, 2, 0, 2, 0, 0))
    one, other, known = bed.one("a@x.co"), bed.one("b@mailinator.com"), bed.one("known@x.co")
    assert (one.email, one.first_name, one.subscribed) == ("A@x.co", "A\\", True)
    assert one.custom_fields == custom
    assert ([tag.name for tag in one.tags], known.tags, known.first_name) == (["vip"], (), "")
    assert (other.is_disposable, other.subscribed, other.consent_status, other.consent_at) == (
        True, False, "granted", NOW)  # fmt: skip


def test_a_bad_item_refuses_the_list(bed: Bed) -> None:
    items = [NewContact(email="a@x.co"), NewContact(email="nope", currency="?"), NewContact(email="c@x.co", phone="\n")]
    with bed.engine.begin() as tx, pytest.raises(InvalidInput, match=r"^Item 1: ") as failure:
        imports.import_items(tx, items, actor="user:1", now=NOW)
    assert [failure.value.path, *(path for path, _ in failure.value.problems)] == [
        ("body", 1, "email"), ("body", 1, "currency"), ("body", 2, "phone")]  # fmt: skip
    assert bed.count("contacts") == bed.count("imports") == 0
    with bed.engine.begin() as tx, pytest.raises(InvalidInput, match="at most 5000"):
        imports.import_items(tx, [NewContact(email="a@x.co")] * 5001, actor="user:1", now=NOW)


def test_a_preview_shows_what_would_happen(bed: Bed) -> None:
    path = bed.folder / "look.csv"
    path.write_text("Kontakt;First Name;Größe\n" + "".join(f"c{n}@x.co;N{n};M\n" for n in range(250)), "utf-8")
    seen = imports.preview(path, limit=1 << 20)
    assert (seen.total_rows, seen.delimiter, seen.encoding) == (250, ";", "utf-8")
    assert (seen.detected_email_column, seen.columns) == ("Kontakt", ("Kontakt", "First Name", "Größe"))
    assert seen.mapping == {"Kontakt": "email", "First Name": "first_name", "Größe": "custom_fields.Größe"}
    assert [row["Kontakt"] for row in seen.sample_rows] == [f"c{n}@x.co" for n in range(5)]
    path.write_text("a,b\n1,2\n")
    assert imports.preview(path, limit=1 << 20).detected_email_column is None


def test_no_staging_outlives_an_import(bed: Bed) -> None:
    found: list[str] = []

    def record(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    event.listen(bed.engine, "before_cursor_execute", record)
    bed.take(["email", "a@x.co"])
    with bed.engine.begin() as tx:
        imports.import_items(tx, [NewContact(email="b@x.co")], actor="user:1", now=NOW)
    event.remove(bed.engine, "before_cursor_execute", record)
    assert any(one.startswith("create temporary view import_rows") for one in found)
    assert any(one.startswith("create temporary table import_rows") for one in found)
    assert bed.scalars("select relname from pg_class where relnamespace = pg_my_temp_schema()") == []
    assert bed.scalars("select relname from pg_class where relname ~ '^import_[0-9]'") == []
    assert json.dumps(bed.scalars("select count(*) from import_rows")) == "[0]"
